# SPDX-License-Identifier: BSD-2-Clause
"""New weights into a finished bitstream, without place and route.

    bundle with its build --+--> routed result --> memories filled anew --> packer --> bitstream
    another model ----------+--> a bundle of its own, on the same plan

Needs a bundle that was compiled patchable: nothing but the words of its block RAMs depends on the
model (`gen.memory_contents`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xnorforge.gen.build import build
from xnorforge.gen.build_cache import sha256
from xnorforge.gen.build_result import BuildResult, read_result
from xnorforge.gen.bundle import Bundle, check_output, compile_bundle
from xnorforge.gen.errors import BundleError
from xnorforge.gen.exchange import fitting, load_like
from xnorforge.gen.network import Network
from xnorforge.gen.tools import Progress

__all__ = ["patch"]


def patch(
    bundle: Bundle | str | Path,
    model: Network | str | Path,
    out: str | Path,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> BuildResult:
    """Write the bundle of another model on a built bundle's plan, its bitstream included.

    model: a network, or a file that `gen.load` reads, with `options` as there; what they leave
    open is as the bundle's own model was read. out: the bundle to make, as of `compile_bundle`.
    The bitstream is the one that `build` would make of `out` with the same placement seed.

    Raises BundleError for a bundle that is not patchable or not built, ModelError for a model that
    differs in more than numbers, ToolError when a tool fails.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    check_output(out)
    if Path(out).resolve() == bundle.path.resolve():
        raise BundleError(f"{bundle.path} cannot be patched into itself: name another folder")
    routed = _finished(bundle)
    if not isinstance(model, Network):
        network = fitting(load_like(model, bundle, **options), bundle, name=str(model))
    else:
        network = fitting(model, bundle)
    patched = compile_bundle(network, bundle.plan, out, progress)
    return build(patched, routed=routed, progress=progress)


def _finished(bundle: Bundle) -> BuildResult:
    """The bundle's build, whose memories can be filled anew."""
    in_spram = [item["name"] for item in bundle.manifest["memories"] if item["kind"] == "spram"]
    if in_spram:
        raise BundleError(
            f"{bundle.path}: {in_spram[0]} lies in SPRAM, which no bitstream fills: load the "
            "weights through the driver (xnorforge load)"
        )
    if not bundle.plan.patchable:
        raise BundleError(
            f"{bundle.path} was not compiled to be patched: compile it with --patchable and build "
            "it, or load the weights through the driver (xnorforge load)"
        )
    result = read_result(bundle.results / "build")
    if result is None or sha256(result.folder / "accelerator.v") != sha256(
        bundle.path / "accelerator.v"
    ):
        raise BundleError(f"{bundle.path} has no finished bitstream: build it first")
    return result
