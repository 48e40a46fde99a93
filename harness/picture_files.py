"""Picture files: those in a folder, what each of them is, its pixels at a size by ADM's rule."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.errors import UserError

Size = tuple[int, int]
T = TypeVar("T")
R = TypeVar("R")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # whatever the file is called
LOSSY = ("JPEG", "MPO", "WEBP")  # MPO: a JPEG with further pictures behind it, as cameras write


class PictureError(UserError):
    """A set of images cannot be used; the message names the file and says what to do."""


def center_crop(picture: Image.Image, size: Size) -> Image.Image:
    """The middle of a picture at `size` (h, w), by the rule of ADM's reference batches.

    Halved with a box filter while both sides are at least twice the target's, then resized with
    bicubic weights so that it just covers the target, then the middle is cut out. For squares this
    is `center_crop_arr` of openai/guided-diffusion (`image_datasets.py`), pixel by pixel; for
    other shapes, which ADM does not have, the nearest thing to it. A picture smaller than the
    target is enlarged by the same rule.
    """
    height, width = size
    while picture.width >= 2 * width and picture.height >= 2 * height:
        half = (picture.width // 2, picture.height // 2)
        picture = picture.resize(half, Image.Resampling.BOX)
    scale = max(width / picture.width, height / picture.height)
    cover = (round(picture.width * scale), round(picture.height * scale))
    picture = picture.resize(cover, Image.Resampling.BICUBIC)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class Look:
    """What is to be known of a picture file before it is used."""

    sha256: str  # of the file
    size: Size  # (h, w)
    grey: bool
    lossy: bool


def look(path: Path, decode: bool = False) -> Look:
    """Read a picture's file and header, and its pixels where it could be transparent.

    Args:
        decode: all pixels are, so that a file that breaks off is found here and not in use.

    Raises:
        PictureError: it cannot be read, is no picture, is broken, has 16 bits or is transparent.
    """
    data = _read(path)
    with _open(path, data) as picture:
        depth_16 = picture.format == "PNG" and data[24] == 16  # IHDR; Pillow would drop 8 bits
        if depth_16 or picture.mode.startswith(("I", "F")):
            raise PictureError(
                f"{path}: has more than 8 bits a channel; convert it to 8 bits, the same way for "
                "all pictures"
            )
        if "transparency" in picture.info or picture.mode.upper() in ("LA", "PA", "RGBA"):
            try:
                opaque = picture.convert("RGBA").getchannel("A").getextrema()[0] == 255
            except Exception as error:
                raise _broken(path, error) from None
            if not opaque:
                raise PictureError(
                    f"{path}: is transparent in places; lay it over a colour of your choice first"
                )
        size = (picture.height, picture.width)
        if decode:
            _decode(path, picture)
        grey = picture.mode.upper() in ("1", "L", "LA")
        return Look(hashlib.sha256(data).hexdigest(), size, grey, picture.format in LOSSY)


def pixels(path: Path, sha256: str, mode: str, size: Size, crop: bool) -> NDArray[np.uint8]:
    """A picture as uint8 [h, w] (mode "L") or [h, w, 3] ("RGB"), by `center_crop` or as it is.

    Args:
        sha256: of the file, from `look`.

    Raises:
        PictureError: it cannot be read, or is another file than was looked at.
    """
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise PictureError(f"{path}: is another file than when it was looked at; start again")
    with _open(path, data) as picture:
        try:
            whole = picture.convert(mode)
        except Exception as error:  # Pillow raises what it comes upon: OSError, SyntaxError, ...
            raise _broken(path, error) from None
    return np.asarray(center_crop(whole, size) if crop else whole)


def _decode(path: Path, picture: Image.Image) -> None:
    picture.draft(picture.mode, (1, 1))  # a JPEG's bits are all read, its pixels made at an eighth
    try:
        picture.load()
    except Exception as error:
        raise _broken(path, error) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror}") from None


def _open(path: Path, data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise _broken(path, error) from None


def _broken(path: Path, error: Exception) -> PictureError:
    reason = "no picture" if isinstance(error, UnidentifiedImageError) else error
    return PictureError(f"{path}: is broken ({reason}); copy it again, or take it out")


def files(folder: Path) -> list[str]:
    """Relative paths of the pictures, sorted as text with '/' between folders; links are followed.

    A folder with two links to it is there twice; a link to a folder that it lies in is passed over.

    Raises:
        PictureError: no such folder, no pictures, or other files among them.
    """
    if not folder.is_dir():
        raise PictureError(f"{folder}: there is no such folder")
    found: list[str] = []
    others: list[str] = []
    above: dict[str, set[str]] = {str(folder): set()}  # the real folders on the way to each
    for place, folders, names in os.walk(folder, followlinks=True):
        way = above.pop(place) | {os.path.realpath(place)}
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(place, name)) not in way
        )
        above |= {os.path.join(place, name): way for name in folders}
        inside = Path(place).relative_to(folder).as_posix()
        for name in names:
            if not name.startswith("."):
                relative = name if inside == "." else f"{inside}/{name}"
                (found if name.lower().endswith(SUFFIXES) else others).append(relative)
    if others:
        raise PictureError(
            f"{folder}: has {len(others)} files that are not PNG, JPEG, WEBP or BMP, such as "
            f"{min(others)}; move them away"
        )
    if not found:
        raise PictureError(f"{folder}: has no pictures (PNG, JPEG, WEBP or BMP)")
    return sorted(found)


def ahead(names: Sequence[T], read: Callable[[T], R], block: int) -> Iterator[list[R]]:
    """Blocks of what `read` gives, the next one read by threads while the caller works on one."""
    pool = ThreadPoolExecutor(threads())
    waiting: deque[list[Future[R]]] = deque()
    try:
        for start in range(0, len(names), block):
            part = names[start : start + block]
            waiting.append([pool.submit(read, name) for name in part])
            if len(waiting) == 2:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def threads() -> int:
    """As many as there are cores for this process: Pillow leaves Python's lock while it works."""
    return len(os.sched_getaffinity(0))
