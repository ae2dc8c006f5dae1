# SPDX-License-Identifier: BSD-2-Clause
"""The source model in onnxruntime, optimisations off, with any of its tensors as outputs.

It runs in a copy whose quantising nodes of other domains are written in standard ops.
"""

from __future__ import annotations

import numpy as np
import onnx

from xnorforge.gen.errors import ModelError
from xnorforge.gen.extras import extra_packages
from xnorforge.gen.graph import Graph
from xnorforge.gen.onnx_file import OnnxFile
from xnorforge.gen.onnx_quant import is_quantiser, standard

__all__ = ["run_source"]


def run_source(
    file: OnnxFile, graph: Graph, feed: np.ndarray, wanted: list[str]
) -> dict[str, np.ndarray]:
    """The source's tensors, each (N, elements) in C order of one image's tensor."""
    with extra_packages():
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = _standard(file, graph, wanted).SerializeToString()
    try:
        runtime = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        rows = [
            runtime.run(wanted, {graph.input_name: image.reshape(graph.input_shape)})
            for image in feed
        ]
    except Exception as error:  # onnxruntime raises kinds of its own
        raise ModelError(f"{file.path}: onnxruntime cannot run it ({error})") from error
    return {
        name: np.stack([np.asarray(row[i]).reshape(-1) for row in rows])
        for i, name in enumerate(wanted)
    }


def _standard(file: OnnxFile, graph: Graph, wanted: list[str]) -> onnx.ModelProto:
    """A copy in standard ops only, with the wanted tensors as outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    for field in (model.graph.node, model.graph.output, model.graph.value_info):
        del field[:]
    for i, node in enumerate(file.nodes):
        if not is_quantiser(node):
            model.graph.node.append(node)
            continue
        nodes, constants = standard(
            node, graph.quantisers[node.output[0]], f"trace.{i}", graph.dtype
        )
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(constants)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    return model
