// SPDX-License-Identifier: BSD-2-Clause
// ECP5 look-up tables. The same as yosys' models, written so that the simulator makes an index of
// four bits out of them instead of four multiplexers: faster.

module LUT4 #(
    parameter [15:0] INIT = 16'h0
) (
    input A, B, C, D,
    output Z
);
  assign Z = INIT[{D, C, B, A}];
endmodule

module LUT2 #(
    parameter [3:0] INIT = 4'h0
) (
    input A, B,
    output Z
);
  assign Z = INIT[{B, A}];
endmodule
