# SPDX-License-Identifier: BSD-2-Clause
"""The plan: how a network is laid out on a device. Numbers only; `gen.assembly` builds from it."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from xnorforge.gen.errors import PlanError
from xnorforge.gen.layer_plan import (
    ForkPlan,
    LayerPlan,
    StreamPlan,
    add_widths,
    engine_extras,
    layer_plan,
)
from xnorforge.gen.layers import Add, Dense, Layer, Product, WeightType
from xnorforge.gen.network import Network

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """A network laid out on a device.

    family: of the device, a key of `gen.devices`. board: key of `gen.boards` or None. clock_hz: the
    PLL's real output (or the requested clock without a board). lanes: image elements a beat of the
    core's image stream. link: "uart"; "axi", whose beat_bytes is an image beat and bus_clock_hz the
    ports' clock if not the core's; or "pcie", on `card` (a key of `gen.cards`), with LitePCIe's
    clock as the bus's. reasons: (memory, why it lies where it does), for people. board_record: the
    board as the plan was made for it (`Board.to_json`), so that a bundle needs no board file; None
    for a bare device. forks: a value that several layers take has one. patchable: the words of its
    memories can be replaced in a finished bitstream. slots: models that the design holds at once;
    images of one follow those of the other without a gap.
    """

    family: str
    device: str
    board: str | None
    clock_hz: float
    link: str
    baud: int
    lanes: int
    layers: tuple[LayerPlan | StreamPlan, ...]
    reasons: tuple[tuple[str, str], ...] = ()
    board_record: dict[str, Any] | None = None
    forks: tuple[ForkPlan, ...] = ()
    patchable: bool = False
    slots: int = 1
    beat_bytes: int = 1
    bus_clock_hz: float | None = None
    card: str | None = None

    def fork(self, value: str) -> ForkPlan:
        """The queues behind a value."""
        return next(fork for fork in self.forks if fork.value == value)

    @property
    def turns(self) -> int:
        """Cycles after which the turns of all shared SPRAMs repeat."""
        shares = (plan.share for plan in self.layers if isinstance(plan, LayerPlan))
        return max(shares, default=1)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> "Plan":
        fields = {f.name for f in dataclasses.fields(cls)}
        kept = {k: v for k, v in item.items() if k in fields}
        kept["layers"] = tuple(layer_plan(layer) for layer in item["layers"])
        kept["forks"] = tuple(
            ForkPlan(fork["value"], tuple(fork["depths"]), tuple(fork["stores"]))
            for fork in item.get("forks", ())
        )
        kept["reasons"] = tuple((name, reason) for name, reason in item.get("reasons", ()))
        return cls(**kept)

    def at_clock(self, clock_hz: float) -> "Plan":
        """The same circuit at another clock: the nearest that the board's PLL makes.

        Raises PlanError where the PLL or the UART cannot do that clock.
        """
        if not 0 < clock_hz < float("inf"):
            raise PlanError(f"Clock must be a positive number of Hz, not {clock_hz!r}")
        from xnorforge.gen.boards import baud_divisor, plan_board  # they know of plans
        from xnorforge.gen.cards import get_card

        if self.board is not None:
            clock_hz = plan_board(self).pll_config(clock_hz).output_hz
            baud_divisor(clock_hz, self.baud)
        elif self.card is not None:
            clock_hz = get_card(self.card).core_hz(clock_hz)
        return dataclasses.replace(self, clock_hz=clock_hz)

    def structure_hash(self, network: Network) -> int:
        """First 32 bits of the SHA-256 of all that shapes the circuit.

        Weights and thresholds are part of it only where they are constant logic, so that two
        models with equal hashes can be exchanged at run time.
        """
        # As hex: Python writes no decimal number of over 4,300 digits.
        constants: list[list[str]] = []
        for layer, folds in zip(network.layers, self.layers, strict=True):
            if not isinstance(layer, Product):
                continue
            assert isinstance(folds, LayerPlan)
            config = folds.mvu_config(self.family, layer)
            if folds.weight_store == "const":
                constants.append([hex(word) for word in config.weight_words(layer.matrix)])
            if folds.preset_store == "const":
                words = config.preset_words(layer.matrix, layer.engine_bank, layer.offsets)
                constants.append([hex(word) for word in words])
        structure: dict[str, Any] = {
            "layers": [_told(layer) for layer in self.layers],
            "lanes": self.lanes,
            "family": self.family,
            "input": [network.input.value.kind, network.input.value.bits, network.input.value.size],
            "head": [network.head.tie, network.head.scale is not None],
            "constants": constants,
        }
        if network.head.rule != "argmax":
            structure["head"] = [*structure["head"], network.head.rule]
        # The plan of a dense binary layer says all of its shape.
        shapes = [_shape(layer) for layer in network.layers if not _is_plain(layer)]
        if shapes:
            structure["shapes"] = shapes
            structure["forks"] = [dataclasses.asdict(fork) for fork in self.forks]
        if self.patchable:
            structure["patchable"] = True
        if self.slots > 1:
            structure["slots"] = self.slots
        digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:4], "big")


def _told(plan: LayerPlan | StreamPlan) -> dict[str, Any]:
    """A layer's plan, without what a plain dense layer has no use for."""
    plain = {"sets": 1, "planes": 1, "vectors": 1, "window": None, "method": "parallel", "slots": 1}
    if isinstance(plan, StreamPlan):
        plain["store"] = "block"
    else:
        plain |= {"reuse": 1, "weight_hops": 0, "share": 1, "port": 0, "turn": 0}
    return {
        name: value
        for name, value in dataclasses.asdict(plan).items()
        if name not in plain or value != plain[name]
    }


def _is_plain(layer: Layer) -> bool:
    """Whether this is a chain's dense layer of ±1 weights and one threshold a row."""
    return (
        isinstance(layer, Dense)
        and not layer.inputs
        and layer.levels < 2
        and layer.weight_type == WeightType()
        and layer.offsets is None
    )


def _shape(layer: Layer) -> list[Any]:
    """What of a layer shapes circuits beyond its plan: windows, padding, kinds, levels."""
    sources = [dataclasses.asdict(source) for source in layer.sources]
    shape: list[Any] = [type(layer).__name__, layer.inputs, sources]
    for name in ("window", "weight_type"):
        if hasattr(layer, name):
            shape.append(dataclasses.asdict(getattr(layer, name)))
    if isinstance(layer, Add):
        shape.append(add_widths(layer))
    shape += [getattr(layer, name, None) for name in ("groups", "pad_value", "kind", "levels")]
    if isinstance(layer, Product) and layer.offsets is not None:
        shape.append(engine_extras(layer)["offset_high"])
    return shape
