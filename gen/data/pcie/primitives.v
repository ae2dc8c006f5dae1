// Stand-ins for vendor primitives in a simulation of LitePCIe's core. A bench drives CLKOUT0 of
// MMCME4_BASE.

module IBUFDS_GTE4 #(parameter REFCLK_HROW_CK_SEL = 0) (
  input CEB,
  input I,
  input IB,
  output O,
  output ODIV2
);
  assign O = I;
  assign ODIV2 = I;
endmodule

module FDPE #(parameter INIT = 1) (
  input C,
  input CE,
  input D,
  input PRE,
  output reg Q = INIT
);
  always @(posedge C or posedge PRE)
    if (PRE) Q <= 1;
    else if (CE) Q <= D;
endmodule

module BUFG (
  input I,
  output O
);
  assign O = I;
endmodule

module MMCME4_BASE #(
  parameter CLKIN1_PERIOD = 0.0,
  parameter DIVCLK_DIVIDE = 1,
  parameter CLKFBOUT_MULT_F = 1.0,
  parameter CLKOUT0_DIVIDE_F = 1.0
) (
  input CLKIN1,
  input RST,
  input PWRDWN,
  input CLKFBIN,
  output CLKFBOUT,
  output reg CLKOUT0 = 0,
  output LOCKED
);
  reg [3:0] count = 0;
  assign CLKFBOUT = CLKIN1;
  assign LOCKED = &count;
  always @(posedge CLKOUT0 or posedge RST)
    if (RST) count <= 0;
    else if (!LOCKED) count <= count + 1;
endmodule
