// SPDX-License-Identifier: BSD-2-Clause
// Gowin look-up tables. The same as yosys' models, written so that the simulator makes an index out
// of them instead of multiplexers: faster.

module LUT1 #(
    parameter [1:0] INIT = 2'h0
) (
    input I0,
    output F
);
  assign F = INIT[I0];
endmodule

module LUT2 #(
    parameter [3:0] INIT = 4'h0
) (
    input I0, I1,
    output F
);
  assign F = INIT[{I1, I0}];
endmodule

module LUT3 #(
    parameter [7:0] INIT = 8'h0
) (
    input I0, I1, I2,
    output F
);
  assign F = INIT[{I2, I1, I0}];
endmodule

module LUT4 #(
    parameter [15:0] INIT = 16'h0
) (
    input I0, I1, I2, I3,
    output F
);
  assign F = INIT[{I3, I2, I1, I0}];
endmodule
