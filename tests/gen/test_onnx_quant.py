# SPDX-License-Identifier: BSD-2-Clause
"""Quantising ops against QONNX's own implementation, and their form in standard ops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from xnorforge.gen.onnx_quant import QuantError, Quantiser, quantiser
from xnorforge.gen.steps import ROUNDINGS, Step

DOMAIN = "qonnx.custom_op.general"
# Ties of all steps, and numbers beside them.
POINTS = np.concatenate([np.arange(-80, 81) / 8, np.arange(-80, 81) / 8 + 1e-6]).astype(np.float32)


def quant(scale, zero, bits, **options) -> Quantiser:
    node = helper.make_node("Quant", ["x", "s", "z", "b"], ["y"], domain=DOMAIN, **options)
    values = [None, np.float32(scale), np.float32(zero), np.float32(bits)]
    return quantiser(node, values, 2)


@given(
    scale=st.sampled_from([1.0, 0.5, 0.3, 1.7]),
    bits=st.integers(1, 8),
    signed=st.integers(0, 1),
    narrow=st.integers(0, 1),
    zero=st.integers(-3, 3),
    mode=st.sampled_from(ROUNDINGS),
)
def test_quant_is_qonnxs(scale, bits, signed, narrow, zero, mode) -> None:
    theirs = pytest.importorskip("qonnx.custom_op.general.quant")
    refused = (signed and zero) if signed else narrow
    if bits == 1 and refused:
        with pytest.raises(QuantError, match=r"one level|one signed bit and a zero point"):
            quant(scale, zero, bits, signed=signed, narrow=narrow, rounding_mode=mode)
        return
    made = quant(scale, zero, bits, signed=signed, narrow=narrow, rounding_mode=mode)
    wanted = theirs.quant(
        POINTS,
        np.float32(scale),
        np.float32(zero),
        np.float32(bits),
        bool(signed),
        bool(narrow),
        mode,
    )
    assert (made.on(POINTS) == wanted.astype(np.float32)).all()
    # What lowering takes as its levels and its decisions.
    step = Step("", made.op, made.params, "", np.zeros(0), rounding=made.rounding)
    levels = step.levels(np.dtype(np.float32))[:, 0]
    assert np.isin(made.on(POINTS), levels).all() and (np.diff(levels) > 0).all()
    changes = np.flatnonzero(np.diff(made.on(np.sort(POINTS))))
    ordered = np.sort(POINTS)
    decisions = step.decisions()[:, 0]
    for i in changes:
        near = (decisions >= ordered[i] - 1e-5) & (decisions <= ordered[i + 1] + 1e-5)
        assert near.any(), (ordered[i], decisions)


@given(data=st.data(), layout=st.sampled_from(["NCHW", "NHWC"]), own=st.booleans())
def test_multithreshold_is_qonnxs(data, layout, own) -> None:
    theirs = pytest.importorskip("qonnx.custom_op.general.multithreshold")
    channels, levels = 3, data.draw(st.integers(1, 7))
    table = np.array(
        data.draw(
            st.lists(st.integers(-8, 8), min_size=channels * levels, max_size=channels * levels)
        ),
        np.float32,
    ).reshape(channels, levels)
    table = np.sort(table if own else table[:1], axis=1)
    scale, bias = data.draw(st.sampled_from([(1.0, 0.0), (2.0, -1.0), (-0.5, 3.0)]))
    node = helper.make_node(
        "MultiThreshold",
        ["x", "t"],
        ["y"],
        domain=DOMAIN,
        out_scale=scale,
        out_bias=bias,
        data_layout=layout,
    )
    x = np.random.default_rng(levels).integers(-9, 10, (2, channels, 4, 5)).astype(np.float32)
    wanted = theirs.multithreshold(x, table, scale, bias)
    if layout == "NHWC":
        got = quantiser(node, [None, table], 4).on(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    else:
        got = quantiser(node, [None, table], 4).on(x)
    assert (got == wanted).all()
