// SPDX-License-Identifier: BSD-2-Clause
// What the block RAMs of ECP5 and Gowin have in common: 2048 bytes of 8 or 9 bits, two ports.
//
// An address counts bits as if a byte had 8: a port of 1, 2, 4 bits takes part of a byte and leaves
// a 9th bit alone; one of 2 or 4 bytes has its byte enables in the lowest bits of the address.
// A write takes the enabled bytes; what the output does meanwhile is MODE. Reset clears the output,
// never the contents. REGISTER puts a second register, with its own enable, behind the output.
// Outputs power up as 0.
//
// Both ports run on one clock (xnorforge refuses a netlist with two). A bit that one port writes
// while the other reads or writes it is undefined in yosys' properties of these RAMs. Here it is read
// as the complement of its old value, and written by both it becomes the complement of port A's: a
// design that depends on either is not right by luck.

// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL
module xnorforge_block_ram #(
    parameter BYTE = 9,          // bits of a byte
    parameter PITCH = 18,        // bits of INIT from one pair of bytes to the next
    parameter [20479:0] INIT = 0,
    parameter ASYNC = 0,         // reset does not wait for the clock
    parameter RESET_BLOCKS = 0,  // a synchronous reset keeps its port from writing
    parameter A_SHIFT = 3,       // log2 of the port's width: 0, 1, 2 bits; 3, 4, 5: 1, 2, 4 bytes
    parameter B_SHIFT = 3,
    parameter A_MODE = 0,        // output while writing: 0 kept, 1 the new word, 2 the old word
    parameter B_MODE = 0,
    parameter A_REGISTER = 0,
    parameter B_REGISTER = 0
) (
    input a_clk,
    input a_enable,
    input a_write,
    input a_reset,
    input a_register_enable,
    input [13:0] a_address,
    input [35:0] a_data,
    output [35:0] a_out,
    input b_clk,
    input b_enable,
    input b_write,
    input b_reset,
    input b_register_enable,
    input [13:0] b_address,
    input [35:0] b_data,
    output [35:0] b_out
);
  localparam A_LANES = A_SHIFT < 4 ? 1 : A_SHIFT == 4 ? 2 : 4;
  localparam B_LANES = B_SHIFT < 4 ? 1 : B_SHIFT == 4 ? 2 : 4;

  reg [8:0] bytes[0:2047];
  integer i;
  initial
    for (i = 0; i < 2048; i = i + 1) begin
      bytes[i] = 9'h0;
      bytes[i][BYTE-1:0] = INIT[(i/2)*PITCH+(i%2)*BYTE+:BYTE];
    end

  // The byte that is lane `lane` of a port's word.
  function [10:0] place(input integer shift, input [13:0] address, input integer lane);
    case (shift)
      4: place = {address[13:4], lane[0]};
      5: place = {address[13:5], lane[1:0]};
      default: place = address[13:3];
    endcase
  endfunction

  // Where in a byte a port's word begins, and how many of a byte's bits it has.
  function integer first(input integer shift, input [13:0] address);
    case (shift)
      0: first = {29'h0, address[2:0]};
      1: first = {29'h0, address[2:1], 1'b0};
      2: first = {29'h0, address[2], 2'b00};
      default: first = 0;
    endcase
  endfunction
  function [8:0] mask(input integer shift);
    case (shift)
      0: mask = 9'h001;
      1: mask = 9'h003;
      2: mask = 9'h00f;
      default: mask = BYTE == 9 ? 9'h1ff : 9'h0ff;
    endcase
  endfunction

  // The bits of byte `at` that a port writes in this cycle, and their values.
  function [8:0] written(input integer shift, input [13:0] address, input [10:0] at);
    case (shift)
      4: written = address[13:4] == at[10:1] && address[{3'h0, at[0]}] ? mask(4) : 9'h0;
      5: written = address[13:5] == at[10:2] && address[{2'h0, at[1:0]}] ? mask(5) : 9'h0;
      default:
      written = address[13:3] == at ? mask(shift) << first(shift, address) : 9'h0;
    endcase
  endfunction
  function [8:0] value(input integer shift, input [13:0] address, input [35:0] data,
                       input [10:0] at);
    reg [35:0] moved;
    begin
      case (shift)
        4: moved = data >> (BYTE * {31'h0, at[0]});
        5: moved = data >> (BYTE * {30'h0, at[1:0]});
        default: moved = data << first(shift, address);
      endcase
      value = moved[8:0];
    end
  endfunction

  wire a_now = a_enable && a_write && !(RESET_BLOCKS != 0 && ASYNC == 0 && a_reset);
  wire b_now = b_enable && b_write && !(RESET_BLOCKS != 0 && ASYNC == 0 && b_reset);

  // A byte after this cycle's writes; both ports give it to a byte that both write.
  function [8:0] after(input [10:0] at);
    reg [8:0] by_a, by_b, from_a, from_b;
    begin
      by_a = a_now ? written(A_SHIFT, a_address, at) : 9'h0;
      by_b = b_now ? written(B_SHIFT, b_address, at) : 9'h0;
      from_a = value(A_SHIFT, a_address, a_data, at);
      from_b = value(B_SHIFT, b_address, b_data, at);
      after = bytes[at] & ~by_a & ~by_b | from_a & by_a & ~by_b | from_b & by_b & ~by_a
          | ~from_a & by_a & by_b;
    end
  endfunction

  // What a port reads: of the bits that the other port writes, the complement of the old ones.
  function [8:0] seen(input integer mode, input own_now, input integer other_shift,
                      input other_now, input [13:0] other_address, input [10:0] at);
    reg [8:0] taken;
    begin
      taken = other_now ? written(other_shift, other_address, at) : 9'h0;
      seen = (mode == 1 && own_now ? after(at) : bytes[at]) & ~taken | ~bytes[at] & taken;
    end
  endfunction
  function [35:0] a_word(input unused);
    integer lane;
    begin
      a_word = 36'h0;
      for (lane = 0; lane < A_LANES; lane = lane + 1)
        a_word = a_word | {27'h0,
            seen(A_MODE, a_now, B_SHIFT, b_now, b_address, place(A_SHIFT, a_address, lane))
            >> first(A_SHIFT, a_address) & mask(A_SHIFT)} << BYTE * lane;
    end
  endfunction
  function [35:0] b_word(input unused);
    integer lane;
    begin
      b_word = 36'h0;
      for (lane = 0; lane < B_LANES; lane = lane + 1)
        b_word = b_word | {27'h0,
            seen(B_MODE, b_now, A_SHIFT, a_now, a_address, place(B_SHIFT, b_address, lane))
            >> first(B_SHIFT, b_address) & mask(B_SHIFT)} << BYTE * lane;
    end
  endfunction

  integer a_lane, b_lane;
  always @(posedge a_clk)
    if (a_now)
      for (a_lane = 0; a_lane < A_LANES; a_lane = a_lane + 1)
        bytes[place(A_SHIFT, a_address, a_lane)] <= after(place(A_SHIFT, a_address, a_lane));
  always @(posedge b_clk)
    if (b_now)
      for (b_lane = 0; b_lane < B_LANES; b_lane = b_lane + 1)
        bytes[place(B_SHIFT, b_address, b_lane)] <= after(place(B_SHIFT, b_address, b_lane));

  reg [35:0] a_latch = 0, b_latch = 0;
  reg [35:0] a_second = 0, b_second = 0;
  wire a_reads = a_enable && (!a_write || A_MODE != 0);
  wire b_reads = b_enable && (!b_write || B_MODE != 0);
  assign a_out = A_REGISTER != 0 ? a_second : a_latch;
  assign b_out = B_REGISTER != 0 ? b_second : b_latch;

  generate
    if (ASYNC != 0) begin : asynchronous
      always @(posedge a_clk, posedge a_reset)
        if (a_reset) a_latch <= 0;
        else if (a_reads) a_latch <= a_word(1'b0);
      always @(posedge a_clk, posedge a_reset)
        if (a_reset) a_second <= 0;
        else if (a_register_enable) a_second <= a_latch;
      always @(posedge b_clk, posedge b_reset)
        if (b_reset) b_latch <= 0;
        else if (b_reads) b_latch <= b_word(1'b0);
      always @(posedge b_clk, posedge b_reset)
        if (b_reset) b_second <= 0;
        else if (b_register_enable) b_second <= b_latch;
    end else begin : synchronous
      always @(posedge a_clk)
        if (a_reset) a_latch <= 0;
        else if (a_reads) a_latch <= a_word(1'b0);
      always @(posedge a_clk)
        if (a_reset) a_second <= 0;
        else if (a_register_enable) a_second <= a_latch;
      always @(posedge b_clk)
        if (b_reset) b_latch <= 0;
        else if (b_reads) b_latch <= b_word(1'b0);
      always @(posedge b_clk)
        if (b_reset) b_second <= 0;
        else if (b_register_enable) b_second <= b_latch;
    end
  endgenerate
endmodule
