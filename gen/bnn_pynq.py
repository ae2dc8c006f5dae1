# SPDX-License-Identifier: BSD-2-Clause
"""Parameter folders of BNN-PYNQ (https://github.com/Xilinx/BNN-PYNQ): LFC and CNV, W1A1.

A layer's parameters lie in files of its processing elements, `<layer>-<pe>-weights.bin` (64-bit
words) and `<layer>-<pe>-thres.bin` (64-bit integers), little endian. Row `nf * PE + pe` of a layer
of SF words a row has words `nf * SF .. nf * SF + SF - 1`; bit s of word sf is column
`sf * SIMD + s`, 1 = +1. A bit is 1 where the accumulator is *greater* than the threshold. The
accumulator counts matching bits; in CNV's first layer it is a product with pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.layers import Conv, Dense, Layer, Pool, ValueType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.hw.geometry import Window

__all__ = ["TOPOLOGIES", "is_folder", "load_folder"]

_NAME = re.compile(r"(\d+)-(\d+)-(weights|thres)\.bin")
_WORD_BYTES = 8
_NEVER = 32767  # threshold of rows that are not used
_OUTPUTS = 64  # rows of the last layer, used or not


@dataclass(frozen=True)
class _Fold:
    """One layer as BNN-PYNQ folds it. kernel, channels: of a convolution, else 1 and all columns.
    thresholds: whether it has any. pool: whether a 2x2 max pool follows."""

    rows: int
    channels: int
    simd: int
    pe: int
    kernel: int = 1
    pool: bool = False
    thresholds: bool = True

    @property
    def columns(self) -> int:
        return self.kernel * self.kernel * self.channels

    @property
    def words(self) -> int:
        """Words a row."""
        return self.columns // self.simd


_LFC = (
    _Fold(1024, 832, 64, 32),
    _Fold(1024, 1024, 32, 64),
    _Fold(1024, 1024, 64, 32),
    _Fold(_OUTPUTS, 1024, 8, 16),
)
_CNV = (
    _Fold(64, 3, 3, 16, kernel=3),
    _Fold(64, 64, 32, 32, kernel=3, pool=True),
    _Fold(128, 64, 32, 16, kernel=3),
    _Fold(128, 128, 32, 16, kernel=3, pool=True),
    _Fold(256, 128, 32, 4, kernel=3),
    _Fold(256, 256, 32, 1, kernel=3),
    _Fold(512, 256, 4, 1),
    _Fold(512, 512, 8, 1),
    _Fold(_OUTPUTS, 512, 1, 4, thresholds=False),
)
TOPOLOGIES = {"lfc": _LFC, "cnv": _CNV}

_LFC_PIXELS = 28 * 28
_LFC_THRESHOLD = 128


def is_folder(path: str | Path) -> bool:
    """Whether this is a folder with at least one parameter file."""
    path = Path(path)
    return path.is_dir() and any(_NAME.fullmatch(item.name) for item in path.iterdir())


def load_folder(path: str | Path, *, topology: str = "auto", classes: int | None = None) -> Network:
    """The integer network of a parameter folder.

    topology: "lfc" (28x28 images, four dense layers), "cnv" (32x32x3, six convolutions and three
        dense layers) or "auto", by the layers that there are files of.
    classes: rows of the last layer that count; by default the lines of `classes.txt`, or, without
        that file, the rows that have files and a threshold that can be met.
    Raises ModelError naming the file and the rule.
    """
    folder = Path(path)
    files = {
        (int(found[1]), int(found[2]), found[3]): item
        for item in sorted(folder.iterdir())
        if (found := _NAME.fullmatch(item.name))
    }
    if not files:
        raise ModelError(f"{folder}: this is a folder without BNN-PYNQ files (0-0-weights.bin, …)")
    topology = _recognise(folder, files, topology)
    folds = TOPOLOGIES[topology]
    wanted = {
        (layer, pe, kind)
        for layer, fold in enumerate(folds)
        for pe in range(fold.pe)
        for kind in ("weights", "thres")
    }
    extra = [item.name for key, item in files.items() if key not in wanted]
    if extra:
        raise ModelError(
            f"{folder}: {extra[0]} belongs to no layer of {topology.upper()}; its layers have "
            f"{', '.join(str(fold.pe) for fold in folds)} processing elements"
        )
    layers = [_read(folder, files, i, fold, i == len(folds) - 1) for i, fold in enumerate(folds)]
    if classes is None:
        classes = _classes(folder, *layers[-1][1:])
    if not 1 <= classes <= _OUTPUTS:
        raise ModelError(f"{folder}: {classes} classes; the last layer has 1 to {_OUTPUTS} rows")
    parameters = [(weights, thresholds) for weights, thresholds, _ in layers]
    return (_lfc if topology == "lfc" else _cnv)(folder, parameters, classes)


def _recognise(folder: Path, files: dict[tuple[int, int, str], Path], topology: str) -> str:
    if topology in TOPOLOGIES:
        return topology
    if topology != "auto":
        raise ModelError(f"topology must be 'lfc', 'cnv' or 'auto', not {topology!r}")
    count = max(layer for layer, _, _ in files) + 1
    for name, folds in TOPOLOGIES.items():
        if count == len(folds):
            return name
    raise ModelError(
        f"{folder}: has files of {count} layers; LFC has {len(_LFC)}, CNV has {len(_CNV)}: "
        f"complete the folder, or say which it is (--topology)"
    )


def _read(
    folder: Path,
    files: dict[tuple[int, int, str], Path],
    layer: int,
    fold: _Fold,
    last: bool,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights ±1 (rows, columns), thresholds (rows,), and how many rows the files hold. The last
    layer's files may be short: the missing words are 0, as the original's reader takes them."""
    most = fold.rows // fold.pe
    weights = np.full((fold.rows, fold.columns), -1, np.int8)
    thresholds = np.zeros(fold.rows, np.int64)
    held = most
    for pe in range(fold.pe):
        words = _words(folder, files, (layer, pe, "weights"), most * fold.words, fold.words, last)
        rows = len(words) // fold.words
        held = min(held, rows)
        high = int(words.max(initial=0))
        if high >> fold.simd:
            raise ModelError(
                f"{folder / f'{layer}-{pe}-weights.bin'}: a word holds {high:#x}, more than "
                f"{fold.simd} bits a word"
            )
        octets = words.reshape(rows, fold.words, 1).view(np.uint8)
        bits = np.unpackbits(octets, axis=2, bitorder="little")[:, :, : fold.simd]
        own = slice(pe, pe + rows * fold.pe, fold.pe)
        weights[own] = 2 * bits.reshape(rows, fold.columns).astype(np.int8) - 1
        if fold.thresholds:
            levels = _words(folder, files, (layer, pe, "thres"), most, 1, last).view("<i8")
            thresholds[pe : pe + len(levels) * fold.pe : fold.pe] = levels
    return weights, thresholds, held * fold.pe


def _words(
    folder: Path,
    files: dict[tuple[int, int, str], Path],
    key: tuple[int, int, str],
    count: int,
    row: int,
    may_be_short: bool,
) -> np.ndarray:
    """The words of one file: `count`, or, where it may be short, whole rows of them."""
    if key not in files:
        name = f"{key[0]}-{key[1]}-{key[2]}.bin"
        raise ModelError(f"{folder}: {name} is missing; copy the whole folder")
    content = files[key].read_bytes()
    size, step = count * _WORD_BYTES, row * _WORD_BYTES
    short = may_be_short and 0 < len(content) < size and len(content) % step == 0
    if len(content) != size and not short:
        what = "short" if len(content) < size else "long"
        raise ModelError(
            f"{files[key]}: too {what}: {len(content)} bytes, not {size} ({count} words of "
            f"{_WORD_BYTES} bytes); copy the file again, or check the topology"
        )
    return np.frombuffer(content, "<u8")


def _classes(folder: Path, thresholds: np.ndarray, held: int) -> int:
    names = folder / "classes.txt"
    if names.is_file():
        return len(names.read_text(errors="replace").strip().splitlines())
    return int(np.flatnonzero(thresholds[:held] < _NEVER)[-1:].sum()) + 1


def _dense(name: str, source: ValueType, weights: np.ndarray, counts: np.ndarray | None) -> Dense:
    """A binary layer whose bit is `matches > counts`, or whose dot products go out."""
    dots = Dense(name, source, weights, None)
    if counts is None:
        return dots
    return Dense(name, source, weights, _from_counts(dots, counts))


def _from_counts(layer: Dense | Conv, counts: np.ndarray) -> np.ndarray:
    """`matches > t` is `dot >= 2 * (t + 1) - columns`, within always and never."""
    return np.clip(2 * (counts + 1) - layer.columns, layer.dot_low, layer.dot_high + 1)


def _lfc(folder: Path, parameters: list[tuple[np.ndarray, np.ndarray]], classes: int) -> Network:
    value = ValueType("bit", 1, (28, 28, 1))
    padding = _LFC[0].columns - _LFC_PIXELS
    note = f"bit = (p >= {_LFC_THRESHOLD}); {padding} columns of padding left out"
    input_ = Input(value, "uint8", threshold=_LFC_THRESHOLD, note=note)
    weights, counts = parameters[0]
    # Padding is fed 0 bits, which match the -1 weights there.
    counts = counts - (weights[:, _LFC_PIXELS:] < 0).sum(axis=1)
    layers: list[Layer] = [_dense("dense0", value, weights[:, :_LFC_PIXELS], counts)]
    for i, (weights, counts) in enumerate(parameters[1:-1], start=1):
        layers.append(_dense(f"dense{i}", layers[-1].output, weights, counts))
    weights, counts = parameters[-1]
    last = _dense(f"dense{len(layers)}", layers[-1].output, weights[:classes], None)
    offset = -_from_counts(last, counts[:classes])
    head = Head(scale=np.ones(classes, np.int64), offset=offset, rule="highest_bit")
    layers.append(last)
    return _network(folder, "lfc", input_, layers, head, "the host takes the highest set bit")


def _cnv(folder: Path, parameters: list[tuple[np.ndarray, np.ndarray]], classes: int) -> Network:
    value = ValueType("int", 8, (32, 32, 3))
    pixels = np.arange(256)
    # x = p / 255 * 2 - 1 as a signed fixed point number of 7 fraction bits, saturated.
    table = np.clip(np.floor(256 * pixels / 255 - 128 + 0.5), -128, 127).astype(np.int64)
    note = "q = round(256 * p / 255 - 128), at most 127"
    input_ = Input(value, "uint8", note=note, table=table)
    layers: list[Layer] = []
    for i, (fold, (weights, levels)) in enumerate(zip(_CNV, parameters, strict=True)):
        source = layers[-1].output if layers else value
        if fold.kernel == 1:
            last = i == len(_CNV) - 1
            weights = weights[:classes] if last else weights
            layers.append(_dense(f"dense{i}", source, weights, None if last else levels))
            continue
        window = Window((fold.kernel, fold.kernel))
        shaped = weights.reshape(fold.rows, fold.kernel, fold.kernel, fold.channels)
        dots = Conv(f"conv{i}", source, shaped, None, window)
        if i == 0:  # thresholds have 8 fraction bits, products 7: 2 * acc > t
            levels = np.clip(np.floor_divide(levels, 2) + 1, dots.dot_low, dots.dot_high + 1)
        else:
            levels = _from_counts(dots, levels)
        layers.append(Conv(f"conv{i}", source, shaped, levels, window))
        if fold.pool:
            layers.append(Pool(f"pool{i}", layers[-1].output, Window((2, 2), (2, 2))))
    return _network(folder, "cnv", input_, layers, Head("first"), "the first largest count wins")


def _network(
    folder: Path, topology: str, input_: Input, layers: list[Layer], head: Head, rule: str
) -> Network:
    name = folder.resolve().name
    notes = [{"name": layer.name, "node": f"files {i}-*.bin"} for i, layer in _numbered(layers)]
    source = {
        "file": name,
        "format": f"BNN-PYNQ {topology.upper()} W1A1",
        "layers": notes,
        "exactness": f"the files hold integers: nothing is rounded; {rule}",
    }
    return Network(name, input_, tuple(layers), head, source)


def _numbered(layers: list[Layer]) -> list[tuple[int, Layer]]:
    """Layers that have files, with the number of their files."""
    return list(enumerate(layer for layer in layers if not isinstance(layer, Pool)))
