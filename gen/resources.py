# SPDX-License-Identifier: BSD-2-Clause
"""Resource model: what each block of an accelerator takes, before any synthesis.

Counts are packed ones, as nextpnr gives them: iCE40 logic cells (LUT, carry and flip-flop share
one), ECP5 LUT4 (carry and distributed RAM included) with flip-flops beside. Block RAM is exact.
The coefficients are fitted to packed counts of the shipped circuits; docs/resources.md has the
fit and its error.
"""

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.devices import Device
from xnorforge.gen.network import Network
from xnorforge.gen.overrides import STORE_FIELDS
from xnorforge.gen.plan import Plan
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.store import FAMILIES, StoreConfig
from xnorforge.hw.width import WidthConverterConfig

__all__ = [
    "LIMITS",
    "Resources",
    "capacity",
    "converter",
    "engine",
    "estimate",
    "head",
    "mvu_store",
    "shell",
    "store",
]

# Shares of a device that place and route fills without losing much clock rate.
FILL_LIMIT = 0.85

LIMITS = ("cells", "flipflops", "blocks", "sprams")
"""What a device has a fixed number of."""


@dataclass(frozen=True)
class Resources:
    """What a block takes, or what a device has.

    cells: logic cells (iCE40) or LUT4 (elsewhere), carry and LUT RAM included. flipflops.
    blocks: block RAMs. sprams: single-port blocks of the UP5K. carries: carry cells, lut_rams:
    LUT RAM primitives of 16 x 4 bits; both are in `cells` too, so that nothing is held to them.
    """

    cells: int = 0
    flipflops: int = 0
    blocks: int = 0
    sprams: int = 0
    carries: int = 0
    lut_rams: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            self.cells + other.cells,
            self.flipflops + other.flipflops,
            self.blocks + other.blocks,
            self.sprams + other.sprams,
            self.carries + other.carries,
            self.lut_rams + other.lut_rams,
        )

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(
            self.cells - other.cells,
            self.flipflops - other.flipflops,
            self.blocks - other.blocks,
            self.sprams - other.sprams,
            self.carries - other.carries,
            self.lut_rams - other.lut_rams,
        )

    def fits(self, capacity: "Resources") -> bool:
        return all(getattr(self, kind) <= getattr(capacity, kind) for kind in LIMITS)

    def share_of(self, capacity: "Resources") -> float:
        """The largest share of anything that is used; above 1 it does not fit."""
        shares = [0.0]
        for kind in LIMITS:
            need, have = getattr(self, kind), getattr(capacity, kind)
            shares.append(need / have if have else float("inf") if need else 0.0)
        return max(shares)


@dataclass(frozen=True)
class _Model:
    """Fitted coefficients of a family, in cells and flip-flops.

    match: a cell of XNOR and popcount per (PE x SIMD x PL); accumulator: per accumulator bit.
    control: fixed part of a MatrixVectorUnit. loader: fixed part of a store, loader_column: per
    memory column. shell: UART shell, clock and registers. shell_blocks: its block RAMs.
    """

    match: float
    match_ff: float
    accumulator: float
    control: int
    control_ff: int
    loader: int
    loader_column: float
    loader_ff: int
    shell: int
    shell_ff: int
    shell_blocks: int
    packs_ff: bool  # one cell holds a LUT and a flip-flop; a lone flip-flop takes a cell


_MODELS = {
    "ice40": _Model(2.6, 0.3, 1.3, 80, 30, 55, 3.0, 30, 1650, 850, 3, True),
    "ecp5": _Model(2.5, 0.3, 1.3, 70, 30, 45, 3.0, 30, 1600, 850, 2, False),
    "gowin": _Model(2.5, 0.3, 1.3, 70, 30, 45, 3.0, 30, 1600, 850, 2, False),
}


def capacity(device: Device, fill: float = FILL_LIMIT) -> Resources:
    """What a device holds for a design that still places and routes well.

    fill: share of the cells that may be taken.
    """
    return Resources(
        int(device.luts * fill),
        int(device.flipflops * fill),
        device.block_rams,
        device.spram_blocks,
    )


def shell(family: str) -> Resources:
    """Everything around the core: clock, UART, link shell and registers."""
    model = _MODELS[family]
    return Resources(model.shell, model.shell_ff, model.shell_blocks)


def engine(config: MvuConfig) -> Resources:
    """A MatrixVectorUnit without its stores and its input buffer."""
    model = _MODELS[config.family]
    bits = config.score_bits if config.scores else 1
    queue = config.credits * config.pe * bits
    matches = config.pe * config.simd * config.pl
    accumulators = config.pe * config.acc_width
    groups = config.simd * config.pl * config.groups if config.groups > 1 else 0
    dead = config.sf * config.simd - config.columns
    cells = model.match * matches + model.accumulator * accumulators + model.control
    flipflops = model.match_ff * matches + accumulators + config.simd * config.pl
    return Resources(
        cells=round(cells + groups + dead + queue),
        flipflops=round(flipflops + groups + queue + model.control_ff),
    )


def mvu_store(config: MvuConfig, field: str, kind: str) -> Resources:
    """One memory of a MatrixVectorUnit, if it were of this kind.

    field: "weight_store", "preset_store" or "buffer_store".
    """
    if field == "buffer_store":
        shape = StoreConfig(
            width=config.simd * config.input_bits,
            depth=max(2, config.buffer_depth),
            kind=kind,
            family=config.family,
        )
        return _memory(shape) + Resources(cells=30, flipflops=25 + shape.width)
    known = config.weight_config if field == "weight_store" else config.preset_config
    shape = StoreConfig(known.width, known.depth, kind, config.family)
    if kind == "const":
        return _constant(shape, merged=field == "weight_store")
    return store(shape)


def _constant(config: StoreConfig, merged: bool) -> Resources:
    """Constant logic. merged: each bit's last LUT4 has room for the XNOR that takes it."""
    depth = config.depth
    if depth == 1:
        # No table, and a weight's XNOR becomes wire.
        return Resources(cells=-config.width if merged else 0)
    shared = 0 if depth <= 8 else min(256, config.width)  # functions of the low three bits
    each = 0 if merged and depth <= 16 else -(-depth // 16)
    return Resources(
        cells=round(each * config.width) + shared + config.address_bits,
        flipflops=config.address_bits,
    )


def store(config: StoreConfig) -> Resources:
    """A weight or preset store with its loader and multiplexers."""
    model = _MODELS[config.family]
    widest = FAMILIES[config.family].column_bits
    columns = -(-config.width // widest)
    loader = Resources(
        cells=round(model.loader + model.loader_column * columns),
        flipflops=model.loader_ff + min(config.width, widest),
    )
    return _memory(config) + loader


def _memory(config: StoreConfig) -> Resources:
    """The memories, the registers behind them and the multiplexers."""
    full, rest = divmod(config.width, FAMILIES[config.family].column_bits)
    column = _column(FAMILIES[config.family].column_bits, config.depth, config.kind, config.family)
    used = Resources(
        full * column.cells,
        full * column.flipflops,
        full * column.blocks,
        full * column.sprams,
        full * column.carries,
        full * column.lut_rams,
    )
    return used + _column(rest, config.depth, config.kind, config.family) if rest else used


@cache
def _column(bits: int, depth: int, kind: str, family: str) -> Resources:
    """One memory column, at most as wide as the family's."""
    config = StoreConfig(bits, depth, kind, family)
    packs_ff = _MODELS[family].packs_ff
    if depth == 1:
        return Resources(cells=bits if packs_ff else 0, flipflops=bits)
    if kind == "lut" and not config.lut_rams:
        # A flip-flop a bit, and a multiplexer tree of two LUT4 per 4:1.
        stored = bits * depth
        return Resources(cells=stored + round(0.7 * stored), flipflops=stored + bits)
    values = config.banks(0)
    selects, registers = 0, bits * values * max(0, config.read_registers - 1)
    for _ in range(config.select_stages):
        later = -(-values // 4)
        selects += bits * later * (2 if values > 2 else 1 if values > 1 else 0)
        registers += bits * later
        values = later
    # A LUT RAM of 16 x 4 takes four cells for its bits and two for its write port.
    cells = selects + 6 * config.lut_rams
    return Resources(
        max(cells, registers) if packs_ff else cells,
        registers,
        config.block_rams,
        config.sprams,
        lut_rams=config.lut_rams,
    )


def converter(config: WidthConverterConfig, family: str) -> Resources:
    """A WidthConverter between two stages."""
    narrow, wide = sorted((config.lanes_in, config.lanes_out))
    buffer = wide if wide % narrow == 0 else wide + narrow
    bits = buffer * config.element_bits
    steps = -(-config.elements // narrow)
    gearbox = 1 if wide % narrow == 0 else 3
    return Resources(cells=gearbox * bits + 12 + steps.bit_length(), flipflops=bits + 12)


def head(config: HeadConfig) -> Resources:
    """The arg-max head, with its scales and offsets where it has any."""
    bits = config.key_bits
    used = Resources(cells=3 * bits + 24, flipflops=2 * bits + 40)
    if config.affine:
        used += Resources(cells=3 * bits, flipflops=2 * bits) + store(config.store_config)
    return used


def estimate(network: Network, plan: Plan) -> dict[str, Any]:
    """Predicted resources of a plan, the parts by name and the total, shell included."""
    names = iter([layer.name for layer in network.layers] + ["head"])
    rows: dict[str, Resources] = {}
    waiting = Resources()  # a converter counts to the stage it feeds
    for stage in core_parts(network, plan).stages:
        if isinstance(stage, WidthConverterConfig):
            waiting = converter(stage, plan.family)
            continue
        if isinstance(stage, MvuConfig):
            stores = [mvu_store(stage, field, getattr(stage, field)) for field in STORE_FIELDS]
            used = sum(stores, engine(stage))
        else:
            used = head(stage)
        rows[next(names)] = used + waiting
        waiting = Resources()
    rows["shell"] = shell(plan.family)
    total = sum(rows.values(), Resources())
    return {**asdict(total), "parts": {name: asdict(used) for name, used in rows.items()}}
