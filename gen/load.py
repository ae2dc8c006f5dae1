# SPDX-License-Identifier: BSD-2-Clause
"""`load`: a trained model file -> the integer `Network`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xnorforge.gen.bnn_pynq import is_folder, load_folder
from xnorforge.gen.errors import ModelError
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
    topology: str = "auto",
) -> Network:
    """Read a trained binary network as an integer network.

    path: an ONNX or QONNX file, or a folder of BNN-PYNQ parameters.
    input_scale, input_offset: the model is fed `input_scale * pixel + input_offset`.
    pixel: "uint8" or "int8", what the user's images hold. layout: see `gen.onnx_import`.
    topology: of a folder, "lfc", "cnv" or "auto"; see `gen.bnn_pynq`.
    Raises ModelError or UnsupportedOpError with one sentence that names file, node and rule.
    """
    if is_folder(path):
        if (input_scale, input_offset, pixel, layout) != (1 / 255, 0.0, "uint8", "auto"):
            raise ModelError(
                f"{path}: a BNN-PYNQ network states how it takes its images; leave out "
                f"input_scale, input_offset, pixel and layout"
            )
        return load_folder(path, topology=topology)
    if topology != "auto":
        raise ModelError(f"{path}: topology is for folders of BNN-PYNQ parameters")
    from xnorforge.gen.lower import lower

    graph = read_graph(path, layout=layout)
    return lower(graph, input_scale=input_scale, input_offset=input_offset, pixel=pixel)
