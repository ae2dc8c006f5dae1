# SPDX-License-Identifier: BSD-2-Clause
"""SlidingWindow, MatrixVectorUnit and ThresholdUnit together are the network's convolution."""

import numpy as np
import pytest
from amaranth.hdl import Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.layers import Conv, Dense, ValueType, WeightType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.hw.geometry import Window
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.store import Store
from xnorforge.hw.threshold import ThresholdConfig, ThresholdUnit
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.sim.bench import Sink, Source, random_stalls, run


class Convolution(wiring.Component):
    """The blocks of one `Conv`, with their stores."""

    def __init__(self, layer, lanes, pe, method):
        source, window = layer.source, layer.window
        low = 0 if source.kind == "bit" else layer.pad_value
        shape = {"height": source.shape[0], "width": source.shape[1], "channels": source.channels}
        ring = {"element_bits": source.bits, "lanes": lanes, "window": window}
        pad = layer.pad_value == 1 if source.kind == "bit" else low & ((1 << source.bits) - 1)
        ring |= {"groups": layer.groups, "pad_bits": int(pad), "depth": source.pixels}
        several = layer.levels > 1
        self.layer = layer
        self.window = SlidingWindow(config=WindowConfig(**shape, **ring))
        config = MvuConfig(
            rows=layer.rows // layer.groups,
            columns=layer.columns,
            input_kind=source.kind,
            input_bits=source.bits,
            pe=pe,
            simd=lanes,
            pl=1,
            scores=several or layer.bank is None,
            windows=layer.windows,
            sets=layer.groups,
            coefficients=layer.weight_type.coefficients,
            halved=layer.weight_type.kind == "int",
            offset_high=0 if layer.offsets is None else int(abs(layer.offsets).max()),
        )
        self.engine = MatrixVectorUnit(config=config)
        self.thresholds = None
        if several:
            behind = ThresholdConfig.behind(config, layer.levels, method=method)
            self.thresholds = ThresholdUnit(config=behind)
        self.last = self.thresholds or self.engine
        super().__init__(
            {
                "i": In(stream.Signature(unsigned_of(self.window.i))),
                "o": Out(stream.Signature(self.last.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layer, engine, units = self.layer, self.engine, self.thresholds
        m.submodules += [self.window, engine]
        config = engine.config
        numbers = (None if units else layer.bank, layer.offsets)
        weights = Store(config=config.weight_config, init=config.weight_words(layer.matrix))
        presets = Store(
            config=config.preset_config, init=config.preset_words(layer.matrix, *numbers)
        )
        pairs = [(engine.weight_address, weights, engine.weight_data)]
        pairs.append((engine.preset_address, presets, engine.preset_data))
        streams = [(wiring.flipped(self.i), self.window.i), (self.window.o, engine.i)]
        if units:
            m.submodules += units
            config = units.config
            levels = Store(config=config.store_config, init=config.words(layer.bank))
            pairs.append((units.address, levels, units.data))
            streams.append((engine.o, units.i))
        streams.append((self.last.o, wiring.flipped(self.o)))
        for address, store, data in pairs:
            m.submodules += store
            m.d.comb += [store.address.eq(address), data.eq(store.data)]
        for source, sink in streams:
            m.d.comb += [
                Value.cast(sink.payload).eq(Value.cast(source.payload)),
                sink.valid.eq(source.valid),
                source.ready.eq(sink.ready),
            ]
        return m


def unsigned_of(port):
    return len(Value.cast(port.payload))


CASES = {
    "bits": {},
    "scores": {"levels": 0},
    "true zero": {"levels": 0, "offsets": True},
    "groups": {"groups": 2, "pe": 3},
    "depthwise": {"groups": 4, "rows": 4, "lanes": 1, "pe": 1},
    "levels": {"levels": 3, "pe": 3},
    "levels, searched": {"levels": 7, "method": "serial", "groups": 2, "pe": 1},
    "ternary": {"weights": WeightType("int", 1)},
    "two bits": {"weights": WeightType("odd", 2), "kind": "uint", "bits": 2, "levels": 3, "pe": 6},
    "three bits": {
        "weights": WeightType("int", 3),
        "kind": "int",
        "bits": 4,
        "levels": 15,
        "method": "serial",
        "lanes": 4,
        "kernel": (2, 2),
        "pads": (0, 1, 0, 0),
    },
    "pixels": {"kind": "uint", "bits": 8, "kernel": (1, 1), "pads": (0, 0, 0, 0)},
    "strides": {"window": Window((3, 2), (2, 1), (1, 2), (2, 0, 1, 1))},
}


@pytest.mark.parametrize("name", CASES)
def test_convolution_is_that_of_the_network(name):
    case = CASES[name]
    g = np.random.default_rng(list(CASES).index(name))
    kind, bits, groups = case.get("kind", "bit"), case.get("bits", 1), case.get("groups", 1)
    value = ValueType(kind, bits, (4, 5, 4))
    window = case.get("window") or Window(
        case.get("kernel", (3, 3)), pads=case.get("pads", (1, 1, 1, 1))
    )
    rows, kinds = case.get("rows", 6), case.get("weights", WeightType())
    planes = g.choice([-1, 1], (kinds.planes, rows, *window.kernel, 4 // groups))
    weights = np.tensordot(np.array(kinds.coefficients), planes, 1)
    weights = (weights // (2 if kinds.kind == "int" else 1)).astype(np.int8)
    borders = window.over(4, 5).borders
    spread = int(abs(weights).sum() // rows * max(1, value.high) // 3)
    levels, thresholds, offsets = case.get("levels", 1), None, None
    if levels:
        thresholds = np.sort(g.integers(-spread, spread + 1, (borders, levels, rows)), axis=1)
    if case.get("offsets"):
        offsets = g.integers(-9, 10, (borders, rows))
    pad_value = 1 if kind == "bit" else int(value.low)
    conv = Conv("conv", value, weights, thresholds, window, groups, pad_value, kinds, offsets)
    last = Dense("last", conv.output, np.ones((1, conv.output.size), np.int8), None)
    spec = Input(
        value, pixel="int8" if kind == "int" else "uint8", threshold=1 if kind == "bit" else None
    )
    images = g.integers(0 if kind == "bit" else value.low, value.high + 1, (2, 4, 5, 4))
    images = images.astype(spec.pixel)
    wanted = evaluate(Network("net", spec, (conv, last), Head("first")), images).outputs[0]

    lanes, pe = case.get("lanes", 2), case.get("pe", 2)
    unit = Convolution(conv, lanes, pe, case.get("method", "parallel"))
    elements = images.reshape(-1, lanes).astype(np.int64) & ((1 << bits) - 1)
    beats = [sum(int(x) << k * bits for k, x in enumerate(beat)) for beat in elements]
    sink = Sink(unit.o, wanted.size // pe, stall=random_stalls(0.2, 1))
    run(unit, [Source(unit.i, beats, idle=random_stalls(0.2, 2)), sink], 100_000)
    got = [
        [beat >> p & 1 if isinstance(beat, int) else beat[p] for p in range(pe)]
        for beat in sink.received
    ]
    np.testing.assert_array_equal(np.array(got).reshape(wanted.shape), wanted)
