# SPDX-License-Identifier: BSD-2-Clause
"""Random cores as Verilog, many in one Verilator model, against reference and cycle model.

    python -m xnorforge.sim.fuzz --count 300 --verilator 25

    stimulus --+--> core 0 --+--> response        each with a source and a sink of its own,
               +--> core 1 --+                    which stall where the seed says so
               ...

The Verilog is what `accelerator.v` holds, through yosys; what is not initialised powers up at
random.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.assembly import weights_load
from xnorforge.gen.core import Core
from xnorforge.gen.errors import ToolError
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.verilog import to_verilog
from xnorforge.sim.core_bench import image_beats
from xnorforge.sim.fuzz import Case, Draw, coin, draw, verdict
from xnorforge.sim.verilator import build_program, environment, power_up_options

__all__ = ["SideBySide", "fuzz_verilog", "run_draws"]

_MAIN = Path(__file__).with_name("graphs_main.cpp")
_BOUND = 400_000  # cycles
_WORD = 32  # bits in which Verilator keeps wide vectors
_RESPONSE_WORDS = 3
_PATTERN = 997  # cycles of a stall pattern: a prime, so that it drifts against any image's


class SideBySide(wiring.Component):
    """Cores without anything in common but the clock, behind two vectors.

    Parameters
    ----------
    draws : list of Draw

    Members
    -------
    stimulus : In, `stimulus_words` a core. Word 0: bit 0 image_valid, 1 result_ready,
        2 config_valid, 3 config_first, 8.. config_data; behind it image_data.
    response : Out, 3 words a core. Word 0: bit 0 image_ready, 1 result_valid, 2 result_last,
        16.. result_label; behind it result_score, 64 bits.
    """

    def __init__(self, draws: list[Draw]):
        self.draws = draws
        self.stimulus_words = 1 + max(_beat_words(case) for case in draws)
        # Vectors of 64 bits and less are no arrays in Verilator's model.
        self.stimulus_words = max(3, self.stimulus_words)
        super().__init__(
            {
                "stimulus": In(len(draws) * self.stimulus_words * _WORD),
                "response": Out(len(draws) * _RESPONSE_WORDS * _WORD),
            }
        )

    def elaborate(self, platform):
        m = Module()
        responses = []
        for index, case in enumerate(self.draws):
            core = Core(parts=case.parts, image_bits=_beat_bits(case), plan_hash=0)
            m.submodules[f"core_{index}"] = core
            stimulus = self.stimulus.word_select(index, self.stimulus_words * _WORD)
            m.d.comb += [
                core.image_valid.eq(stimulus[0]),
                core.result_ready.eq(stimulus[1]),
                core.config_valid.eq(stimulus[2]),
                core.config_first.eq(stimulus[3]),
                core.config_data.eq(stimulus[8:16]),
                core.image_data.eq(stimulus[_WORD:]),
            ]
            if case.plan.slots > 1:
                m.d.comb += [core.image_slot.eq(case.slot), core.config_slot.eq(case.slot)]
            score, label = Signal(signed(2 * _WORD)), Signal(_WORD // 2)
            m.d.comb += [score.eq(core.result_score), label.eq(core.result_label)]
            flags = Cat(core.image_ready, core.result_valid, core.result_last, C(0, 13))
            responses += [flags, label, score]
        m.d.comb += self.response.eq(Cat(responses))
        return m


def fuzz_verilog(seeds: list[int], graphs: int) -> Iterator[Case]:
    """Cases of seeds, so many graphs a Verilator model. Where a model does not build or run, all
    of its seeds end in a failure."""
    waiting = iter(seeds)
    while batch := list(islice(waiting, graphs)):
        draws = [draw(seed) for seed in batch]
        try:
            yield from run_draws(draws)
        except ToolError as error:
            for seed in batch:
                yield Case(seed, frozenset(), False, str(error))


def run_draws(draws: list[Draw]) -> list[Case]:
    """The cases of cores in one Verilator model. Raises ToolError where it does not run."""
    top = SideBySide(draws)
    wanted = [evaluate(case.network, case.images) for case in draws]
    values = [found.input for found in wanted]
    stimulus = "\n".join(_stimulus(*pair) for pair in zip(draws, values, strict=True))
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        source = Path(folder) / "graphs.v"
        source.write_text(to_verilog(top, "graphs"))
        program = build_program(
            [source], "graphs", _MAIN, options=["--x-assign", "unique", "--x-initial", "unique"]
        )
    sizes = (len(draws), top.stimulus_words, _RESPONSE_WORDS, _BOUND)
    done = subprocess.run(
        [str(program), *map(str, sizes), *power_up_options(1 + draws[0].seed)],
        input=stimulus,
        capture_output=True,
        text=True,
        env=environment(),
    )
    if done.returncode != 0:
        seeds = ", ".join(str(case.seed) for case in draws)
        raise ToolError(f"The graphs of seeds {seeds} did not run: {done.stderr.strip()}")
    images: list[list[int]] = [[] for _ in draws]
    results: list[list[tuple[int, ...]]] = [[] for _ in draws]
    for line in done.stdout.splitlines():
        kind, index, *fields = line.split()
        if kind == "image":
            images[int(index)].append(int(fields[0]))
        else:
            results[int(index)].append(tuple(map(int, fields)))
    cases = []
    for case, found, taken, given in zip(draws, wanted, images, results, strict=True):
        start = taken[0] if case.loads or case.plan.patchable else 0
        classes = case.network.classes
        ends = [index % classes == classes - 1 for index in range(len(given))]
        if [bool(last) for *_, last in given] != ends or len(given) != found.scores.size:
            cases.append(Case(case.seed, case.features, case.timed, "results of another number"))
            continue
        scores = np.array([score for _, score, _, _ in given]).reshape(found.scores.shape)
        labels = np.array([label for _, _, label, last in given if last])
        times = ([t - start for t in taken], [t - start for t, *_ in given])
        cases.append(verdict(case, found.scores, found.labels, scores, labels, times))
    return cases


def _beat_bits(case: Draw) -> int:
    return case.plan.lanes * case.network.input.value.bits


def _beat_words(case: Draw) -> int:
    return -(-_beat_bits(case) // _WORD)


def _stimulus(case: Draw, values: np.ndarray) -> str:
    """What the program reads about one core."""
    load = weights_load(case.parts) if case.loads else b""
    beats = image_beats(case.network, case.plan.lanes, values)
    words = _beat_words(case)
    numbers = [len(load), *load, len(beats), words]
    for beat in beats:
        numbers += [beat >> (_WORD * word) & 0xFFFF_FFFF for word in range(words)]
    numbers.append(values.shape[0] * case.network.classes)
    for seed in (case.idle, case.stall):
        pattern = [False] if seed is None else list(islice(coin(seed, 0.3), _PATTERN))
        numbers += [len(pattern), *map(int, pattern)]
    return " ".join(map(str, numbers))
