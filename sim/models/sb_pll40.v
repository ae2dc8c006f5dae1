// SPDX-License-Identifier: BSD-2-Clause
// Simulation models of the iCE40 PLLs: the clock passes through, LOCK rises after 8 cycles.
// The frequency is not modelled: a simulated board counts cycles, not seconds.

// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL
module SB_PLL40_CORE #(
    parameter FEEDBACK_PATH = "SIMPLE",
    parameter [3:0] DIVR = 0,
    parameter [6:0] DIVF = 0,
    parameter [2:0] DIVQ = 0,
    parameter [2:0] FILTER_RANGE = 0
) (
    input  REFERENCECLK,
    output PLLOUTGLOBAL,
    output LOCK,
    input  RESETB,
    input  BYPASS
);
  reg [3:0] cycle_count = 0;
  always @(posedge REFERENCECLK)
    if (!RESETB) cycle_count <= 0;
    else if (!LOCK) cycle_count <= cycle_count + 1;
  assign LOCK = cycle_count[3] & !BYPASS;
  assign PLLOUTGLOBAL = REFERENCECLK;
endmodule

module SB_PLL40_PAD #(
    parameter FEEDBACK_PATH = "SIMPLE",
    parameter [3:0] DIVR = 0,
    parameter [6:0] DIVF = 0,
    parameter [2:0] DIVQ = 0,
    parameter [2:0] FILTER_RANGE = 0
) (
    input  PACKAGEPIN,
    output PLLOUTGLOBAL,
    output LOCK,
    input  RESETB,
    input  BYPASS
);
  SB_PLL40_CORE #(
      .FEEDBACK_PATH(FEEDBACK_PATH),
      .DIVR(DIVR),
      .DIVF(DIVF),
      .DIVQ(DIVQ),
      .FILTER_RANGE(FILTER_RANGE)
  ) pll (
      .REFERENCECLK(PACKAGEPIN),
      .PLLOUTGLOBAL(PLLOUTGLOBAL),
      .LOCK(LOCK),
      .RESETB(RESETB),
      .BYPASS(BYPASS)
  );
endmodule
