# SPDX-License-Identifier: BSD-2-Clause
"""Trained models and test images that come with the package, so that nothing need be fetched."""

from __future__ import annotations

from pathlib import Path

from xnorforge.sw.errors import TrainingError

__all__ = ["SHIPPED_MODELS", "shipped_images", "shipped_model", "shipped_record"]

FOLDER = Path(__file__).parent / "data"
SHIPPED_MODELS = ("mnist-tfc", "mnist-sfc")


def shipped_model(name: str) -> Path:
    """QONNX file of a shipped model. Raises TrainingError with the names there are."""
    if name not in SHIPPED_MODELS:
        raise TrainingError(f"No shipped model {name!r}; there are: {', '.join(SHIPPED_MODELS)}")
    return FOLDER / f"{name}.onnx"


def shipped_record(name: str) -> Path:
    """JSON record of how a shipped model was trained, with its accuracy (`TrainResult`)."""
    return shipped_model(name).with_suffix(".json")


def shipped_images() -> Path:
    """200 MNIST test images with labels, an `.npz` for `load_images`."""
    return FOLDER / "mnist-200.npz"
