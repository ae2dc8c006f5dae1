// SPDX-License-Identifier: BSD-2-Clause
// Simulation model of the ECP5 PLL: the clock passes through, LOCK rises after 8 cycles.
// The frequency is not modelled: a simulated board counts cycles, not seconds.

// verilator lint_off UNUSEDPARAM
// verilator lint_off UNUSEDSIGNAL
module EHXPLLL #(
    parameter PLLRST_ENA = "DISABLED",
    parameter INTFB_WAKE = "DISABLED",
    parameter STDBY_ENABLE = "DISABLED",
    parameter DPHASE_SOURCE = "DISABLED",
    parameter OUTDIVIDER_MUXA = "DIVA",
    parameter CLKOP_ENABLE = "ENABLED",
    parameter CLKOP_DIV = 1,
    parameter CLKOP_CPHASE = 0,
    parameter CLKOP_FPHASE = 0,
    parameter FEEDBK_PATH = "CLKOP",
    parameter CLKI_DIV = 1,
    parameter CLKFB_DIV = 1
) (
    input  CLKI,
    input  CLKFB,
    input  RST,
    input  STDBY,
    input  PHASESEL0,
    input  PHASESEL1,
    input  PHASEDIR,
    input  PHASESTEP,
    input  PHASELOADREG,
    input  PLLWAKESYNC,
    input  ENCLKOP,
    output CLKOP,
    output LOCK
);
  reg [3:0] cycle_count = 0;
  always @(posedge CLKI)
    if (RST) cycle_count <= 0;
    else if (!LOCK) cycle_count <= cycle_count + 1;
  assign LOCK  = cycle_count[3];
  assign CLKOP = CLKI;
endmodule
