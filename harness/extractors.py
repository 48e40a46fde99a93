"""What is known of each feature extractor without loading it, and without torch.

Configuration, plans and reports name an extractor and the hash of its weights; `harness.features`
has the code that runs it.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, nearest

ASSETS = Path(__file__).resolve().parent / "assets"


class ExtractorError(UserError):
    """An extractor cannot be used as it stands; the message says what to do."""


@dataclass(frozen=True)
class Facts:
    """One extractor: its weights file, and the widths of what it returns."""

    weights: Path
    how_to_get: str  # the command or the page that makes or provides the weights
    features: int
    classes: int


FACTS = {
    "fashion-cnn": Facts(
        weights=ASSETS / "fashion-cnn.safetensors",
        how_to_get="python -m harness.fashion_cnn --output harness/assets/fashion-cnn.safetensors",
        features=64,
        classes=10,
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


def weights_sha256(name: str) -> str:
    """sha256 (hex) of the weights file of `name`, the part of a protocol that pins its features.

    Raises:
        ExtractorError: there is no such extractor, or its weights are not on this machine.
    """
    known = facts(name)
    try:
        status = known.weights.stat()
    except OSError as error:
        raise ExtractorError(
            f"the weights of {name} are not at {known.weights}; get them with: {known.how_to_get}"
        ) from error
    return _file_sha256(known.weights, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=16)
def _file_sha256(path: Path, _modified_ns: int, _size: int) -> str:
    # A plan asks once per cell; time and size in the key make a changed file read again.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
