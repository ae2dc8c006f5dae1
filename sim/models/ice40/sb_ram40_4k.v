// SPDX-License-Identifier: BSD-2-Clause
// Simulation model of the iCE40 block RAM: 256 words of 16 bits, one port that writes and one that
// reads. In mode 1, 2, 3 a port takes every second, fourth, eighth bit of a word, from the one that
// the address bits above 7 say; its data is on pins that many apart, the first of them pin 0, 1, 3.
// The same as yosys' model but for a bit that is written while it is read: nothing is promised for
// it, and here it is read as the complement of its old value, as in common/block_ram.v.

// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL
module SB_RAM40_4K #(
    parameter WRITE_MODE = 0,
    parameter READ_MODE = 0,
    parameter INIT_0 = 256'h0,
    parameter INIT_1 = 256'h0,
    parameter INIT_2 = 256'h0,
    parameter INIT_3 = 256'h0,
    parameter INIT_4 = 256'h0,
    parameter INIT_5 = 256'h0,
    parameter INIT_6 = 256'h0,
    parameter INIT_7 = 256'h0,
    parameter INIT_8 = 256'h0,
    parameter INIT_9 = 256'h0,
    parameter INIT_A = 256'h0,
    parameter INIT_B = 256'h0,
    parameter INIT_C = 256'h0,
    parameter INIT_D = 256'h0,
    parameter INIT_E = 256'h0,
    parameter INIT_F = 256'h0
) (
    output reg [15:0] RDATA,
    input RCLK, RCLKE, RE,
    input [10:0] RADDR,
    input WCLK, WCLKE, WE,
    input [10:0] WADDR,
    input [15:0] MASK, WDATA
);
  localparam [4095:0] INIT = {
      INIT_F, INIT_E, INIT_D, INIT_C, INIT_B, INIT_A, INIT_9, INIT_8,
      INIT_7, INIT_6, INIT_5, INIT_4, INIT_3, INIT_2, INIT_1, INIT_0
  };

  reg [15:0] words[0:255];
  integer i;
  initial for (i = 0; i < 256; i = i + 1) words[i] = INIT[16*i+:16];

  // The bits of a word that an address means.
  function [15:0] bits(input integer mode, input [10:0] address);
    case (mode)
      1: bits = 16'h5555 << address[8];
      2: bits = 16'h1111 << address[9:8];
      3: bits = 16'h0101 << address[10:8];
      default: bits = 16'hffff;
    endcase
  endfunction

  // Data on the pins of a mode, at each of the places that it may go to.
  function [15:0] spread(input [15:0] pins);
    case (WRITE_MODE)
      1: spread = (pins & 16'h5555) * 16'h3;
      2: spread = (pins >> 1 & 16'h1111) * 16'hf;
      3: spread = (pins >> 3 & 16'h0101) * 16'hff;
      default: spread = pins;
    endcase
  endfunction

  // The bits of a word that an address means, on the pins of the mode.
  function [15:0] gather(input [15:0] word);
    case (READ_MODE)
      1: gather = word >> RADDR[8] & 16'h5555;
      2: gather = (word >> RADDR[9:8] & 16'h1111) << 1;
      3: gather = (word >> RADDR[10:8] & 16'h0101) << 3;
      default: gather = word;
    endcase
  endfunction

  wire [15:0] taken = !(WE && WCLKE) ? 16'h0
      : WRITE_MODE == 0 ? ~MASK : bits(WRITE_MODE, WADDR);
  wire [15:0] clash = RADDR[7:0] == WADDR[7:0] ? taken : 16'h0;
  always @(posedge WCLK)
    if (WE && WCLKE)
      words[WADDR[7:0]] <= words[WADDR[7:0]] & ~taken | spread(WDATA) & taken;
  always @(posedge RCLK) if (RE && RCLKE) RDATA <= gather(words[RADDR[7:0]] ^ clash);
endmodule
