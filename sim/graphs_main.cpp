// SPDX-License-Identifier: BSD-2-Clause
// Runs several cores side by side, each with a source and a sink of its own.
//
// Arguments: cores, words of `stimulus` and of `response` a core, the most cycles; then Verilator's.
// Standard input, numbers in decimal, a core after the other:
//   bytes of the weight load, each byte
//   beats, words of a beat, each word (32 bits, low ones first)
//   results
//   length of the pattern of idle cycles, each 0 or 1; the same of stalls. A pattern comes round.
// Standard output, a line a transfer: "image CORE CYCLE", "result CORE CYCLE SCORE LABEL LAST".
// A transfer happens in cycle t when valid and ready are both high at edge t; cycle 0 ends with the
// first edge. Status 1: a result changed before it was taken, or the cycles did not do.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "Vmodel.h"
#include "verilated.h"

namespace {

uint32_t number() {
  unsigned long value;
  if (std::scanf("%lu", &value) != 1) {
    std::fprintf(stderr, "the input ends early\n");
    std::exit(1);
  }
  return static_cast<uint32_t>(value);
}

std::vector<uint32_t> numbers(size_t count) {
  std::vector<uint32_t> found(count);
  for (uint32_t &value : found) value = number();
  return found;
}

struct Pattern {
  std::vector<uint32_t> bits;
  size_t at = 0;
  bool next() { return bits[at++ % bits.size()] != 0; }
};

struct Core {
  std::vector<uint32_t> load, beats;
  size_t words, beat_count, results;
  Pattern idle, stall;
  size_t sent = 0, got = 0;
  bool valid = false, ready = false, held = false;
  uint32_t payload[3] = {0, 0, 0};

  void read() {
    load = numbers(number());
    beat_count = number();
    words = number();
    beats = numbers(beat_count * words);
    results = number();
    idle.bits = numbers(number());
    stall.bits = numbers(number());
  }
  bool done() const { return sent == beat_count && got >= results; }

  template <typename Vector>
  void drive(Vector &stimulus, size_t base, size_t cycle) {
    if (!valid) valid = sent < beat_count && !idle.next();
    ready = !stall.next();
    uint32_t flags = (valid ? 1u : 0u) | (ready ? 2u : 0u);
    if (cycle < load.size()) flags |= 4u | (cycle == 0 ? 8u : 0u) | (load[cycle] << 8);
    stimulus[base] = flags;
    if (valid)
      for (size_t word = 0; word < words; ++word)
        stimulus[base + 1 + word] = beats[sent * words + word];
  }

  // Whether the result stream keeps its rules.
  template <typename Vector>
  bool take(Vector &response, size_t base, size_t cycle, size_t index) {
    const uint32_t flags = response[base];
    if (valid && (flags & 1u)) {
      std::printf("image %zu %zu\n", index, cycle);
      ++sent;
      valid = false;
    }
    const bool offered = (flags & 2u) != 0;
    const uint32_t now[3] = {flags >> 2, response[base + 1], response[base + 2]};
    if (held && (!offered || now[0] != payload[0] || now[1] != payload[1] || now[2] != payload[2])) {
      std::fprintf(stderr, "core %zu: a result changed untaken in cycle %zu\n", index, cycle);
      return false;
    }
    for (size_t word = 0; word < 3; ++word) payload[word] = now[word];
    held = offered && !ready;
    if (offered && ready) {
      const uint64_t score = (static_cast<uint64_t>(now[2]) << 32) | now[1];
      std::printf("result %zu %zu %lld %u %u\n", index, cycle, static_cast<long long>(score),
                  flags >> 16, (flags >> 2) & 1u);
      ++got;
    }
    return true;
  }
};

}  // namespace

int main(int argc, char **argv) {
  if (argc < 5) return 1;
  const size_t count = std::stoul(argv[1]), stimulus_words = std::stoul(argv[2]),
               response_words = std::stoul(argv[3]), bound = std::stoul(argv[4]);
  std::vector<Core> cores(count);
  for (Core &core : cores) core.read();
  VerilatedContext context;
  context.commandArgs(argc, argv);
  Vmodel model{&context};
  model.clk = 0;
  model.rst = 0;
  size_t extra = 8;  // cycles in which a surplus would show
  for (size_t cycle = 0; extra > 0; ++cycle) {
    if (cycle >= bound) {
      for (size_t index = 0; index < count; ++index)
        if (!cores[index].done())
          std::fprintf(stderr, "core %zu: sent %zu of %zu beats, got %zu of %zu results\n", index,
                       cores[index].sent, cores[index].beat_count, cores[index].got,
                       cores[index].results);
      return 1;
    }
    for (size_t index = 0; index < count; ++index)
      cores[index].drive(model.stimulus, index * stimulus_words, cycle);
    model.eval();
    bool all = true;
    for (size_t index = 0; index < count; ++index) {
      if (!cores[index].take(model.response, index * response_words, cycle, index)) return 1;
      all = all && cores[index].done();
    }
    if (all) --extra;
    model.clk = 1;
    model.eval();
    model.clk = 0;
    model.eval();
  }
  model.final();
  return 0;
}
