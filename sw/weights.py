# SPDX-License-Identifier: BSD-2-Clause
"""What `load_weights` takes: bytes, a weights.bin, another bundle, or a model file.

The first three need nothing but the driver. A model file is laid out by the compiler part
(`xnorforge.gen`), imported when the first one comes.
"""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from xnorforge.sw.errors import BundleMismatchError, WeightsError
from xnorforge.sw.manifest import ImageContract, Manifest, Ranking, check_load

__all__ = ["check_size", "find_weights"]


def find_weights(
    source: bytes | str | Path, manifest: Manifest, options: dict[str, Any]
) -> tuple[bytes, Manifest]:
    """A weight load and the manifest as it is with these weights.

    source: the bytes or path of a weights.bin, the path of a bundle, or of a model file or
    folder. manifest: of the board's bundle. options: of `gen.load`, for model files.

    Raises WeightsError, BundleMismatchError, ManifestError.
    """
    path = Path("weights.bin" if isinstance(source, bytes) else source)
    is_bundle = (path / "manifest.json").is_file()
    if options and (is_bundle or path.suffix == ".bin"):
        raise WeightsError(
            f"{path} is no model: leave out {', '.join(options)}, which say how to read one"
        )
    if isinstance(source, bytes):
        return source, _without_model(manifest, check_load(source), path.name)
    if is_bundle:
        other = Manifest.read(path)
        if other.plan_hash != manifest.plan_hash:
            raise BundleMismatchError(
                f"{path} has plan {other.plan_hash:08x}, the board has "
                f"{manifest.plan_hash:08x}: build and program that bundle instead"
            )
        return other.weights(), replace(
            manifest,
            name=other.name,
            weights_digest=other.weights_digest,
            image=other.image,
            ranking=other.ranking,
        )
    if path.suffix == ".bin":
        try:
            load = path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error.strerror})") from error
        return load, _without_model(manifest, check_load(load, str(path)), path.name)
    if not path.exists():
        raise WeightsError(f"{path} does not exist: give a model, a bundle or a weights.bin")
    return _from_model(path, manifest, options)


def check_size(load: bytes, own: bytes) -> None:
    """Raises WeightsError for a load of another size than the bundle's own."""
    if len(load) != len(own):
        raise WeightsError(
            f"These weights have {len(load)} bytes, the board's plan takes {len(own)}: they "
            "belong to another plan"
        )


def _without_model(manifest: Manifest, digest: int, name: str) -> Manifest:
    """Weights alone do not tell how their model takes its images and compares its classes."""
    if digest == manifest.weights_digest:
        return manifest
    ranking = replace(manifest.ranking, known=manifest.ranking.scale is None)
    return replace(manifest, name=name, weights_digest=digest, ranking=ranking)


def _from_model(path: Path, manifest: Manifest, options: dict[str, Any]) -> tuple[bytes, Manifest]:
    try:
        # By name: the driver is whole without the compiler part.
        exchange = importlib.import_module("xnorforge.gen.exchange")
        errors = importlib.import_module("xnorforge.gen.errors")
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{path} is a model, and laying it out needs the compiler part, where {error.name} is "
            "missing: pip install xnorforge, or load a weights.bin"
        ) from error
    try:
        found = exchange.model_weights(path, manifest.path, **options)
    except errors.UserError as error:
        raise WeightsError(str(error)) from error
    return found.load, replace(
        manifest,
        name=found.name,
        weights_digest=check_load(found.load),
        image=ImageContract.from_json(found.input),
        ranking=Ranking.from_json(found.output),
    )
