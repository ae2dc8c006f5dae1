# SPDX-License-Identifier: BSD-2-Clause
"""The integer network: every value an integer, every rule explicit.

Lowering produces it, `sim.reference` executes it, the planner and the circuits are made from it.
Nothing here or after it knows which framework the model came from.

    input -> Dense -> Dense -> ... -> Head

The meaning of `Dense` is the *signed integer dot product*; counting matching bits is a private
encoding of the engine. Thresholds are canonical, `dot >= threshold`: rows whose source slope was
negative have been negated, so two models of one shape differ in numbers only.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.gen.api import NetworkMethods
from xnorforge.gen.errors import BundleError, ModelError

__all__ = ["Dense", "Head", "Input", "Network", "ValueType"]

FORMAT_VERSION = "1.0"


@dataclass(frozen=True)
class ValueType:
    """Type of the values on an edge.

    kind: "bit" (1 = +1, 0 = -1), "uint" (0 .. 2^bits - 1) or "int" (two's complement).
    shape: HWC for maps, (K,) for vectors; the last axis is fastest.
    """

    kind: str
    bits: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("bit", "uint", "int"):
            raise ModelError(f"Value kind must be 'bit', 'uint' or 'int', not {self.kind!r}")
        if self.bits < 1 or (self.kind == "bit" and self.bits != 1):
            raise ModelError(f"A {self.kind!r} value cannot have {self.bits} bits")

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def low(self) -> int:
        """Smallest value."""
        return {"bit": -1, "uint": 0, "int": -(1 << (self.bits - 1))}[self.kind]

    @property
    def high(self) -> int:
        """Largest value."""
        return {"bit": 1, "uint": (1 << self.bits) - 1, "int": ~self.low}[self.kind]


@dataclass(frozen=True)
class Input:
    """What the network takes, and how an image of bytes becomes it.

    value: type of the network's input.
    pixel: "uint8" or "int8", the dtype of one image element as the user holds it.
    threshold: for a "bit" value, the bit is `pixel >= threshold` (or its inverse with
        `inverted`); None for multi-bit values, whose pixels are taken as they are.
    note: one sentence for people, e.g. the scaling that was folded away.
    """

    value: ValueType
    pixel: str = "uint8"
    threshold: int | None = None
    inverted: bool = False
    note: str = ""

    @property
    def image_bytes(self) -> int:
        """Bytes of an image on a link: 8 one-bit elements a byte, else one element a byte."""
        return -(-self.value.size // 8) if self.value.bits == 1 else self.value.size

    def quantise(self, images: np.ndarray) -> np.ndarray:
        """Images (N, *shape) of dtype `pixel` -> (N, K) integers: 0/1 for "bit", else values.

        Any shape whose elements flatten (C order) to `value.size` per image is taken.
        Raises ModelError on a wrong dtype or element count.
        """
        images = np.asarray(images)
        if images.dtype != np.dtype(self.pixel):
            raise ModelError(f"Images must be {self.pixel}, not {images.dtype}")
        if images.ndim < 2 or int(np.prod(images.shape[1:])) != self.value.size:
            raise ModelError(
                f"Images must be (N, {', '.join(map(str, self.value.shape))}), not {images.shape}"
            )
        flat = images.reshape(len(images), self.value.size)
        if self.value.kind == "bit":
            return ((flat >= self.threshold) ^ self.inverted).astype(np.uint8)
        return flat


@dataclass(frozen=True, eq=False)
class Dense:
    """Fully connected: `dot[n] = sum_k weights[n, k] * x[k]`, then threshold or scores.

    weights: int8 (rows, columns), every entry -1 or +1.
    thresholds: int64 (rows,): output bit n is `dot[n] >= thresholds[n]`, each within
        [dot_low, dot_high + 1] (always ... never); None: the dots themselves are the output.
    """

    name: str
    source: ValueType
    weights: np.ndarray
    thresholds: np.ndarray | None

    def __post_init__(self) -> None:
        w = self.weights
        if w.ndim != 2 or w.dtype != np.int8 or not np.isin(w, (-1, 1)).all():
            raise ModelError(f"Layer {self.name!r}: weights must be an int8 matrix of -1 and +1")
        if 0 in w.shape:
            raise ModelError(
                f"Layer {self.name!r}: needs at least one row and one column, not {w.shape}"
            )
        if w.shape[1] != self.source.size:
            raise ModelError(
                f"Layer {self.name!r}: {w.shape[1]} weight columns for {self.source.size} inputs"
            )
        t = self.thresholds
        if t is not None and (t.shape != (w.shape[0],) or t.dtype != np.int64):
            raise ModelError(f"Layer {self.name!r}: thresholds must be int64 ({w.shape[0]},)")
        if t is not None and ((t < self.dot_low) | (t > self.dot_high + 1)).any():
            raise ModelError(
                f"Layer {self.name!r}: thresholds must lie in [{self.dot_low}, {self.dot_high + 1}]"
            )

    @property
    def rows(self) -> int:
        return self.weights.shape[0]

    @property
    def columns(self) -> int:
        return self.weights.shape[1]

    @property
    def dot_high(self) -> int:
        """Bound on any dot product: `columns * max|x|` (not per row: rows can be exchanged)."""
        return self.columns * max(abs(self.source.low), self.source.high)

    @property
    def dot_low(self) -> int:
        return -self.dot_high

    @property
    def output(self) -> ValueType:
        if self.thresholds is not None:
            return ValueType("bit", 1, (self.rows,))
        return ValueType("int", self.dot_high.bit_length() + 1, (self.rows,))


@dataclass(frozen=True, eq=False)
class Head:
    """From scores to a label: `key[c] = scale[c] * score[c] + offset[c]`, then the arg-max.

    tie: "first" or "last" index wins among equal keys.
    scale, offset: int64 (classes,) or both None for scale 1, offset 0.
    """

    tie: str = "first"
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.scale is None or self.offset is None:
            if self.scale is not self.offset:
                raise ModelError("A head needs both a scale and an offset, or neither")
        elif self.scale.shape != self.offset.shape:
            raise ModelError("A head needs as many offsets as scales")
        if self.tie not in ("first", "last"):
            raise ModelError(f"Head tie rule must be 'first' or 'last', not {self.tie!r}")

    def label(self, scores: np.ndarray) -> np.ndarray:
        """Scores (N, C) integers -> labels int64 (N,)."""
        keys = scores.astype(np.int64)
        if self.scale is not None:
            keys = keys * self.scale + self.offset
        if self.tie == "first":
            return keys.argmax(axis=1)
        return keys.shape[1] - 1 - keys[:, ::-1].argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Network(NetworkMethods):
    """A complete integer network.

    source: provenance for people (file name, format, notes on exactness), never used to compute.
    """

    name: str
    input: Input
    layers: tuple[Dense, ...]
    head: Head
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError(f"Network {self.name!r} has no layers")
        value = self.input.value
        for layer in self.layers:
            got, want = layer.source, value
            if (got.kind, got.bits, got.size) != (want.kind, want.bits, want.size):
                raise ModelError(f"Layer {layer.name!r}: takes {got}, but is fed {want}")
            value = layer.output
        if self.layers[-1].thresholds is not None:
            raise ModelError(f"Network {self.name!r}: the last layer must give scores, not bits")
        if self.head.scale is not None and len(self.head.scale) != self.classes:
            raise ModelError(
                f"Network {self.name!r}: {len(self.head.scale)} scales for {self.classes} classes"
            )
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ModelError(f"Network {self.name!r}: layer names repeat: {names}")

    @property
    def classes(self) -> int:
        return self.layers[-1].rows

    @property
    def weight_bits(self) -> int:
        return sum(layer.weights.size for layer in self.layers)

    @property
    def macs(self) -> int:
        """Binary multiply-accumulates per image (an n-bit input counts n times)."""
        return sum(layer.weights.size * layer.source.bits for layer in self.layers)

    # --- canonical files -------------------------------------------------------------------

    def to_files(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The JSON description and the arrays. Deterministic: same network, same content."""
        arrays: dict[str, np.ndarray] = {}
        layers = []
        for i, layer in enumerate(self.layers):
            arrays[f"weights_{i}"] = np.packbits(layer.weights > 0, axis=1, bitorder="little")
            if layer.thresholds is not None:
                arrays[f"thresholds_{i}"] = layer.thresholds
            layers.append(
                {
                    "op": "dense",
                    "name": layer.name,
                    "source": dataclasses.asdict(layer.source),
                    "rows": layer.rows,
                    "columns": layer.columns,
                    "output": "scores" if layer.thresholds is None else "bits",
                }
            )
        if self.head.scale is not None and self.head.offset is not None:
            arrays["head_scale"], arrays["head_offset"] = self.head.scale, self.head.offset
        description = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "input": dataclasses.asdict(self.input),
            "layers": layers,
            "head": {"tie": self.head.tie, "affine": self.head.scale is not None},
            "source": self.source,
        }
        return description, arrays

    @classmethod
    def from_files(cls, description: dict[str, Any], arrays: Any) -> "Network":
        """Inverse of `to_files`. Raises BundleError on an unknown major version or op."""
        if str(description.get("format", "")).split(".")[0] != FORMAT_VERSION.split(".")[0]:
            raise BundleError(
                f"network.json has format {description.get('format')!r}; "
                f"this version reads {FORMAT_VERSION.split('.')[0]}.x"
            )
        layers = []
        for i, item in enumerate(description["layers"]):
            if item["op"] != "dense":
                raise BundleError(f"network.json layer {item['name']!r}: unknown op {item['op']!r}")
            bits = np.unpackbits(
                arrays[f"weights_{i}"], axis=1, count=item["columns"], bitorder="little"
            )
            thresholds = arrays[f"thresholds_{i}"] if item["output"] == "bits" else None
            weights = (2 * bits.astype(np.int8) - 1).astype(np.int8)
            layers.append(Dense(item["name"], _value_type(item["source"]), weights, thresholds))
        head = description["head"]
        affine = head["affine"]
        spec = description["input"]
        return cls(
            name=description["name"],
            input=Input(
                value=_value_type(spec["value"]),
                pixel=spec["pixel"],
                threshold=spec["threshold"],
                inverted=spec["inverted"],
                note=spec.get("note", ""),
            ),
            layers=tuple(layers),
            head=Head(
                head["tie"],
                arrays["head_scale"] if affine else None,
                arrays["head_offset"] if affine else None,
            ),
            source=description.get("source", {}),
        )

    def save(self, folder: Path) -> None:
        """Write `network.json` and `network.npz` into an existing folder."""
        description, arrays = self.to_files()
        text = json.dumps(description, indent=1, sort_keys=True) + "\n"
        (folder / "network.json").write_text(text)
        # np.savez stamps every member 1980-01-01, so equal arrays give equal bytes.
        np.savez(folder / "network.npz", allow_pickle=False, **arrays)

    @classmethod
    def restore(cls, folder: Path) -> "Network":
        """Read what `save` wrote."""
        description = json.loads((folder / "network.json").read_text())
        with np.load(folder / "network.npz", allow_pickle=False) as arrays:
            return cls.from_files(description, arrays)

    def digest(self) -> str:
        """SHA-256 over the numbers and rules (not the provenance)."""
        description, arrays = self.to_files()
        description.pop("source")
        sha = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        for key in sorted(arrays):
            sha.update(key.encode() + arrays[key].tobytes())
        return sha.hexdigest()


def _value_type(item: dict[str, Any]) -> ValueType:
    return ValueType(item["kind"], item["bits"], tuple(item["shape"]))
