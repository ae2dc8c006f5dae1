// SPDX-License-Identifier: BSD-2-Clause
// Simulation model of Gowin's rPLL: the clock passes through, LOCK rises after 8 cycles.
// The frequency is not modelled: a simulated board counts cycles, not seconds.

// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL
module rPLL #(
    parameter FCLKIN = "100.0",
    parameter DEVICE = "GW1N-1",
    parameter IDIV_SEL = 0,
    parameter FBDIV_SEL = 0,
    parameter ODIV_SEL = 8,
    parameter DYN_IDIV_SEL = "false",
    parameter DYN_FBDIV_SEL = "false",
    parameter DYN_ODIV_SEL = "false",
    parameter CLKFB_SEL = "internal"
) (
    input        CLKIN,
    input        CLKFB,
    input        RESET,
    input        RESET_P,
    input  [5:0] FBDSEL,
    input  [5:0] IDSEL,
    input  [5:0] ODSEL,
    input  [3:0] PSDA,
    input  [3:0] DUTYDA,
    input  [3:0] FDLY,
    output       CLKOUT,
    output       LOCK
);
  reg [3:0] cycle_count = 0;
  always @(posedge CLKIN)
    if (RESET || RESET_P) cycle_count <= 0;
    else if (!LOCK) cycle_count <= cycle_count + 1;
  assign LOCK   = cycle_count[3];
  assign CLKOUT = CLKIN;
endmodule
