# SPDX-License-Identifier: BSD-2-Clause
"""The plan: how a network is laid out on a device. Numbers only; `gen.assembly` builds from it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from xnorforge.gen.errors import PlanError
from xnorforge.gen.network import Network
from xnorforge.hw.folding import Folding
from xnorforge.hw.mvu import MvuConfig

__all__ = ["LayerPlan", "Plan"]


@dataclass(frozen=True)
class LayerPlan(Folding):
    """One MatrixVectorUnit.

    rows, columns, input_bits: the layer's shape. pe, simd, pl: rows, columns and input planes
    worked on in parallel. weight_store, preset_store, buffer_store: "block" (block RAM) or "lut"
    (distributed RAM, or flip-flops where the family has none); weights and presets may also be
    "const" (logic, never loaded), weights "spram" (loaded before use). scores: True for the last
    layer. structure, pipeline: the popcounts' (`hw.popcount`); "": the measured choice of the day,
    which a plan made by the planner names.
    """

    name: str
    rows: int
    columns: int
    input_kind: str
    input_bits: int
    scores: bool
    pe: int
    simd: int
    pl: int
    weight_store: str
    preset_store: str
    buffer_store: str
    structure: str = ""
    pipeline: str = ""

    def mvu_config(self, family: str) -> MvuConfig:
        """The MatrixVectorUnit of this layer on a family."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["name"]
        return MvuConfig(**fields, family=family)


@dataclass(frozen=True)
class Plan:
    """A network laid out on a device.

    family: key of `gen.devices.FAMILIES`. device: key of `gen.devices`. board: key of
    `gen.boards` or None. clock_hz: the PLL's real output (or the requested clock without a
    board). lanes: image elements a beat of the core's image stream. link: "uart". reasons:
    (memory, why it lies where it does), for people. board_record: the board as the plan was made
    for it (`Board.to_json`), so that a bundle needs no board file; None for a bare device.
    """

    family: str
    device: str
    board: str | None
    clock_hz: float
    link: str
    baud: int
    lanes: int
    layers: tuple[LayerPlan, ...]
    reasons: tuple[tuple[str, str], ...] = ()
    board_record: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> "Plan":
        fields = {f.name for f in dataclasses.fields(cls)}
        layer_fields = {f.name for f in dataclasses.fields(LayerPlan)}
        kept = {k: v for k, v in item.items() if k in fields}
        kept["layers"] = tuple(
            LayerPlan(
                **_before_structures(layer) | {k: v for k, v in layer.items() if k in layer_fields}
            )
            for layer in item["layers"]
        )
        kept["reasons"] = tuple((name, reason) for name, reason in item.get("reasons", ()))
        return cls(**kept)

    def at_clock(self, clock_hz: float) -> "Plan":
        """The same circuit at another clock: the nearest that the board's PLL makes.

        Folds and cycles stay, so the images per second change with the clock, also of a plan that
        was made for a rate. Raises PlanError where the PLL or the UART cannot do that clock.
        """
        if not 0 < clock_hz < float("inf"):
            raise PlanError(f"Clock must be a positive number of Hz, not {clock_hz!r}")
        if self.board is not None:
            # Boards know of plans: `plan_board`.
            from xnorforge.gen.boards import baud_divisor, plan_board

            clock_hz = plan_board(self).pll_config(clock_hz).output_hz
            baud_divisor(clock_hz, self.baud)
        return dataclasses.replace(self, clock_hz=clock_hz)

    def structure_hash(self, network: Network) -> int:
        """First 32 bits of the SHA-256 of all that shapes the circuit.

        Weights and thresholds are part of it only where they are constant logic, so that two
        models with equal hashes can be exchanged at run time.
        """
        constants: list[list[str]] = []
        for layer, folds in zip(network.layers, self.layers, strict=True):
            config = folds.mvu_config(self.family)
            if folds.weight_store == "const":
                constants.append(_digits(config.weight_words(layer.weights)))
            if folds.preset_store == "const":
                constants.append(_digits(config.preset_words(layer.weights, layer.thresholds)))
        structure = {
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "lanes": self.lanes,
            "family": self.family,
            "input": [network.input.value.kind, network.input.value.bits, network.input.value.size],
            "head": [network.head.tie, network.head.scale is not None],
            "constants": constants,
        }
        digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:4], "big")


def _digits(words: Iterable[int]) -> list[str]:
    """Words of any width as text; Python writes no decimal number of over 4,300 digits."""
    return [hex(word) for word in words]


def _before_structures(layer: dict[str, Any]) -> dict[str, str]:
    """The engine of a layer whose plan does not name it: there was one for each width."""
    return {"structure": "carry", "pipeline": "output" if layer["simd"] <= 8 else "half"}
