// SPDX-License-Identifier: BSD-2-Clause
// Simulation models of the Gowin block RAMs that yosys uses, by the properties that yosys states of
// them in gowin/brams.txt: one port (SP), one that writes and one that reads (SDPB), two
// (DPB), of up to 32 bits; with parity bits (SPX9, SDPX9B, DPX9B) of 9, 18, 36. INIT_RAM_xx holds
// 32 bytes. A port is on where BLKSEL is BLK_SEL. What the ports do: block_ram.v.

// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL

module SP #(
    parameter READ_MODE = 1'b0,    // 1: a second register behind the output
    parameter WRITE_MODE = 2'b00,  // output while writing: 0 kept, 1 the new word, 2 the old one
    parameter BIT_WIDTH = 32,
    parameter BLK_SEL = 3'b000,
    parameter INIT_RAM_00 = 256'h0,
    parameter INIT_RAM_01 = 256'h0,
    parameter INIT_RAM_02 = 256'h0,
    parameter INIT_RAM_03 = 256'h0,
    parameter INIT_RAM_04 = 256'h0,
    parameter INIT_RAM_05 = 256'h0,
    parameter INIT_RAM_06 = 256'h0,
    parameter INIT_RAM_07 = 256'h0,
    parameter INIT_RAM_08 = 256'h0,
    parameter INIT_RAM_09 = 256'h0,
    parameter INIT_RAM_0A = 256'h0,
    parameter INIT_RAM_0B = 256'h0,
    parameter INIT_RAM_0C = 256'h0,
    parameter INIT_RAM_0D = 256'h0,
    parameter INIT_RAM_0E = 256'h0,
    parameter INIT_RAM_0F = 256'h0,
    parameter INIT_RAM_10 = 256'h0,
    parameter INIT_RAM_11 = 256'h0,
    parameter INIT_RAM_12 = 256'h0,
    parameter INIT_RAM_13 = 256'h0,
    parameter INIT_RAM_14 = 256'h0,
    parameter INIT_RAM_15 = 256'h0,
    parameter INIT_RAM_16 = 256'h0,
    parameter INIT_RAM_17 = 256'h0,
    parameter INIT_RAM_18 = 256'h0,
    parameter INIT_RAM_19 = 256'h0,
    parameter INIT_RAM_1A = 256'h0,
    parameter INIT_RAM_1B = 256'h0,
    parameter INIT_RAM_1C = 256'h0,
    parameter INIT_RAM_1D = 256'h0,
    parameter INIT_RAM_1E = 256'h0,
    parameter INIT_RAM_1F = 256'h0,
    parameter INIT_RAM_20 = 256'h0,
    parameter INIT_RAM_21 = 256'h0,
    parameter INIT_RAM_22 = 256'h0,
    parameter INIT_RAM_23 = 256'h0,
    parameter INIT_RAM_24 = 256'h0,
    parameter INIT_RAM_25 = 256'h0,
    parameter INIT_RAM_26 = 256'h0,
    parameter INIT_RAM_27 = 256'h0,
    parameter INIT_RAM_28 = 256'h0,
    parameter INIT_RAM_29 = 256'h0,
    parameter INIT_RAM_2A = 256'h0,
    parameter INIT_RAM_2B = 256'h0,
    parameter INIT_RAM_2C = 256'h0,
    parameter INIT_RAM_2D = 256'h0,
    parameter INIT_RAM_2E = 256'h0,
    parameter INIT_RAM_2F = 256'h0,
    parameter INIT_RAM_30 = 256'h0,
    parameter INIT_RAM_31 = 256'h0,
    parameter INIT_RAM_32 = 256'h0,
    parameter INIT_RAM_33 = 256'h0,
    parameter INIT_RAM_34 = 256'h0,
    parameter INIT_RAM_35 = 256'h0,
    parameter INIT_RAM_36 = 256'h0,
    parameter INIT_RAM_37 = 256'h0,
    parameter INIT_RAM_38 = 256'h0,
    parameter INIT_RAM_39 = 256'h0,
    parameter INIT_RAM_3A = 256'h0,
    parameter INIT_RAM_3B = 256'h0,
    parameter INIT_RAM_3C = 256'h0,
    parameter INIT_RAM_3D = 256'h0,
    parameter INIT_RAM_3E = 256'h0,
    parameter INIT_RAM_3F = 256'h0,
    parameter RESET_MODE = "SYNC"
) (
    output [31:0] DO,
    input [31:0] DI,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
  localparam SHIFT = BIT_WIDTH == 1 ? 0 : BIT_WIDTH == 2 ? 1 : BIT_WIDTH == 4 ? 2
      : BIT_WIDTH == 8 || BIT_WIDTH == 9 ? 3 : BIT_WIDTH == 16 || BIT_WIDTH == 18 ? 4
      : BIT_WIDTH == 32 || BIT_WIDTH == 36 ? 5 : -1;
  generate
    if (SHIFT < 0 || (BIT_WIDTH % 9 == 0) != 0 || WRITE_MODE > 2)
      $error("SP: this width or mode is not in the model");
  endgenerate
  wire [35:0] out;
  assign DO = out[31:0];
  xnorforge_block_ram #(
      .BYTE(8),
      .PITCH(16),
      .INIT({
          INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
          INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34,
          INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E,
          INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
          INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
          INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C,
          INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16,
          INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
          INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
          INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04,
          INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00
      }),
      .ASYNC(RESET_MODE == "ASYNC"),
      .A_SHIFT(SHIFT),
      .B_SHIFT(3),
      .A_MODE(WRITE_MODE),
      .B_MODE(0),
      .A_REGISTER(READ_MODE),
      .B_REGISTER(0)
  ) ram (
      .a_clk(CLK),
      .a_enable(CE && BLKSEL == BLK_SEL),
      .a_write(WRE),
      .a_reset(RESET),
      .a_register_enable(OCE),
      .a_address(AD),
      .a_data({4'h0, DI}),
      .a_out(out),
      .b_clk(1'b0),
      .b_enable(1'b0),
      .b_write(1'b0),
      .b_reset(1'b0),
      .b_register_enable(1'b0),
      .b_address(14'h0),
      .b_data(36'h0),
      .b_out()
  );
endmodule

module SDPB #(
    parameter READ_MODE = 1'b0,  // 1: a second register behind the output
    parameter BIT_WIDTH_0 = 32,
    parameter BIT_WIDTH_1 = 32,
    parameter BLK_SEL_0 = 3'b000,
    parameter BLK_SEL_1 = 3'b000,
    parameter INIT_RAM_00 = 256'h0,
    parameter INIT_RAM_01 = 256'h0,
    parameter INIT_RAM_02 = 256'h0,
    parameter INIT_RAM_03 = 256'h0,
    parameter INIT_RAM_04 = 256'h0,
    parameter INIT_RAM_05 = 256'h0,
    parameter INIT_RAM_06 = 256'h0,
    parameter INIT_RAM_07 = 256'h0,
    parameter INIT_RAM_08 = 256'h0,
    parameter INIT_RAM_09 = 256'h0,
    parameter INIT_RAM_0A = 256'h0,
    parameter INIT_RAM_0B = 256'h0,
    parameter INIT_RAM_0C = 256'h0,
    parameter INIT_RAM_0D = 256'h0,
    parameter INIT_RAM_0E = 256'h0,
    parameter INIT_RAM_0F = 256'h0,
    parameter INIT_RAM_10 = 256'h0,
    parameter INIT_RAM_11 = 256'h0,
    parameter INIT_RAM_12 = 256'h0,
    parameter INIT_RAM_13 = 256'h0,
    parameter INIT_RAM_14 = 256'h0,
    parameter INIT_RAM_15 = 256'h0,
    parameter INIT_RAM_16 = 256'h0,
    parameter INIT_RAM_17 = 256'h0,
    parameter INIT_RAM_18 = 256'h0,
    parameter INIT_RAM_19 = 256'h0,
    parameter INIT_RAM_1A = 256'h0,
    parameter INIT_RAM_1B = 256'h0,
    parameter INIT_RAM_1C = 256'h0,
    parameter INIT_RAM_1D = 256'h0,
    parameter INIT_RAM_1E = 256'h0,
    parameter INIT_RAM_1F = 256'h0,
    parameter INIT_RAM_20 = 256'h0,
    parameter INIT_RAM_21 = 256'h0,
    parameter INIT_RAM_22 = 256'h0,
    parameter INIT_RAM_23 = 256'h0,
    parameter INIT_RAM_24 = 256'h0,
    parameter INIT_RAM_25 = 256'h0,
    parameter INIT_RAM_26 = 256'h0,
    parameter INIT_RAM_27 = 256'h0,
    parameter INIT_RAM_28 = 256'h0,
    parameter INIT_RAM_29 = 256'h0,
    parameter INIT_RAM_2A = 256'h0,
    parameter INIT_RAM_2B = 256'h0,
    parameter INIT_RAM_2C = 256'h0,
    parameter INIT_RAM_2D = 256'h0,
    parameter INIT_RAM_2E = 256'h0,
    parameter INIT_RAM_2F = 256'h0,
    parameter INIT_RAM_30 = 256'h0,
    parameter INIT_RAM_31 = 256'h0,
    parameter INIT_RAM_32 = 256'h0,
    parameter INIT_RAM_33 = 256'h0,
    parameter INIT_RAM_34 = 256'h0,
    parameter INIT_RAM_35 = 256'h0,
    parameter INIT_RAM_36 = 256'h0,
    parameter INIT_RAM_37 = 256'h0,
    parameter INIT_RAM_38 = 256'h0,
    parameter INIT_RAM_39 = 256'h0,
    parameter INIT_RAM_3A = 256'h0,
    parameter INIT_RAM_3B = 256'h0,
    parameter INIT_RAM_3C = 256'h0,
    parameter INIT_RAM_3D = 256'h0,
    parameter INIT_RAM_3E = 256'h0,
    parameter INIT_RAM_3F = 256'h0,
    parameter RESET_MODE = "SYNC"
) (
    output [31:0] DO,
    input [31:0] DI,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
  localparam SHIFT_0 = BIT_WIDTH_0 == 1 ? 0 : BIT_WIDTH_0 == 2 ? 1 : BIT_WIDTH_0 == 4 ? 2
      : BIT_WIDTH_0 == 8 || BIT_WIDTH_0 == 9 ? 3 : BIT_WIDTH_0 == 16 || BIT_WIDTH_0 == 18 ? 4
      : BIT_WIDTH_0 == 32 || BIT_WIDTH_0 == 36 ? 5 : -1;
  localparam SHIFT_1 = BIT_WIDTH_1 == 1 ? 0 : BIT_WIDTH_1 == 2 ? 1 : BIT_WIDTH_1 == 4 ? 2
      : BIT_WIDTH_1 == 8 || BIT_WIDTH_1 == 9 ? 3 : BIT_WIDTH_1 == 16 || BIT_WIDTH_1 == 18 ? 4
      : BIT_WIDTH_1 == 32 || BIT_WIDTH_1 == 36 ? 5 : -1;
  generate
    if (SHIFT_0 < 0 || SHIFT_1 < 0 || (BIT_WIDTH_0 % 9 == 0) != 0
        || (BIT_WIDTH_1 % 9 == 0) != 0)
      $error("SDPB: this width or mode is not in the model");
  endgenerate
  wire [35:0] out;
  assign DO = out[31:0];
  xnorforge_block_ram #(
      .BYTE(8),
      .PITCH(16),
      .INIT({
          INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
          INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34,
          INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E,
          INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
          INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
          INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C,
          INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16,
          INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
          INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
          INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04,
          INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00
      }),
      .ASYNC(RESET_MODE == "ASYNC"),
      .A_SHIFT(SHIFT_0),
      .B_SHIFT(SHIFT_1),
      .A_MODE(0),
      .B_MODE(0),
      .A_REGISTER(0),
      .B_REGISTER(READ_MODE)
  ) ram (
      .a_clk(CLKA),
      .a_enable(CEA && BLKSELA == BLK_SEL_0),
      .a_write(1'b1),
      .a_reset(RESETA),
      .a_register_enable(1'b0),
      .a_address(ADA),
      .a_data({4'h0, DI}),
      .a_out(),
      .b_clk(CLKB),
      .b_enable(CEB && BLKSELB == BLK_SEL_1),
      .b_write(1'b0),
      .b_reset(RESETB),
      .b_register_enable(OCE),
      .b_address(ADB),
      .b_data(36'h0),
      .b_out(out)
  );
endmodule

module DPB #(
    parameter READ_MODE0 = 1'b0,    // 1: a second register behind the output
    parameter READ_MODE1 = 1'b0,
    parameter WRITE_MODE0 = 2'b00,  // output while writing: 0 kept, 1 the new word, 2 the old one
    parameter WRITE_MODE1 = 2'b00,
    parameter BIT_WIDTH_0 = 16,
    parameter BIT_WIDTH_1 = 16,
    parameter BLK_SEL_0 = 3'b000,
    parameter BLK_SEL_1 = 3'b000,
    parameter INIT_RAM_00 = 256'h0,
    parameter INIT_RAM_01 = 256'h0,
    parameter INIT_RAM_02 = 256'h0,
    parameter INIT_RAM_03 = 256'h0,
    parameter INIT_RAM_04 = 256'h0,
    parameter INIT_RAM_05 = 256'h0,
    parameter INIT_RAM_06 = 256'h0,
    parameter INIT_RAM_07 = 256'h0,
    parameter INIT_RAM_08 = 256'h0,
    parameter INIT_RAM_09 = 256'h0,
    parameter INIT_RAM_0A = 256'h0,
    parameter INIT_RAM_0B = 256'h0,
    parameter INIT_RAM_0C = 256'h0,
    parameter INIT_RAM_0D = 256'h0,
    parameter INIT_RAM_0E = 256'h0,
    parameter INIT_RAM_0F = 256'h0,
    parameter INIT_RAM_10 = 256'h0,
    parameter INIT_RAM_11 = 256'h0,
    parameter INIT_RAM_12 = 256'h0,
    parameter INIT_RAM_13 = 256'h0,
    parameter INIT_RAM_14 = 256'h0,
    parameter INIT_RAM_15 = 256'h0,
    parameter INIT_RAM_16 = 256'h0,
    parameter INIT_RAM_17 = 256'h0,
    parameter INIT_RAM_18 = 256'h0,
    parameter INIT_RAM_19 = 256'h0,
    parameter INIT_RAM_1A = 256'h0,
    parameter INIT_RAM_1B = 256'h0,
    parameter INIT_RAM_1C = 256'h0,
    parameter INIT_RAM_1D = 256'h0,
    parameter INIT_RAM_1E = 256'h0,
    parameter INIT_RAM_1F = 256'h0,
    parameter INIT_RAM_20 = 256'h0,
    parameter INIT_RAM_21 = 256'h0,
    parameter INIT_RAM_22 = 256'h0,
    parameter INIT_RAM_23 = 256'h0,
    parameter INIT_RAM_24 = 256'h0,
    parameter INIT_RAM_25 = 256'h0,
    parameter INIT_RAM_26 = 256'h0,
    parameter INIT_RAM_27 = 256'h0,
    parameter INIT_RAM_28 = 256'h0,
    parameter INIT_RAM_29 = 256'h0,
    parameter INIT_RAM_2A = 256'h0,
    parameter INIT_RAM_2B = 256'h0,
    parameter INIT_RAM_2C = 256'h0,
    parameter INIT_RAM_2D = 256'h0,
    parameter INIT_RAM_2E = 256'h0,
    parameter INIT_RAM_2F = 256'h0,
    parameter INIT_RAM_30 = 256'h0,
    parameter INIT_RAM_31 = 256'h0,
    parameter INIT_RAM_32 = 256'h0,
    parameter INIT_RAM_33 = 256'h0,
    parameter INIT_RAM_34 = 256'h0,
    parameter INIT_RAM_35 = 256'h0,
    parameter INIT_RAM_36 = 256'h0,
    parameter INIT_RAM_37 = 256'h0,
    parameter INIT_RAM_38 = 256'h0,
    parameter INIT_RAM_39 = 256'h0,
    parameter INIT_RAM_3A = 256'h0,
    parameter INIT_RAM_3B = 256'h0,
    parameter INIT_RAM_3C = 256'h0,
    parameter INIT_RAM_3D = 256'h0,
    parameter INIT_RAM_3E = 256'h0,
    parameter INIT_RAM_3F = 256'h0,
    parameter RESET_MODE = "SYNC"
) (
    output [15:0] DOA, DOB,
    input [15:0] DIA, DIB,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input WREA, WREB, CLKA, CLKB, CEA, CEB, OCEA, OCEB, RESETA, RESETB
);
  localparam SHIFT_0 = BIT_WIDTH_0 == 1 ? 0 : BIT_WIDTH_0 == 2 ? 1 : BIT_WIDTH_0 == 4 ? 2
      : BIT_WIDTH_0 == 8 || BIT_WIDTH_0 == 9 ? 3 : BIT_WIDTH_0 == 16 || BIT_WIDTH_0 == 18 ? 4
      : BIT_WIDTH_0 == 32 || BIT_WIDTH_0 == 36 ? 5 : -1;
  localparam SHIFT_1 = BIT_WIDTH_1 == 1 ? 0 : BIT_WIDTH_1 == 2 ? 1 : BIT_WIDTH_1 == 4 ? 2
      : BIT_WIDTH_1 == 8 || BIT_WIDTH_1 == 9 ? 3 : BIT_WIDTH_1 == 16 || BIT_WIDTH_1 == 18 ? 4
      : BIT_WIDTH_1 == 32 || BIT_WIDTH_1 == 36 ? 5 : -1;
  generate
    if (SHIFT_0 < 0 || SHIFT_1 < 0 || SHIFT_0 > 4 || SHIFT_1 > 4
        || WRITE_MODE0 > 2 || WRITE_MODE1 > 2
        || (BIT_WIDTH_0 % 9 == 0) != 0 || (BIT_WIDTH_1 % 9 == 0) != 0)
      $error("DPB: this width or mode is not in the model");
  endgenerate
  wire [35:0] out_a, out_b;
  assign DOA = out_a[15:0];
  assign DOB = out_b[15:0];
  xnorforge_block_ram #(
      .BYTE(8),
      .PITCH(16),
      .INIT({
          INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
          INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34,
          INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E,
          INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
          INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
          INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C,
          INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16,
          INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
          INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
          INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04,
          INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00
      }),
      .ASYNC(RESET_MODE == "ASYNC"),
      .A_SHIFT(SHIFT_0),
      .B_SHIFT(SHIFT_1),
      .A_MODE(WRITE_MODE0),
      .B_MODE(WRITE_MODE1),
      .A_REGISTER(READ_MODE0),
      .B_REGISTER(READ_MODE1)
  ) ram (
      .a_clk(CLKA),
      .a_enable(CEA && BLKSELA == BLK_SEL_0),
      .a_write(WREA),
      .a_reset(RESETA),
      .a_register_enable(OCEA),
      .a_address(ADA),
      .a_data({20'h0, DIA}),
      .a_out(out_a),
      .b_clk(CLKB),
      .b_enable(CEB && BLKSELB == BLK_SEL_1),
      .b_write(WREB),
      .b_reset(RESETB),
      .b_register_enable(OCEB),
      .b_address(ADB),
      .b_data({20'h0, DIB}),
      .b_out(out_b)
  );
endmodule

module SPX9 #(
    parameter READ_MODE = 1'b0,    // 1: a second register behind the output
    parameter WRITE_MODE = 2'b00,  // output while writing: 0 kept, 1 the new word, 2 the old one
    parameter BIT_WIDTH = 36,
    parameter BLK_SEL = 3'b000,
    parameter INIT_RAM_00 = 288'h0,
    parameter INIT_RAM_01 = 288'h0,
    parameter INIT_RAM_02 = 288'h0,
    parameter INIT_RAM_03 = 288'h0,
    parameter INIT_RAM_04 = 288'h0,
    parameter INIT_RAM_05 = 288'h0,
    parameter INIT_RAM_06 = 288'h0,
    parameter INIT_RAM_07 = 288'h0,
    parameter INIT_RAM_08 = 288'h0,
    parameter INIT_RAM_09 = 288'h0,
    parameter INIT_RAM_0A = 288'h0,
    parameter INIT_RAM_0B = 288'h0,
    parameter INIT_RAM_0C = 288'h0,
    parameter INIT_RAM_0D = 288'h0,
    parameter INIT_RAM_0E = 288'h0,
    parameter INIT_RAM_0F = 288'h0,
    parameter INIT_RAM_10 = 288'h0,
    parameter INIT_RAM_11 = 288'h0,
    parameter INIT_RAM_12 = 288'h0,
    parameter INIT_RAM_13 = 288'h0,
    parameter INIT_RAM_14 = 288'h0,
    parameter INIT_RAM_15 = 288'h0,
    parameter INIT_RAM_16 = 288'h0,
    parameter INIT_RAM_17 = 288'h0,
    parameter INIT_RAM_18 = 288'h0,
    parameter INIT_RAM_19 = 288'h0,
    parameter INIT_RAM_1A = 288'h0,
    parameter INIT_RAM_1B = 288'h0,
    parameter INIT_RAM_1C = 288'h0,
    parameter INIT_RAM_1D = 288'h0,
    parameter INIT_RAM_1E = 288'h0,
    parameter INIT_RAM_1F = 288'h0,
    parameter INIT_RAM_20 = 288'h0,
    parameter INIT_RAM_21 = 288'h0,
    parameter INIT_RAM_22 = 288'h0,
    parameter INIT_RAM_23 = 288'h0,
    parameter INIT_RAM_24 = 288'h0,
    parameter INIT_RAM_25 = 288'h0,
    parameter INIT_RAM_26 = 288'h0,
    parameter INIT_RAM_27 = 288'h0,
    parameter INIT_RAM_28 = 288'h0,
    parameter INIT_RAM_29 = 288'h0,
    parameter INIT_RAM_2A = 288'h0,
    parameter INIT_RAM_2B = 288'h0,
    parameter INIT_RAM_2C = 288'h0,
    parameter INIT_RAM_2D = 288'h0,
    parameter INIT_RAM_2E = 288'h0,
    parameter INIT_RAM_2F = 288'h0,
    parameter INIT_RAM_30 = 288'h0,
    parameter INIT_RAM_31 = 288'h0,
    parameter INIT_RAM_32 = 288'h0,
    parameter INIT_RAM_33 = 288'h0,
    parameter INIT_RAM_34 = 288'h0,
    parameter INIT_RAM_35 = 288'h0,
    parameter INIT_RAM_36 = 288'h0,
    parameter INIT_RAM_37 = 288'h0,
    parameter INIT_RAM_38 = 288'h0,
    parameter INIT_RAM_39 = 288'h0,
    parameter INIT_RAM_3A = 288'h0,
    parameter INIT_RAM_3B = 288'h0,
    parameter INIT_RAM_3C = 288'h0,
    parameter INIT_RAM_3D = 288'h0,
    parameter INIT_RAM_3E = 288'h0,
    parameter INIT_RAM_3F = 288'h0,
    parameter RESET_MODE = "SYNC"
) (
    output [35:0] DO,
    input [35:0] DI,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input WRE, CLK, CE, OCE, RESET
);
  localparam SHIFT = BIT_WIDTH == 1 ? 0 : BIT_WIDTH == 2 ? 1 : BIT_WIDTH == 4 ? 2
      : BIT_WIDTH == 8 || BIT_WIDTH == 9 ? 3 : BIT_WIDTH == 16 || BIT_WIDTH == 18 ? 4
      : BIT_WIDTH == 32 || BIT_WIDTH == 36 ? 5 : -1;
  generate
    if (SHIFT < 0 || (BIT_WIDTH % 9 == 0) != 1 || WRITE_MODE > 2)
      $error("SPX9: this width or mode is not in the model");
  endgenerate
  wire [35:0] out;
  assign DO = out[35:0];
  xnorforge_block_ram #(
      .BYTE(9),
      .PITCH(18),
      .INIT({
          INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
          INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34,
          INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E,
          INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
          INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
          INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C,
          INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16,
          INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
          INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
          INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04,
          INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00
      }),
      .ASYNC(RESET_MODE == "ASYNC"),
      .A_SHIFT(SHIFT),
      .B_SHIFT(3),
      .A_MODE(WRITE_MODE),
      .B_MODE(0),
      .A_REGISTER(READ_MODE),
      .B_REGISTER(0)
  ) ram (
      .a_clk(CLK),
      .a_enable(CE && BLKSEL == BLK_SEL),
      .a_write(WRE),
      .a_reset(RESET),
      .a_register_enable(OCE),
      .a_address(AD),
      .a_data(DI),
      .a_out(out),
      .b_clk(1'b0),
      .b_enable(1'b0),
      .b_write(1'b0),
      .b_reset(1'b0),
      .b_register_enable(1'b0),
      .b_address(14'h0),
      .b_data(36'h0),
      .b_out()
  );
endmodule

module SDPX9B #(
    parameter READ_MODE = 1'b0,  // 1: a second register behind the output
    parameter BIT_WIDTH_0 = 36,
    parameter BIT_WIDTH_1 = 36,
    parameter BLK_SEL_0 = 3'b000,
    parameter BLK_SEL_1 = 3'b000,
    parameter INIT_RAM_00 = 288'h0,
    parameter INIT_RAM_01 = 288'h0,
    parameter INIT_RAM_02 = 288'h0,
    parameter INIT_RAM_03 = 288'h0,
    parameter INIT_RAM_04 = 288'h0,
    parameter INIT_RAM_05 = 288'h0,
    parameter INIT_RAM_06 = 288'h0,
    parameter INIT_RAM_07 = 288'h0,
    parameter INIT_RAM_08 = 288'h0,
    parameter INIT_RAM_09 = 288'h0,
    parameter INIT_RAM_0A = 288'h0,
    parameter INIT_RAM_0B = 288'h0,
    parameter INIT_RAM_0C = 288'h0,
    parameter INIT_RAM_0D = 288'h0,
    parameter INIT_RAM_0E = 288'h0,
    parameter INIT_RAM_0F = 288'h0,
    parameter INIT_RAM_10 = 288'h0,
    parameter INIT_RAM_11 = 288'h0,
    parameter INIT_RAM_12 = 288'h0,
    parameter INIT_RAM_13 = 288'h0,
    parameter INIT_RAM_14 = 288'h0,
    parameter INIT_RAM_15 = 288'h0,
    parameter INIT_RAM_16 = 288'h0,
    parameter INIT_RAM_17 = 288'h0,
    parameter INIT_RAM_18 = 288'h0,
    parameter INIT_RAM_19 = 288'h0,
    parameter INIT_RAM_1A = 288'h0,
    parameter INIT_RAM_1B = 288'h0,
    parameter INIT_RAM_1C = 288'h0,
    parameter INIT_RAM_1D = 288'h0,
    parameter INIT_RAM_1E = 288'h0,
    parameter INIT_RAM_1F = 288'h0,
    parameter INIT_RAM_20 = 288'h0,
    parameter INIT_RAM_21 = 288'h0,
    parameter INIT_RAM_22 = 288'h0,
    parameter INIT_RAM_23 = 288'h0,
    parameter INIT_RAM_24 = 288'h0,
    parameter INIT_RAM_25 = 288'h0,
    parameter INIT_RAM_26 = 288'h0,
    parameter INIT_RAM_27 = 288'h0,
    parameter INIT_RAM_28 = 288'h0,
    parameter INIT_RAM_29 = 288'h0,
    parameter INIT_RAM_2A = 288'h0,
    parameter INIT_RAM_2B = 288'h0,
    parameter INIT_RAM_2C = 288'h0,
    parameter INIT_RAM_2D = 288'h0,
    parameter INIT_RAM_2E = 288'h0,
    parameter INIT_RAM_2F = 288'h0,
    parameter INIT_RAM_30 = 288'h0,
    parameter INIT_RAM_31 = 288'h0,
    parameter INIT_RAM_32 = 288'h0,
    parameter INIT_RAM_33 = 288'h0,
    parameter INIT_RAM_34 = 288'h0,
    parameter INIT_RAM_35 = 288'h0,
    parameter INIT_RAM_36 = 288'h0,
    parameter INIT_RAM_37 = 288'h0,
    parameter INIT_RAM_38 = 288'h0,
    parameter INIT_RAM_39 = 288'h0,
    parameter INIT_RAM_3A = 288'h0,
    parameter INIT_RAM_3B = 288'h0,
    parameter INIT_RAM_3C = 288'h0,
    parameter INIT_RAM_3D = 288'h0,
    parameter INIT_RAM_3E = 288'h0,
    parameter INIT_RAM_3F = 288'h0,
    parameter RESET_MODE = "SYNC"
) (
    output [35:0] DO,
    input [35:0] DI,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input CLKA, CLKB, CEA, CEB, OCE, RESETA, RESETB
);
  localparam SHIFT_0 = BIT_WIDTH_0 == 1 ? 0 : BIT_WIDTH_0 == 2 ? 1 : BIT_WIDTH_0 == 4 ? 2
      : BIT_WIDTH_0 == 8 || BIT_WIDTH_0 == 9 ? 3 : BIT_WIDTH_0 == 16 || BIT_WIDTH_0 == 18 ? 4
      : BIT_WIDTH_0 == 32 || BIT_WIDTH_0 == 36 ? 5 : -1;
  localparam SHIFT_1 = BIT_WIDTH_1 == 1 ? 0 : BIT_WIDTH_1 == 2 ? 1 : BIT_WIDTH_1 == 4 ? 2
      : BIT_WIDTH_1 == 8 || BIT_WIDTH_1 == 9 ? 3 : BIT_WIDTH_1 == 16 || BIT_WIDTH_1 == 18 ? 4
      : BIT_WIDTH_1 == 32 || BIT_WIDTH_1 == 36 ? 5 : -1;
  generate
    if (SHIFT_0 < 0 || SHIFT_1 < 0 || (BIT_WIDTH_0 % 9 == 0) != 1
        || (BIT_WIDTH_1 % 9 == 0) != 1)
      $error("SDPX9B: this width or mode is not in the model");
  endgenerate
  wire [35:0] out;
  assign DO = out[35:0];
  xnorforge_block_ram #(
      .BYTE(9),
      .PITCH(18),
      .INIT({
          INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
          INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34,
          INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E,
          INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
          INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
          INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C,
          INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16,
          INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
          INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
          INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04,
          INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00
      }),
      .ASYNC(RESET_MODE == "ASYNC"),
      .A_SHIFT(SHIFT_0),
      .B_SHIFT(SHIFT_1),
      .A_MODE(0),
      .B_MODE(0),
      .A_REGISTER(0),
      .B_REGISTER(READ_MODE)
  ) ram (
      .a_clk(CLKA),
      .a_enable(CEA && BLKSELA == BLK_SEL_0),
      .a_write(1'b1),
      .a_reset(RESETA),
      .a_register_enable(1'b0),
      .a_address(ADA),
      .a_data(DI),
      .a_out(),
      .b_clk(CLKB),
      .b_enable(CEB && BLKSELB == BLK_SEL_1),
      .b_write(1'b0),
      .b_reset(RESETB),
      .b_register_enable(OCE),
      .b_address(ADB),
      .b_data(36'h0),
      .b_out(out)
  );
endmodule

module DPX9B #(
    parameter READ_MODE0 = 1'b0,    // 1: a second register behind the output
    parameter READ_MODE1 = 1'b0,
    parameter WRITE_MODE0 = 2'b00,  // output while writing: 0 kept, 1 the new word, 2 the old one
    parameter WRITE_MODE1 = 2'b00,
    parameter BIT_WIDTH_0 = 18,
    parameter BIT_WIDTH_1 = 18,
    parameter BLK_SEL_0 = 3'b000,
    parameter BLK_SEL_1 = 3'b000,
    parameter INIT_RAM_00 = 288'h0,
    parameter INIT_RAM_01 = 288'h0,
    parameter INIT_RAM_02 = 288'h0,
    parameter INIT_RAM_03 = 288'h0,
    parameter INIT_RAM_04 = 288'h0,
    parameter INIT_RAM_05 = 288'h0,
    parameter INIT_RAM_06 = 288'h0,
    parameter INIT_RAM_07 = 288'h0,
    parameter INIT_RAM_08 = 288'h0,
    parameter INIT_RAM_09 = 288'h0,
    parameter INIT_RAM_0A = 288'h0,
    parameter INIT_RAM_0B = 288'h0,
    parameter INIT_RAM_0C = 288'h0,
    parameter INIT_RAM_0D = 288'h0,
    parameter INIT_RAM_0E = 288'h0,
    parameter INIT_RAM_0F = 288'h0,
    parameter INIT_RAM_10 = 288'h0,
    parameter INIT_RAM_11 = 288'h0,
    parameter INIT_RAM_12 = 288'h0,
    parameter INIT_RAM_13 = 288'h0,
    parameter INIT_RAM_14 = 288'h0,
    parameter INIT_RAM_15 = 288'h0,
    parameter INIT_RAM_16 = 288'h0,
    parameter INIT_RAM_17 = 288'h0,
    parameter INIT_RAM_18 = 288'h0,
    parameter INIT_RAM_19 = 288'h0,
    parameter INIT_RAM_1A = 288'h0,
    parameter INIT_RAM_1B = 288'h0,
    parameter INIT_RAM_1C = 288'h0,
    parameter INIT_RAM_1D = 288'h0,
    parameter INIT_RAM_1E = 288'h0,
    parameter INIT_RAM_1F = 288'h0,
    parameter INIT_RAM_20 = 288'h0,
    parameter INIT_RAM_21 = 288'h0,
    parameter INIT_RAM_22 = 288'h0,
    parameter INIT_RAM_23 = 288'h0,
    parameter INIT_RAM_24 = 288'h0,
    parameter INIT_RAM_25 = 288'h0,
    parameter INIT_RAM_26 = 288'h0,
    parameter INIT_RAM_27 = 288'h0,
    parameter INIT_RAM_28 = 288'h0,
    parameter INIT_RAM_29 = 288'h0,
    parameter INIT_RAM_2A = 288'h0,
    parameter INIT_RAM_2B = 288'h0,
    parameter INIT_RAM_2C = 288'h0,
    parameter INIT_RAM_2D = 288'h0,
    parameter INIT_RAM_2E = 288'h0,
    parameter INIT_RAM_2F = 288'h0,
    parameter INIT_RAM_30 = 288'h0,
    parameter INIT_RAM_31 = 288'h0,
    parameter INIT_RAM_32 = 288'h0,
    parameter INIT_RAM_33 = 288'h0,
    parameter INIT_RAM_34 = 288'h0,
    parameter INIT_RAM_35 = 288'h0,
    parameter INIT_RAM_36 = 288'h0,
    parameter INIT_RAM_37 = 288'h0,
    parameter INIT_RAM_38 = 288'h0,
    parameter INIT_RAM_39 = 288'h0,
    parameter INIT_RAM_3A = 288'h0,
    parameter INIT_RAM_3B = 288'h0,
    parameter INIT_RAM_3C = 288'h0,
    parameter INIT_RAM_3D = 288'h0,
    parameter INIT_RAM_3E = 288'h0,
    parameter INIT_RAM_3F = 288'h0,
    parameter RESET_MODE = "SYNC"
) (
    output [17:0] DOA, DOB,
    input [17:0] DIA, DIB,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input WREA, WREB, CLKA, CLKB, CEA, CEB, OCEA, OCEB, RESETA, RESETB
);
  localparam SHIFT_0 = BIT_WIDTH_0 == 1 ? 0 : BIT_WIDTH_0 == 2 ? 1 : BIT_WIDTH_0 == 4 ? 2
      : BIT_WIDTH_0 == 8 || BIT_WIDTH_0 == 9 ? 3 : BIT_WIDTH_0 == 16 || BIT_WIDTH_0 == 18 ? 4
      : BIT_WIDTH_0 == 32 || BIT_WIDTH_0 == 36 ? 5 : -1;
  localparam SHIFT_1 = BIT_WIDTH_1 == 1 ? 0 : BIT_WIDTH_1 == 2 ? 1 : BIT_WIDTH_1 == 4 ? 2
      : BIT_WIDTH_1 == 8 || BIT_WIDTH_1 == 9 ? 3 : BIT_WIDTH_1 == 16 || BIT_WIDTH_1 == 18 ? 4
      : BIT_WIDTH_1 == 32 || BIT_WIDTH_1 == 36 ? 5 : -1;
  generate
    if (SHIFT_0 < 0 || SHIFT_1 < 0 || SHIFT_0 > 4 || SHIFT_1 > 4
        || WRITE_MODE0 > 2 || WRITE_MODE1 > 2
        || (BIT_WIDTH_0 % 9 == 0) != 1 || (BIT_WIDTH_1 % 9 == 0) != 1)
      $error("DPX9B: this width or mode is not in the model");
  endgenerate
  wire [35:0] out_a, out_b;
  assign DOA = out_a[17:0];
  assign DOB = out_b[17:0];
  xnorforge_block_ram #(
      .BYTE(9),
      .PITCH(18),
      .INIT({
          INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A,
          INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34,
          INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E,
          INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28,
          INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22,
          INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C,
          INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16,
          INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10,
          INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A,
          INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04,
          INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00
      }),
      .ASYNC(RESET_MODE == "ASYNC"),
      .A_SHIFT(SHIFT_0),
      .B_SHIFT(SHIFT_1),
      .A_MODE(WRITE_MODE0),
      .B_MODE(WRITE_MODE1),
      .A_REGISTER(READ_MODE0),
      .B_REGISTER(READ_MODE1)
  ) ram (
      .a_clk(CLKA),
      .a_enable(CEA && BLKSELA == BLK_SEL_0),
      .a_write(WREA),
      .a_reset(RESETA),
      .a_register_enable(OCEA),
      .a_address(ADA),
      .a_data({18'h0, DIA}),
      .a_out(out_a),
      .b_clk(CLKB),
      .b_enable(CEB && BLKSELB == BLK_SEL_1),
      .b_write(WREB),
      .b_reset(RESETB),
      .b_register_enable(OCEB),
      .b_address(ADB),
      .b_data({18'h0, DIB}),
      .b_out(out_b)
  );
endmodule
