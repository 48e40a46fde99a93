"""What is known of each feature extractor without loading it, and without torch.

    python -m harness.extractors          # which there are, and where their weights lie
    python -m harness.extractors NAME     # download the weights of one

Configuration, plans and reports name an extractor and the hash of its weights; `harness.features`
has the code that runs it. Weights that do not ship with the project are looked for, in this order:
in the file that the extractor's environment variable names, in the folder of `weights_folder()`,
and in torch hub's folder, where torch-fidelity leaves its own download.
"""

import argparse
import contextlib
import functools
import hashlib
import os
import sys
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from harness.errors import UserError, nearest

ASSETS = Path(__file__).resolve().parent / "assets"
TIMEOUT = 60  # seconds without a byte, after which a download is given up
CHUNK = 1 << 20  # bytes of a download read at once

KINDS = (
    "fid", "patch-fid", "sfid", "is", "precision", "recall", "kid", "density", "coverage",
    "fid-infinity", "patch-fid-infinity",
)  # fmt: skip
STANDARD = "inception-v3-compat"  # the field's own: its metrics need no name beside them


class ExtractorError(UserError):
    """An extractor cannot be used as it stands; the message says what to do."""


class MissingWeightsError(ExtractorError):
    """The weights lie nowhere on this machine, and nobody said where they are."""


@dataclass(frozen=True)
class Facts:
    """One extractor: where its weights come from, and the widths of what it returns."""

    weights: Path | None  # the file that ships with the project, or None
    variable: str | None  # the environment variable that names a file elsewhere
    file_name: str  # what the file is called in the folder of weights, and by its publisher
    url: str | None
    sha256: str | None  # of the file, whole or its first digits; None where nobody publishes one
    features: int
    classes: int  # width of the logits; 0: it has none
    spatial: int  # width of the flattened spatial map; 0: it has none
    side: int  # the square, in pixels, that it resizes every image to
    data: str | None = None  # the one data set that it was trained on, if it knows no other


FACTS = {
    "fashion-cnn": Facts(
        weights=ASSETS / "fashion-cnn.safetensors",
        variable=None,
        file_name="fashion-cnn.safetensors",
        url=None,
        sha256=None,  # another machine trains other weights of like accuracy
        features=64,
        classes=10,
        spatial=448,
        side=32,
        data="fashion_mnist",
    ),
    "glyph-cnn": Facts(
        weights=ASSETS / "glyph-cnn.safetensors",
        variable=None,
        file_name="glyph-cnn.safetensors",
        url=None,
        sha256=None,
        features=64,
        classes=44,
        spatial=448,
        side=32,
        data="glyphs",
    ),
    "inception-v3-compat": Facts(
        weights=None,
        variable="RESOLUTE_INCEPTION_WEIGHTS",
        file_name="weights-inception-2015-12-05-6726825d.pth",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d",  # torch hub's rule: the name ends with the hash's first digits
        features=2048,
        classes=1008,
        spatial=2023,
        side=299,
    ),
    "dinov2": Facts(
        weights=None,
        variable="RESOLUTE_DINOV2_WEIGHTS",
        file_name="dinov2_vitl14_pretrain.pth",
        url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        sha256=None,  # Meta publishes none: it is recorded with each result, not checked
        features=1024,
        classes=0,
        spatial=0,
        side=224,
    ),
}


def facts(name: str) -> Facts:
    """The facts of the extractor `name`.

    Raises:
        ExtractorError: there is no such extractor.
    """
    if name not in FACTS:
        raise ExtractorError(
            f"no feature extractor {name!r}; there are: {', '.join(FACTS)}{nearest(name, FACTS)}"
        )
    return FACTS[name]


def kinds_of(name: str) -> tuple[str, ...]:
    """The kinds of metric that `name` can give: no `is` without logits, no `sfid` without a map."""
    known = facts(name)
    lacking = {"is": not known.classes, "sfid": not known.spatial}
    return tuple(kind for kind in KINDS if not lacking.get(kind, False))


def metric_name(kind: str, extractor: str) -> str:
    """What a metric is called: `fid` alone is the Inception FID, others name their extractor."""
    return kind if extractor == STANDARD else f"{kind}.{extractor}"


def patch_side(name: str, resolution: tuple[int, int]) -> int:
    """The default side, in pixels, of the crops of patch metrics of `name` at `resolution`.

    Half of the shorter side, so that a crop shows less than the whole image, and never more than
    the extractor's own input, so that no crop is shrunk: what it shows is seen in full detail.
    """
    return max(1, min(facts(name).side, min(resolution) // 2))


def weights_folder() -> Path:
    """Where downloaded weights are kept: $RESOLUTE_WEIGHTS, or ~/.cache/resolute."""
    return Path(os.environ.get("RESOLUTE_WEIGHTS") or "~/.cache/resolute").expanduser().absolute()


def _torch_hub_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser().absolute() / "hub" / "checkpoints"


def weights_file(name: str) -> Path:
    """The weights file of `name` on this machine; its content is not looked at.

    Raises:
        ExtractorError: there is no such extractor, or its weights are not on this machine; the
            message says which file, from where, and where to put it.
    """
    known = facts(name)
    if known.weights:
        if not os.path.isfile(known.weights):
            raise ExtractorError(
                f"the weights of {name} are not at {known.weights}; {remedy(name)}"
            )
        return known.weights
    if named := _named(known):
        if not os.path.isfile(named):
            raise ExtractorError(
                f"{known.variable} says that the weights of {name} are at {named}, but there is no "
                f"such file; set it to where {known.file_name} is, or unset it"
            )
        return named
    for folder in (weights_folder(), _torch_hub_folder()):
        if os.path.isfile(folder / known.file_name):
            return folder / known.file_name
    raise MissingWeightsError(f"the weights of {name} are not on this machine; {remedy(name)}")


def _named(known: Facts) -> Path | None:
    named = known.variable and os.environ.get(known.variable)
    return Path(named).expanduser().absolute() if named else None


def remedy(name: str) -> str:
    """What to do, in words, where the weights of `name` are missing or wrong."""
    known = facts(name)
    if known.weights:
        data = {"fashion-cnn": "fashion_mnist", "glyph-cnn": "glyphs"}[name]
        return (
            "they ship with the project: restore the file from there, or make new ones with "
            f"python -m harness.small_cnn --data {data} --output {known.weights}"
        )
    return (
        f"python -m harness.extractors {name} downloads them, or get {known.file_name} from "
        f"{known.url} and put it into {weights_folder()}, or set {known.variable} to where it is"
    )


def use_weights(said: str) -> None:
    """Take the weights of an extractor from a file, as `NAME=FILE` on a command line says.

    Raises:
        ExtractorError: no such extractor, nothing after it, or one whose weights ship.
    """
    name, _, file = said.partition("=")
    variable = facts(name).variable
    if not file or variable is None:
        free = ", ".join(known for known, its in FACTS.items() if its.variable)
        raise ExtractorError(f"--weights {said}: expected NAME=FILE, with a NAME of {free}")
    os.environ[variable] = file


def weights_sha256(name: str) -> str:
    """sha256 (hex) of the weights file of `name`, the part of a protocol that pins its features.

    Raises:
        ExtractorError: there is no such extractor, its weights are not on this machine, or the
            file is another than the published one.
    """
    known, path = facts(name), weights_file(name)
    try:
        status = path.stat()
        found = _file_sha256(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ExtractorError(f"the weights of {name} cannot be read: {error}") from error
    if not found.startswith(known.sha256 or ""):
        raise ExtractorError(
            f"{path} is not the published file: its sha256 is {found}, where {known.sha256}... "
            f"is expected; it may be cut short, so remove it and get it again: {remedy(name)}"
        )
    return found


@functools.lru_cache(maxsize=16)
def _file_sha256(path: Path, _modified_ns: int, _size: int) -> str:
    # A plan asks once per cell; time and size in the key make a changed file read again.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def obtain(name: str) -> Path:
    """The weights file of `name`, checked, and downloaded first where it is missing or wrong.

    Raises:
        ExtractorError: no such extractor; the download failed or brought another file, and then
            nothing is left of it; or a wrong file stands where a download could not replace it.
    """
    known = facts(name)
    try:
        weights_sha256(name)
    except ExtractorError:
        # The shipped file, and the one that a variable names, are the user's to mend.
        if known.url is None or _named(known):
            raise
        _download(known, weights_folder() / known.file_name)
        weights_sha256(name)
    return weights_file(name)


def _download(known: Facts, destination: Path) -> None:
    from rich.console import Console
    from rich.progress import wrap_file

    assert known.url is not None
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    digest, written = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(known.url, timeout=TIMEOUT) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            destination.parent.mkdir(parents=True, exist_ok=True)
            console = Console(stderr=True)
            with (
                partial.open("wb") as to,
                wrap_file(answer, size, description=destination.name, console=console) as source,
            ):
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    written += to.write(chunk)
                to.flush()
                os.fsync(to.fileno())
        if written < size:  # a connection that closes early ends the reading without an error
            raise OSError(f"it broke off after {written} of {size} bytes")
        if not digest.hexdigest().startswith(known.sha256 or ""):
            raise OSError(
                f"what came has the sha256 {digest.hexdigest()}, expected was {known.sha256}..."
            )
        partial.replace(destination)
    except (OSError, HTTPException) as error:
        raise ExtractorError(
            f"could not download {known.url}: {error}; get {known.file_name} by another way and "
            f"put it into {destination.parent}, or set {known.variable} to where it is"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def main(arguments: list[str] | None = None) -> int:
    """List the extractors, or get the weights of one; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.extractors",
        description="Which feature extractors there are and where their weights lie; with NAME, "
        "download the weights of that one where they are missing.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"one of {', '.join(FACTS)}")
    options = parser.parse_args(arguments)
    try:
        if options.name:
            path = obtain(options.name)
            print(f"{path}\nsha256 {weights_sha256(options.name)}")
            return 0
    except ExtractorError as error:
        print(error, file=sys.stderr)
        return 2
    for name, known in FACTS.items():
        print(f"{name}: {', '.join(kinds_of(name))}")
        print(f"  {known.features} features, images are seen at {known.side}x{known.side}")
        try:
            print(f"  {weights_file(name)}\n  sha256 {weights_sha256(name)}")
        except ExtractorError as error:
            print(f"  not usable: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
