// SPDX-License-Identifier: BSD-2-Clause
// Simulation model of the ECP5 block RAM, by the properties that yosys states of it in
// lattice/brams_16kd.txt: 16 Kbit of data and 2 Kbit of parity, two ports of 1 to 18 bits, or
// with a width of 36 one that writes (port A) and one that reads (port B) on the pins of both.
// INITVAL_xx holds 16 words of 18 bits, 20 bits apart. What the ports do: block_ram.v.

// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL
module DP16KD #(
    parameter DATA_WIDTH_A = 18,
    parameter DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC",
    parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000",
    parameter CSDECODE_B = "0b000",
    parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL",
    parameter CLKAMUX = "CLKA",
    parameter CLKBMUX = "CLKB",
    parameter GSR = "ENABLED",
    parameter INITVAL_00 = 320'h0,
    parameter INITVAL_01 = 320'h0,
    parameter INITVAL_02 = 320'h0,
    parameter INITVAL_03 = 320'h0,
    parameter INITVAL_04 = 320'h0,
    parameter INITVAL_05 = 320'h0,
    parameter INITVAL_06 = 320'h0,
    parameter INITVAL_07 = 320'h0,
    parameter INITVAL_08 = 320'h0,
    parameter INITVAL_09 = 320'h0,
    parameter INITVAL_0A = 320'h0,
    parameter INITVAL_0B = 320'h0,
    parameter INITVAL_0C = 320'h0,
    parameter INITVAL_0D = 320'h0,
    parameter INITVAL_0E = 320'h0,
    parameter INITVAL_0F = 320'h0,
    parameter INITVAL_10 = 320'h0,
    parameter INITVAL_11 = 320'h0,
    parameter INITVAL_12 = 320'h0,
    parameter INITVAL_13 = 320'h0,
    parameter INITVAL_14 = 320'h0,
    parameter INITVAL_15 = 320'h0,
    parameter INITVAL_16 = 320'h0,
    parameter INITVAL_17 = 320'h0,
    parameter INITVAL_18 = 320'h0,
    parameter INITVAL_19 = 320'h0,
    parameter INITVAL_1A = 320'h0,
    parameter INITVAL_1B = 320'h0,
    parameter INITVAL_1C = 320'h0,
    parameter INITVAL_1D = 320'h0,
    parameter INITVAL_1E = 320'h0,
    parameter INITVAL_1F = 320'h0,
    parameter INITVAL_20 = 320'h0,
    parameter INITVAL_21 = 320'h0,
    parameter INITVAL_22 = 320'h0,
    parameter INITVAL_23 = 320'h0,
    parameter INITVAL_24 = 320'h0,
    parameter INITVAL_25 = 320'h0,
    parameter INITVAL_26 = 320'h0,
    parameter INITVAL_27 = 320'h0,
    parameter INITVAL_28 = 320'h0,
    parameter INITVAL_29 = 320'h0,
    parameter INITVAL_2A = 320'h0,
    parameter INITVAL_2B = 320'h0,
    parameter INITVAL_2C = 320'h0,
    parameter INITVAL_2D = 320'h0,
    parameter INITVAL_2E = 320'h0,
    parameter INITVAL_2F = 320'h0,
    parameter INITVAL_30 = 320'h0,
    parameter INITVAL_31 = 320'h0,
    parameter INITVAL_32 = 320'h0,
    parameter INITVAL_33 = 320'h0,
    parameter INITVAL_34 = 320'h0,
    parameter INITVAL_35 = 320'h0,
    parameter INITVAL_36 = 320'h0,
    parameter INITVAL_37 = 320'h0,
    parameter INITVAL_38 = 320'h0,
    parameter INITVAL_39 = 320'h0,
    parameter INITVAL_3A = 320'h0,
    parameter INITVAL_3B = 320'h0,
    parameter INITVAL_3C = 320'h0,
    parameter INITVAL_3D = 320'h0,
    parameter INITVAL_3E = 320'h0,
    parameter INITVAL_3F = 320'h0,
    parameter INIT_DATA = "STATIC"
) (
    input
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0,
    input
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    output
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0,
    input
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0,
    input
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
);
  localparam SHIFT_A = DATA_WIDTH_A == 1 ? 0 : DATA_WIDTH_A == 2 ? 1 : DATA_WIDTH_A == 4 ? 2
      : DATA_WIDTH_A == 9 ? 3 : DATA_WIDTH_A == 18 ? 4 : DATA_WIDTH_A == 36 ? 5 : -1;
  localparam SHIFT_B = DATA_WIDTH_B == 1 ? 0 : DATA_WIDTH_B == 2 ? 1 : DATA_WIDTH_B == 4 ? 2
      : DATA_WIDTH_B == 9 ? 3 : DATA_WIDTH_B == 18 ? 4 : DATA_WIDTH_B == 36 ? 5 : -1;
  localparam MODE_A = WRITEMODE_A == "NORMAL" ? 0 : WRITEMODE_A == "WRITETHROUGH" ? 1
      : WRITEMODE_A == "READBEFOREWRITE" ? 2 : -1;
  localparam MODE_B = WRITEMODE_B == "NORMAL" ? 0 : WRITEMODE_B == "WRITETHROUGH" ? 1
      : WRITEMODE_B == "READBEFOREWRITE" ? 2 : -1;
  localparam WIDE = SHIFT_A == 5 || SHIFT_B == 5;

  generate
    if (SHIFT_A < 0 || SHIFT_B < 0 || MODE_A < 0 || MODE_B < 0)
      $error("DP16KD: this width or write mode is not in the model");
    if (REGMODE_A != "NOREG" && REGMODE_A != "OUTREG"
        || REGMODE_B != "NOREG" && REGMODE_B != "OUTREG"
        || RESETMODE != "SYNC" && RESETMODE != "ASYNC")
      $error("DP16KD: this register or reset mode is not in the model");
  endgenerate

  // "0b101": the chip select pins 2, 1, 0 that turn the port on.
  function [2:0] decode(input [39:0] text);
    decode = {text[16], text[8], text[0]};
  endfunction
  wire on_a = CEA && {CSA2, CSA1, CSA0} == decode(CSDECODE_A);
  wire on_b = CEB && {CSB2, CSB1, CSB0} == decode(CSDECODE_B);

  wire [17:0] di_a = {
      DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4,
      DIA3, DIA2, DIA1, DIA0
  };
  wire [17:0] di_b = {
      DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4,
      DIB3, DIB2, DIB1, DIB0
  };
  wire [35:0] do_a, do_b;
  // Of a wide word, the lower half is on port A's pins.
  assign {
      DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4,
      DOA3, DOA2, DOA1, DOA0
  } = SHIFT_B == 5 ? do_b[17:0] : do_a[17:0];
  assign {
      DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4,
      DOB3, DOB2, DOB1, DOB0
  } = SHIFT_B == 5 ? do_b[35:18] : do_b[17:0];

  xnorforge_block_ram #(
      .BYTE(9),
      .PITCH(20),
      .INIT({
          INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39,
          INITVAL_38, INITVAL_37, INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32,
          INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E, INITVAL_2D, INITVAL_2C, INITVAL_2B,
          INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25, INITVAL_24,
          INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D,
          INITVAL_1C, INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16,
          INITVAL_15, INITVAL_14, INITVAL_13, INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F,
          INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A, INITVAL_09, INITVAL_08,
          INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01,
          INITVAL_00
      }),
      .ASYNC(RESETMODE == "ASYNC"),
      .RESET_BLOCKS(!WIDE),
      .A_SHIFT(SHIFT_A),
      .B_SHIFT(SHIFT_B),
      .A_MODE(MODE_A),
      .B_MODE(MODE_B),
      .A_REGISTER(REGMODE_A == "OUTREG"),
      .B_REGISTER(REGMODE_B == "OUTREG")
  ) ram (
      .a_clk(CLKAMUX == "INV" ? ~CLKA : CLKA),
      .a_enable(on_a),
      .a_write(WEA),
      .a_reset(RSTA),
      .a_register_enable(OCEA),
      .a_address({
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
      }),
      .a_data({di_b, di_a}),
      .a_out(do_a),
      .b_clk(CLKBMUX == "INV" ? ~CLKB : CLKB),
      .b_enable(on_b),
      .b_write(WEB),
      .b_reset(RSTB),
      .b_register_enable(OCEB),
      .b_address({
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
      }),
      .b_data({18'h0, di_b}),
      .b_out(do_b)
  );
endmodule
