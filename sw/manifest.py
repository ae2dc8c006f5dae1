# SPDX-License-Identifier: BSD-2-Clause
"""What the driver needs of a bundle: which device it is for, and how images become bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.sw.errors import ImageError, ManifestError, WeightsError
from xnorforge.sw.protocol import LABEL_BYTES, WORD_BITS, crc32, record_bytes

__all__ = ["LINKS", "Card", "ImageContract", "Manifest", "Ranking", "check_load"]

LINKS = ("uart", "axi", "pcie")
_SCHEMA_MAJOR = "1"
_CARD = ("registers", "dma_status", "beat_bytes")


@dataclass(frozen=True)
class Card:
    """Where a PCIe card has what, as byte addresses in BAR 0.

    registers: the core's; behind them the bridge's. dma_status: how far the DMA has read.
    beat_bytes: an image begins at a multiple of them.
    """

    registers: int
    dma_status: int
    beat_bytes: int

    def __post_init__(self) -> None:
        if min(self.registers, self.dma_status) < 0 or self.beat_bytes not in (1, 2, 4, 8, 16):
            raise ValueError(f"not a card: {self}")


@dataclass(frozen=True)
class ImageContract:
    """How an image of bytes becomes the bytes on the line.

    shape: of one image. kind, bits: of an element on the line. pixel: dtype of the user's
    elements. threshold, inverted: for "bit", an element is `pixel >= threshold` (or not).
    table: the element for each pixel 0 .. 255, of each channel where it has two axes, or None.
    image_bytes: bytes of an image on the line.
    """

    shape: tuple[int, ...]
    kind: str
    bits: int
    pixel: str
    threshold: int | None
    inverted: bool
    image_bytes: int
    table: np.ndarray | None = None

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "ImageContract":
        """From the manifest's `input`. Raises KeyError, TypeError or ValueError."""
        return cls(
            shape=tuple(item["shape"]),
            kind=item["kind"],
            bits=item["bits"],
            pixel=item["pixel"],
            threshold=item["threshold"],
            inverted=bool(item["inverted"]),
            image_bytes=item["image_bytes"],
            table=None if item.get("table") is None else np.array(item["table"], np.int64),
        )

    def pack(self, images: np.ndarray) -> list[bytes]:
        """Images (N, *shape), or flattened, to the bytes of each. Raises ImageError."""
        try:
            images = np.asarray(images)
        except ValueError as error:  # rows of different lengths
            raise ImageError(f"Images must be one array: {error}") from error
        size = int(np.prod(self.shape))
        if images.dtype != np.dtype(self.pixel):
            raise ImageError(f"Images must be {self.pixel}, not {images.dtype}: convert them")
        wanted = ", ".join(map(str, self.shape))
        if images.ndim < 2 or int(np.prod(images.shape[1:])) != size:
            raise ImageError(f"Images must be (N, {wanted}), not {images.shape}: reshape them")
        map_of_channels = len(self.shape) == 3 and self.shape[2] > 1
        if map_of_channels and images.ndim == 4 and images.shape[1:] != self.shape:
            raise ImageError(f"Images must be (N, {wanted}), not {images.shape}: move the axes")
        flat = images.reshape(len(images), size)
        if self.table is not None:
            tables = np.broadcast_to(self.table, (self.shape[-1], 256))
            flat = tables[np.arange(size) % self.shape[-1], flat]
            flat = flat.astype(np.int8 if self.kind == "int" else np.uint8)
        if self.kind == "bit":
            ones = (flat >= self.threshold) ^ self.inverted
            flat = np.packbits(ones, axis=1, bitorder="little")
        elif self.bits < 8:
            low = -(1 << (self.bits - 1)) if self.kind == "int" else 0
            high = low + (1 << self.bits) - 1
            if ((flat < low) | (flat > high)).any():
                raise ImageError(f"Image elements must lie in [{low}, {high}]: scale them")
        return [row.tobytes() for row in np.ascontiguousarray(flat)]


@dataclass(frozen=True)
class Ranking:
    """How scores of different classes compare: by `scale[c] * score[c] + offset[c]`.

    scale, offset: int64 (classes,), or both None where scores compare as they are.
    known: False after weights that came without the scales they belong to.
    """

    scale: np.ndarray | None = None
    offset: np.ndarray | None = None
    known: bool = True

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "Ranking":
        """From the manifest's `output`. Raises TypeError or ValueError."""
        if item.get("scale") is None:
            return cls()
        return cls(np.array(item["scale"], np.int64), np.array(item["offset"], np.int64))

    def top(self, scores: np.ndarray, k: int) -> np.ndarray:
        """The k best classes, best first, int64 (..., k), of scores (..., classes).

        Of equal ones the lower class comes first. Raises ValueError where k is not 1 to classes.
        """
        classes = scores.shape[-1]
        if not 1 <= k <= classes:
            raise ValueError(f"k must be 1 to {classes}, the number of classes, not {k!r}")
        if not self.known:
            raise WeightsError(
                "These weights came without the class scales that rank their scores: load them "
                "from their bundle or model"
            )
        keys = scores if self.scale is None else scores * self.scale + self.offset
        # A stable sort keeps equal keys in the order of their classes.
        return np.argsort(-keys, axis=-1, kind="stable")[..., :k]


@dataclass(frozen=True)
class Manifest:
    """The driver's view of `manifest.json`.

    link: "uart", "axi" or "pcie". baud: of a UART, else 0. card: of PCIe, else None. score_bytes:
    of a score in a result record.
    """

    path: Path
    name: str
    plan_hash: int
    weights_digest: int
    clock_hz: float
    link: str
    baud: int
    card: Card | None
    image: ImageContract
    classes: int
    score_bytes: int
    ranking: Ranking
    weights_sha256: str

    @classmethod
    def read(cls, bundle: str | Path) -> "Manifest":
        """Read a bundle's manifest. Raises ManifestError."""
        path = Path(bundle)
        file = path / "manifest.json"
        try:
            item = json.loads(file.read_text())
        except FileNotFoundError:
            raise ManifestError(
                f"{path} is no bundle, it has no manifest.json: compile a model"
            ) from None
        except (OSError, ValueError) as error:
            raise ManifestError(f"{file} cannot be read ({error}): compile again") from error
        try:
            schema = str(item.get("schema", _SCHEMA_MAJOR))
            if schema.split(".")[0] != _SCHEMA_MAJOR:
                raise ManifestError(
                    f"{file} has schema {schema}; this driver reads {_SCHEMA_MAJOR}.x: "
                    "use the version of xnorforge that made it"
                )
            return cls._from_json(path, item)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ManifestError(f"{file} is damaged ({error!r}): compile again") from error

    @classmethod
    def _from_json(cls, path: Path, item: dict[str, Any]) -> "Manifest":
        link = item["link"]
        kind = link.get("kind", "uart")
        if kind not in LINKS:
            raise ManifestError(
                f"{path} was compiled for link {kind}; this driver knows {', '.join(LINKS)}: "
                "use the version of xnorforge that made it"
            )
        return cls(
            path=path,
            name=str(item.get("name", path.name)),
            plan_hash=int(item["plan_hash"]),
            weights_digest=int(item["weights_digest"]),
            clock_hz=float(item["clock_hz"]),
            link=kind,
            baud=int(link["baud"]) if kind == "uart" else 0,
            card=Card(*(int(link[name]) for name in _CARD)) if kind == "pcie" else None,
            image=ImageContract.from_json(item["input"]),
            classes=int(item["output"]["classes"]),
            score_bytes=int(item["output"]["score_bytes"]) if kind == "uart" else WORD_BITS // 8,
            ranking=Ranking.from_json(item["output"]),
            weights_sha256=item["files"]["weights.bin"]["sha256"],
        )

    @property
    def record_bytes(self) -> int:
        return record_bytes(self.classes, self.score_bytes)

    def weights(self) -> bytes:
        """The bundle's weight load. Raises ManifestError where it is not the one compiled."""
        file = self.path / "weights.bin"
        try:
            load = file.read_bytes()
        except OSError as error:
            raise ManifestError(
                f"{file} cannot be read ({error.strerror}): compile again"
            ) from error
        if hashlib.sha256(load).hexdigest() != self.weights_sha256:
            raise ManifestError(f"{file} has changed since the bundle was made: compile again")
        return load

    def unpack(self, records: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Result records to scores int64 (N, classes) and labels int64 (N,)."""
        block = np.frombuffer(b"".join(records), np.uint8)
        block = block.reshape(len(records), self.record_bytes)
        digits = block[:, :-LABEL_BYTES].reshape(len(records), self.classes, self.score_bytes)
        scores = digits.astype(np.int64) @ (1 << 8 * np.arange(self.score_bytes, dtype=np.int64))
        top = 1 << (8 * self.score_bytes - 1)
        labels = block[:, -LABEL_BYTES:].astype(np.int64) @ np.array([1, 256])
        return (scores ^ top) - top, labels


def check_load(load: bytes, name: str = "This weight load") -> int:
    """The digest at the end of a weight load. Raises ManifestError where it is not its CRC."""
    if len(load) < 4 or crc32(load[:-4]).to_bytes(4, "little") != load[-4:]:
        raise ManifestError(f"{name} is damaged, its CRC does not match: compile again")
    return int.from_bytes(load[-4:], "little")
