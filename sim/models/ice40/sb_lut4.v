// SPDX-License-Identifier: BSD-2-Clause
// The iCE40 look-up table. The same as yosys' model, written so that the simulator makes an index
// of four bits out of it instead of multiplexers: faster.

module SB_LUT4 #(
    parameter [15:0] LUT_INIT = 16'h0
) (
    input I0, I1, I2, I3,
    output O
);
  assign O = LUT_INIT[{I3, I2, I1, I0}];
endmodule
