// SPDX-License-Identifier: BSD-2-Clause
// Runs a Verilator model of a module (clk, stimulus, response) on vectors from standard input.
//
// For every `stimulus` (as many bytes as Verilator keeps it in) it writes `response` twice: with the
// new inputs before the clock rises, and after.

#include <cstdio>

#include "Vmodel.h"
#include "verilated.h"

int main(int argc, char **argv) {
  VerilatedContext context;
  context.commandArgs(argc, argv);
  Vmodel model{&context};
  model.clk = 0;
  model.eval();
  while (std::fread(&model.stimulus, sizeof model.stimulus, 1, stdin) == 1) {
    model.eval();
    std::fwrite(&model.response, sizeof model.response, 1, stdout);
    model.clk = 1;
    model.eval();
    std::fwrite(&model.response, sizeof model.response, 1, stdout);
    model.clk = 0;
    model.eval();
  }
  model.final();
  return 0;
}
