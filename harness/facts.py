"""What is known of a data set without reading it, and what is said where it cannot be used."""

import os
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError

NAMES = ("fashion_mnist", "glyphs", "image_folder")


class DatasetError(UserError):
    """A data set is missing, damaged or changed; the message says what to do."""


@dataclass(frozen=True)
class Facts:
    """One data set.

    Args:
        digest: hex, a function of its content.
        side: largest size in pixels that is trained at or that has references without enlarging.
        training: images.
        held_out: images.
        channels: 1 or 3.
        classes: their labels are 0 .. classes - 1.
        lossy: share of the images that are JPEG or WEBP.
    """

    digest: str
    side: int
    training: int
    held_out: int
    channels: int
    classes: int
    lossy: float = 0.0


def data_folder() -> Path:
    """Where what the harness keeps about data sets lies: $RESOLUTE_DATA, or the project's data."""
    given = os.environ.get("RESOLUTE_DATA")
    return Path(given).absolute() if given else Path(__file__).resolve().parent.parent / "data"
