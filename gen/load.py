# SPDX-License-Identifier: BSD-2-Clause
"""`load`: a trained model file -> the integer `Network`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xnorforge.gen.network import Network

if TYPE_CHECKING:
    from xnorforge.gen.graph import Graph

__all__ = ["load", "read_graph"]


def read_graph(path: str | Path, *, layout: str = "auto") -> Graph:
    """The float graph of a model file (see `gen.onnx_import`)."""
    # Imported here: `import xnorforge.gen` stays fast and free of onnx.
    from xnorforge.gen.onnx_import import import_onnx

    return import_onnx(path, layout=layout)


def load(
    path: str | Path,
    *,
    input_scale: float = 1 / 255,
    input_offset: float = 0.0,
    pixel: str = "uint8",
    layout: str = "auto",
) -> Network:
    """Read a trained binary network (ONNX or QONNX, dense layers) as an integer network.

    input_scale, input_offset: the model is fed `input_scale * pixel + input_offset`.
    pixel: "uint8" or "int8", what the user's images hold. layout: see `gen.onnx_import`.
    Raises ModelError or UnsupportedOpError with one sentence that names file, node and rule.
    """
    from xnorforge.gen.lower import lower

    graph = read_graph(path, layout=layout)
    return lower(graph, input_scale=input_scale, input_offset=input_offset, pixel=pixel)
