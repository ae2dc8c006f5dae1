# SPDX-License-Identifier: BSD-2-Clause
"""The integer network: input, layers (see `gen.layers`), head, and their canonical files.

Lowering produces it, `sim.reference` executes it, the planner and the circuits are made from it.
Nothing here or after it knows which framework the model came from.

    input -> layer -> layer -> ... -> layer -> head

A layer takes what the one before it gives, or names its inputs: a value may feed several layers.
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
from xnorforge.gen.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Layer,
    Pool,
    Product,
    Threshold,
    ValueType,
    WeightType,
)
from xnorforge.hw.geometry import Window

__all__ = ["Dense", "Head", "Input", "Network", "ValueType"]

FORMAT_VERSION = "1.1"
INPUT = "input"  # how layers name the network's input


@dataclass(frozen=True, eq=False)
class Input:
    """What the network takes, and how an image of bytes becomes it.

    value: type of the network's input.
    pixel: "uint8" or "int8", the dtype of one image element as the user holds it.
    threshold: for a "bit" value, the bit is `pixel >= threshold` (or its inverse with
        `inverted`); None for multi-bit values, whose pixels are taken as they are.
    table: int64 (256,) or (channels, 256): a multi-bit value's integer for each pixel 0 .. 255,
        where the source quantises its input (of each channel); None: the pixel itself.
    note: one sentence for people, e.g. the scaling that was folded away.
    """

    value: ValueType
    pixel: str = "uint8"
    threshold: int | None = None
    inverted: bool = False
    note: str = ""
    table: np.ndarray | None = None

    def __post_init__(self) -> None:
        table = self.table
        if table is None:
            return
        if self.value.kind == "bit" or self.pixel != "uint8":
            raise ModelError("An input table is for uint8 pixels of a multi-bit value")
        if table.shape not in ((256,), (self.value.channels, 256)) or table.dtype != np.int64:
            raise ModelError(
                f"An input table is int64 (256,) or ({self.value.channels}, 256), not {table.shape}"
            )
        if table.min() < self.value.low or table.max() > self.value.high:
            raise ModelError(
                f"An input table holds {table.min()} to {table.max()}; the value is "
                f"{self.value.low} to {self.value.high}"
            )

    @property
    def image_bytes(self) -> int:
        """Bytes of an image on a link: 8 one-bit elements a byte, else one element a byte."""
        return -(-self.value.size // 8) if self.value.bits == 1 else self.value.size

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random images (count, *shape) over the whole range that is taken."""
        value, shape = self.value, (count, *self.value.shape)
        if value.kind == "bit" or self.table is not None:
            info = np.iinfo(self.pixel)
            return rng.integers(info.min, info.max + 1, shape).astype(self.pixel)
        return rng.integers(value.low, value.high + 1, shape).astype(self.pixel)

    def quantise(self, images: np.ndarray) -> np.ndarray:
        """Images (N, *shape) of dtype `pixel` -> (N, K) integers: 0/1 for "bit", else values.

        Any shape whose elements flatten (C order) to `value.size` per image is taken, except a
        map of another layout. Raises ModelError on a wrong dtype, element count or layout.
        """
        images = np.asarray(images)
        if images.dtype != np.dtype(self.pixel):
            raise ModelError(f"Images must be {self.pixel}, not {images.dtype}")
        shape = self.value.shape
        wrong = images.ndim < 2 or int(np.prod(images.shape[1:])) != self.value.size
        if len(shape) == 3 and images.ndim == 4 and shape[2] > 1:
            wrong = wrong or images.shape[1:] != shape
        if wrong:
            text = f"Images must be (N, {', '.join(map(str, shape))}), not {images.shape}"
            if len(shape) == 3 and images.shape[1:] == (shape[2], *shape[:2]):
                text += ": channels last, move the axis"
            raise ModelError(text)
        flat = images.reshape(len(images), self.value.size)
        if self.value.kind == "bit":
            return ((flat >= self.threshold) ^ self.inverted).astype(np.uint8)
        if self.table is None:
            return flat
        dtype = np.int8 if self.value.kind == "int" else np.uint8
        if self.table.ndim == 1:
            return self.table.astype(dtype)[flat]
        channel = np.arange(self.value.size) % self.value.channels
        return self.table.astype(dtype)[channel, flat]


@dataclass(frozen=True, eq=False)
class Head:
    """From scores to a label: `key[c] = scale[c] * score[c] + offset[c]`, then the rule.

    tie: "first" or "last" index wins among equal keys.
    scale, offset: int64 (classes,) or both None for scale 1, offset 0.
    rule: "argmax", or "highest_bit": the highest class whose key is not negative, 0 where there
        is none (`tie` is not used).
    """

    tie: str = "first"
    scale: np.ndarray | None = None
    offset: np.ndarray | None = None
    rule: str = "argmax"

    def __post_init__(self) -> None:
        if self.scale is None or self.offset is None:
            if self.scale is not self.offset:
                raise ModelError("A head needs both a scale and an offset, or neither")
        elif self.scale.shape != self.offset.shape:
            raise ModelError("A head needs as many offsets as scales")
        if self.tie not in ("first", "last"):
            raise ModelError(f"Head tie rule must be 'first' or 'last', not {self.tie!r}")
        if self.rule not in ("argmax", "highest_bit"):
            raise ModelError(f"Head rule must be 'argmax' or 'highest_bit', not {self.rule!r}")

    def label(self, scores: np.ndarray) -> np.ndarray:
        """Scores (N, C) integers -> labels int64 (N,)."""
        keys = scores.astype(np.int64)
        if self.scale is not None:
            keys = keys * self.scale + self.offset
        if self.rule == "highest_bit":
            bits = keys >= 0
            highest = keys.shape[1] - 1 - bits[:, ::-1].argmax(axis=1)
            return np.where(bits.any(axis=1), highest, 0)
        if self.tie == "first":
            return keys.argmax(axis=1)
        return keys.shape[1] - 1 - keys[:, ::-1].argmax(axis=1)


@dataclass(frozen=True, eq=False)
class Network(NetworkMethods):
    """A complete integer network: layers in an order in which each takes what earlier ones give.

    source: provenance for people (file name, format, notes on exactness), never used to compute.
    """

    name: str
    input: Input
    layers: tuple[Layer, ...]
    head: Head
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ModelError(f"Network {self.name!r} has no layers")
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names) or INPUT in names:
            raise ModelError(f"Network {self.name!r}: layer names repeat: {names}")
        known = {INPUT: self.input.value}
        used: set[str] = set()
        for index, layer in enumerate(self.layers):
            taken = self.inputs_of(index)
            used.update(taken)
            if len(taken) != len(layer.sources):
                raise ModelError(
                    f"Layer {layer.name!r}: names {len(taken)} inputs, takes {len(layer.sources)}"
                )
            for name, want in zip(taken, layer.sources, strict=True):
                if name not in known:
                    raise ModelError(f"Layer {layer.name!r}: no layer {name!r} comes before it")
                got = known[name]
                same = (got.kind, got.bits, got.size) == (want.kind, want.bits, want.size)
                if not same or (len(want.shape) > 1 and got.shape != want.shape):
                    raise ModelError(f"Layer {layer.name!r}: takes {want}, but is fed {got}")
            known[layer.name] = layer.output
        for name in names[:-1]:
            if name not in used:
                raise ModelError(f"Layer {name!r}: nothing takes its output")
        if INPUT not in used:
            raise ModelError(f"Network {self.name!r}: nothing takes its input")
        scores = self.layers[-1].output
        if scores.kind != "int":
            raise ModelError(f"Network {self.name!r}: the last layer must give scores, not bits")
        if scores.pixels != 1:
            raise ModelError(
                f"Network {self.name!r}: the last layer must give one vector of scores, "
                f"not {scores.shape}"
            )
        if self.head.scale is not None and len(self.head.scale) != self.classes:
            raise ModelError(
                f"Network {self.name!r}: {len(self.head.scale)} scales for {self.classes} classes"
            )

    def inputs_of(self, index: int) -> tuple[str, ...]:
        """Names of what layer `index` takes."""
        return self.layers[index].inputs or (self.layers[index - 1].name if index else INPUT,)

    def type_of(self, name: str) -> ValueType:
        """Type of what a layer gives, or of the input."""
        if name == INPUT:
            return self.input.value
        return next(layer for layer in self.layers if layer.name == name).output

    def consumers(self) -> dict[str, list[str]]:
        """Who takes what, by name; a layer that takes a value twice is there twice."""
        found: dict[str, list[str]] = {INPUT: [], **{layer.name: [] for layer in self.layers}}
        for index, layer in enumerate(self.layers):
            for name in self.inputs_of(index):
                found[name].append(layer.name)
        return found

    @property
    def is_chain(self) -> bool:
        """Whether every value feeds exactly the next layer."""
        return all(
            self.inputs_of(i) == ((self.layers[i - 1].name if i else INPUT),)
            for i in range(len(self.layers))
        )

    @property
    def products(self) -> tuple[Product, ...]:
        """The layers that hold weights, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, Product))

    @property
    def classes(self) -> int:
        return self.layers[-1].output.channels

    @property
    def weight_bits(self) -> int:
        return sum(layer.weight_bits for layer in self.products)

    @property
    def macs(self) -> int:
        """Binary multiply-accumulates per image (an n-bit input counts n times)."""
        return sum(layer.macs for layer in self.products)

    # --- canonical files -------------------------------------------------------------------

    def to_files(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The JSON description and the arrays. Deterministic: same network, same content."""
        arrays: dict[str, np.ndarray] = {}
        layers = [_layer_item(layer, i, arrays) for i, layer in enumerate(self.layers)]
        if self.head.scale is not None and self.head.offset is not None:
            arrays["head_scale"], arrays["head_offset"] = self.head.scale, self.head.offset
        given = {f.name: getattr(self.input, f.name) for f in dataclasses.fields(self.input)}
        given["value"] = dataclasses.asdict(self.input.value)
        table = given.pop("table")
        if table is not None:
            arrays["input_table"] = table
        description: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "name": self.name,
            "input": given,
            "layers": layers,
            "head": {"tie": self.head.tie, "affine": self.head.scale is not None},
            "source": self.source,
        }
        if self.head.rule != "argmax":
            description["head"]["rule"] = self.head.rule
        return description, arrays

    @classmethod
    def from_files(cls, description: dict[str, Any], arrays: Any) -> "Network":
        """Inverse of `to_files`. Raises BundleError on an unknown major version or op."""
        if str(description.get("format", "")).split(".")[0] != FORMAT_VERSION.split(".")[0]:
            raise BundleError(
                f"network.json has format {description.get('format')!r}; "
                f"this version reads {FORMAT_VERSION.split('.')[0]}.x"
            )
        layers = tuple(_layer_from(item, i, arrays) for i, item in enumerate(description["layers"]))
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
                table=arrays.get("input_table"),
            ),
            layers=layers,
            head=Head(
                head["tie"],
                arrays["head_scale"] if affine else None,
                arrays["head_offset"] if affine else None,
                head.get("rule", "argmax"),
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


# --- layers in files ----------------------------------------------------------------------------

_OPS: dict[str, type[Layer]] = {
    "dense": Dense,
    "conv": Conv,
    "pool": Pool,
    "threshold": Threshold,
    "add": Add,
    "concat": Concat,
}
_ARRAYS = ("thresholds", "offsets", "multipliers", "sign")


def _layer_item(layer: Layer, index: int, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The JSON of a layer; its arrays are added to `arrays` under `<field>_<index>`."""
    op = next(name for name, kind in _OPS.items() if type(layer) is kind)
    item: dict[str, Any] = {"op": op, "name": layer.name}
    if layer.inputs:
        item["inputs"] = list(layer.inputs)
    if isinstance(layer, Add | Concat):
        item["sources"] = [dataclasses.asdict(source) for source in layer.sources]
    else:
        item["source"] = dataclasses.asdict(layer.sources[0])
    for name in _ARRAYS:
        value = getattr(layer, name, None)
        if value is not None:
            arrays[f"{name}_{index}"] = value
    if isinstance(layer, Product):
        planes = layer.weight_type.split(layer.matrix) > 0
        packed = np.packbits(planes, axis=-1, bitorder="little")
        arrays[f"weights_{index}"] = packed[0] if len(packed) == 1 else packed
        item["rows"], item["columns"] = layer.rows, layer.columns
        item["output"] = "scores" if layer.thresholds is None else "bits"
        if layer.weight_type != WeightType():
            item["weight_type"] = dataclasses.asdict(layer.weight_type)
    if isinstance(layer, Conv | Pool):
        item["window"] = dataclasses.asdict(layer.window)
    if isinstance(layer, Conv):
        item["groups"], item["pad_value"] = layer.groups, layer.pad_value
    if isinstance(layer, Pool):
        item["kind"] = layer.kind
    return item


def _layer_from(item: dict[str, Any], index: int, arrays: Any) -> Layer:
    """Inverse of `_layer_item`."""
    op = item["op"]
    if op not in _OPS:
        raise BundleError(f"network.json layer {item['name']!r}: unknown op {op!r}")
    fields: dict[str, Any] = {"name": item["name"], "inputs": tuple(item.get("inputs", ()))}
    for name in _ARRAYS:
        if f"{name}_{index}" in arrays:
            fields[name] = arrays[f"{name}_{index}"]
    if "window" in item:
        fields["window"] = Window(**{key: tuple(v) for key, v in item["window"].items()})
    if op in ("add", "concat"):
        fields["sources"] = tuple(_value_type(source) for source in item["sources"])
        return _OPS[op](**fields)
    fields["source"] = _value_type(item["source"])
    if op == "pool":
        fields["kind"] = item["kind"]
    if op in ("dense", "conv"):
        kind = WeightType(**item.get("weight_type", {}))
        bits = np.unpackbits(
            arrays[f"weights_{index}"], axis=-1, count=item["columns"], bitorder="little"
        )
        planes = 2 * bits.reshape(kind.planes, item["rows"], item["columns"]).astype(np.int64) - 1
        weights = np.tensordot(np.array(kind.coefficients), planes, 1)
        weights = (weights // (2 if kind.kind == "int" else 1)).astype(np.int8)
        if op == "conv":
            fields["groups"], fields["pad_value"] = item["groups"], item["pad_value"]
            weights = weights.reshape(item["rows"], *fields["window"].kernel, -1)
        fields["weights"], fields["weight_type"] = weights, kind
        fields.setdefault("thresholds", None)
    return _OPS[op](**fields)


def _value_type(item: dict[str, Any]) -> ValueType:
    return ValueType(item["kind"], item["bits"], tuple(item["shape"]))
