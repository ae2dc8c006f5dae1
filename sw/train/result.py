# SPDX-License-Identifier: BSD-2-Clause
"""What a training run leaves behind."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TrainResult"]


@dataclass(frozen=True)
class TrainResult:
    """A trained network on disk and its figures, accuracies in percent.

    model: the QONNX file. sha256: its checksum.
    epoch: the epoch (from 1) whose weights were kept, the best on the held-out part.
    held_out_accuracy: that epoch's; held_out_history: every epoch's.
    test_accuracy: on the test set, which is read once, after everything is decided.
    data: SHA-256 of each idx file's content. versions: of Python and the packages that decide.
    """

    model: Path
    sha256: str
    recipe: dict[str, Any]
    seed: int
    epochs: int
    epoch: int
    held_out_accuracy: float
    held_out_history: tuple[float, ...]
    test_accuracy: float
    seconds: float
    data: dict[str, str]
    versions: dict[str, str]

    def to_json(self) -> str:
        """The record as written beside the model; the model by its file name."""
        record = dataclasses.asdict(self) | {"model": self.model.name}
        return json.dumps(record, indent=1, sort_keys=True) + "\n"
