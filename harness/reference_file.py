"""Reference statistics as a value and as a file: what real images look like to an extractor.

A file is safetensors with `facts` (JSON) in its metadata, or an .npz with `facts` as an array of
text; both hold the same arrays. An .npz for the field's own extractor names them `mu`, `sigma`,
`mu_s`, `sigma_s` and has the manifold's images as `arr_0`, so that ADM's evaluator reads it too.
A reference that does not fit the extractor, its weights or this code is refused.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from harness import extractors
from harness.errors import UserError, got, short
from harness.files import Json, write_atomic
from harness.identity import digest
from harness.npz import NpzWriter
from harness.npz_arrays import (
    IMAGES,
    NpzError,
    check_moments,
    keys_of,
    no_such_file,
    read_arrays,
    write_arrays,
)
from harness.pictures import ImageSet
from harness.provenance import seeing_id

Array = NDArray[np.float64]

FORMAT = 1  # of the file; one with a larger number is refused
VIEWS = ("features", "spatial", "patch")  # what a mean and a covariance are kept of


class _Facts(BaseModel):
    """What the facts of every file have; what images say of themselves comes on top."""

    model_config = ConfigDict(strict=True, extra="allow")

    format: int
    source: str
    digest: str
    resolution: tuple[PositiveInt, PositiveInt]
    channels: PositiveInt
    images: PositiveInt
    manifold: NonNegativeInt
    patch: PositiveInt | None
    extractor: str
    extractor_sha256: str
    features_code: str
    counts: dict[Literal["features", "spatial", "patch"], PositiveInt | None]
    sha256: str  # of facts and arrays: safetensors has no checksum of its own


# How ADM's evaluator calls the statistics of the field's own extractor.
_ADM = {
    "mean.features": "mu",
    "covariance.features": "sigma",
    "mean.spatial": "mu_s",
    "covariance.spatial": "sigma_s",
}


class WrongReferenceError(UserError):
    """A reference cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Reference:
    """Real images as an extractor sees them; everything that a metric needs of them.

    Args:
        extractor: its name.
        facts: JSON: format, source, digest, resolution [h, w], channels, images (their count),
            manifold (M), patch (side or None), extractor, extractor_sha256, features_code, and
            what the set of images said of itself (crop, upsampled, lossy).
        mean: float64 [D] of each view that there is: `features`, `spatial`, `patch`.
        covariance: float64 [D, D] of each view, divided by count - 1.
        counts: images behind each view; None where the maker of the statistics did not say.
        manifold: float32 [M, D], `features` of M of the images, or None.
        radii: k -> float64 [M], distance of each to its k-th nearest other in the manifold.
    """

    extractor: str
    facts: Json
    mean: Mapping[str, Array]
    covariance: Mapping[str, Array]
    counts: Mapping[str, int | None]
    manifold: torch.Tensor | None
    radii: Mapping[int, Array] = field(default_factory=dict)


def save(reference: Reference, path: Path, images: ImageSet | None = None) -> None:
    """Write `path`, .safetensors or .npz by its ending; it appears when it is whole.

    The bytes are a function of the reference alone. With `images` (the set it was built of) an
    .npz of the field's own extractor also gets the manifold's images, as ADM's evaluator needs.

    Raises:
        WrongReferenceError: another ending.
    """
    arrays = _arrays(reference)
    known = reference.facts | {"counts": dict(reference.counts)}
    facts = json.dumps(known | {"sha256": sha256_of(known, arrays)}, sort_keys=True)
    if path.suffix == ".safetensors":
        write_atomic(path, to_safetensors(arrays, metadata={"facts": facts}))
    elif path.suffix == ".npz":
        standard = reference.extractor == extractors.STANDARD
        named = {_ADM.get(name, name) if standard else name: arrays[name] for name in arrays}
        named["facts"] = np.array(facts)
        if standard and images is not None and reference.manifold is not None:
            rows = images.drawn(len(reference.manifold))
            writer = NpzWriter(path, len(rows), images.size, images.channels, named)
            with writer:
                for block in images.only(rows):
                    writer.write(block)
        else:
            write_arrays(path, named)
    else:
        raise WrongReferenceError(
            f"{path}: a reference ends in .safetensors or .npz, not {path.suffix or 'in nothing'}"
        )


def load(path: Path, extractor: str) -> Reference:
    """The reference in `path`, for `extractor` as it is on this machine.

    Raises:
        WrongReferenceError: it is missing, damaged, of a newer format, of another extractor, of
            other weights, or of other code than this.
        extractors.ExtractorError: the weights of `extractor` are not on this machine.
    """
    found = read(path)
    sides = "x".join(map(str, found.facts["resolution"]))
    again = f"build one with python -m harness.reference --extractors {extractor} (see --help)"
    if found.extractor != extractor:
        raise WrongReferenceError(
            f"{path}: holds features of {found.extractor}, asked for {extractor}; give one of "
            f"{extractor}, or {again}"
        )
    weights = extractors.weights_sha256(extractor)
    if found.facts["extractor_sha256"] != weights:
        raise WrongReferenceError(
            f"{path}: was made with other weights of {extractor} (sha256 "
            f"{found.facts['extractor_sha256'][:16]}..., here {weights[:16]}...); use the "
            f"same weights, or {again}"
        )
    if found.facts["features_code"] != seeing_id():
        raise WrongReferenceError(
            f"{path}: is stale: the code that makes features was another "
            f"({found.facts['features_code']}, here {seeing_id()}); {again}, of the same "
            f"images ({found.facts['source']}, {sides})"
        )
    return found


def read(path: Path) -> Reference:
    """The reference in `path`, whatever its extractor; its shapes and values are checked.

    Raises:
        WrongReferenceError: it is missing, damaged, or of a newer format.
    """
    facts, arrays = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    if facts["extractor"] not in extractors.FACTS:
        raise WrongReferenceError(
            f"{path}: holds features of {got(facts['extractor'])}; there are: "
            f"{', '.join(extractors.FACTS)}"
        )
    return _checked(path, facts, arrays)


def is_reference(path: Path) -> bool:
    """Whether `path` is a file that `save` wrote, and not a batch of images.

    Raises:
        NpzError: an .npz that is missing or damaged.
    """
    return path.suffix == ".safetensors" or "facts" in keys_of(path)


def cached(folder: Path, facts: Json, build: Callable[[], Reference]) -> Reference:
    """The reference of these facts (`reference.facts_of`) from `folder`, or built and put there.

    A file that is damaged, stale or, whatever its name, of other facts is made again.
    """
    file = folder / f"{digest(facts)}.safetensors"
    with contextlib.suppress(WrongReferenceError):
        found = load(file, facts["extractor"])
        if found.facts == facts:
            return found
    made = build()
    save(made, file)
    return made


# The arrays of a file are named after the fields of a Reference, with the view or k behind a dot.
def _arrays(reference: Reference) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for view in reference.mean:
        arrays[f"mean.{view}"] = reference.mean[view]
        arrays[f"covariance.{view}"] = reference.covariance[view]
    if reference.manifold is not None:
        arrays["manifold"] = reference.manifold.numpy()
    for k, radii in reference.radii.items():
        arrays[f"radii.{k}"] = radii
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def sha256_of(facts: Json, arrays: Mapping[str, NDArray[Any]]) -> str:
    """sha256 (hex) over the facts, and names, types, shapes and values in the order of names."""
    total = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        total.update(arrays[name].data)
    return total.hexdigest()


def _read_safetensors(path: Path) -> tuple[Json, dict[str, NDArray[Any]]]:
    try:
        with safe_open(path, "numpy") as file:
            facts = _facts(path, (file.metadata() or {}).get("facts"))
            return facts, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise WrongReferenceError(no_such_file(path)) from None
    except OSError as error:
        raise WrongReferenceError(f"{path}: cannot be read: {error}") from None
    except (SafetensorError, TypeError, AttributeError) as error:  # a type that NumPy has not
        raise _damaged(path, str(error)) from None


def _read_npz(path: Path) -> tuple[Json, dict[str, NDArray[Any]]]:
    try:
        keys = keys_of(path)
        facts = _facts(
            path, str(read_arrays(path, ["facts"])["facts"]) if "facts" in keys else None
        )
        named = {adm: name for name, adm in _ADM.items()}
        wanted = [key for key in keys if key not in ("facts", IMAGES)]
        found = read_arrays(path, wanted)
        return facts, {named.get(key, key): array for key, array in found.items()}
    except NpzError as error:
        raise WrongReferenceError(str(error)) from None


def _facts(path: Path, text: str | None) -> Json:
    if text is None:
        raise WrongReferenceError(
            f"{path}: is no reference (it has no facts); build one with python -m "
            "harness.reference, or give ADM's batch as an .npz with arr_0"
        )
    try:
        facts: Json = json.loads(text)
        newer = facts.get("format") if isinstance(facts, dict) else None
        if isinstance(newer, int) and newer > FORMAT:
            raise WrongReferenceError(
                f"{path}: was written by a newer version (format {newer}, this one reads up to "
                f"{FORMAT}); update this checkout, or build it again"
            )
        _Facts.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "facts"
        raise _damaged(path, f"{place}: {first['msg']}, got {got(first['input'])}") from None
    except (ValueError, RecursionError):
        raise _damaged(path, "its facts are no JSON") from None
    return facts


def _checked(path: Path, facts: Json, arrays: dict[str, NDArray[Any]]) -> Reference:
    """The reference of these arrays, if they are what its facts and its extractor say."""
    known = extractors.facts(facts["extractor"])
    widths = {"features": known.features, "spatial": known.spatial, "patch": known.features}
    side = facts["patch"]
    sound = (side is None) == ("patch" not in facts["counts"])
    if "features" not in facts["counts"] or not sound or (side or 0) > min(facts["resolution"]):
        raise _damaged(path, "its facts contradict each other")
    if facts.pop("sha256") != sha256_of(facts, arrays):
        raise _damaged(path, "its facts or arrays are not those that were written")
    mean: dict[str, Array] = {}
    covariance: dict[str, Array] = {}
    radii: dict[int, Array] = {}
    manifold: torch.Tensor | None = None
    try:
        for view, width in widths.items():
            if view in facts["counts"]:
                mean[view], covariance[view] = (
                    arrays.pop(f"{what}.{view}") for what in ("mean", "covariance")
                )
                _expect(mean[view], np.float64, (width,), f"mean.{view}")
                _expect(covariance[view], np.float64, (width, width), f"covariance.{view}")
                check_moments(mean[view], covariance[view])
        if facts["manifold"]:
            rows = arrays.pop("manifold")
            _expect(rows, np.float32, (facts["manifold"], known.features), "manifold")
            manifold = torch.from_numpy(rows)
            for name in [name for name in arrays if name.startswith("radii.")]:
                k = int(name.removeprefix("radii."))
                radii[k] = arrays.pop(name)
                _expect(radii[k], np.float64, (len(rows),), name)
    except KeyError as error:
        raise _damaged(path, f"it has no {error.args[0]}") from None
    except (TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from None
    if arrays:
        raise _damaged(path, f"it holds arrays that its facts do not name: {', '.join(arrays)}")
    counts = facts.pop("counts")
    return Reference(facts["extractor"], facts, mean, covariance, counts, manifold, radii)


def _expect(array: NDArray[Any], dtype: type, shape: tuple[int, ...], name: str) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} {list(shape)}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")


def _damaged(path: Path, reason: str) -> WrongReferenceError:
    return WrongReferenceError(
        f"{path}: is damaged ({short(reason)}); delete it and build it again, or copy it again"
    )
