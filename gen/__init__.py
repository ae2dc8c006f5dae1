# SPDX-License-Identifier: BSD-2-Clause
"""From a trained model to Verilog and bitstreams: `load` is where it starts."""

from xnorforge.gen.load import load

__all__ = ["load"]
