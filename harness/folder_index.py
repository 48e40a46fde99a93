"""The index of a folder of pictures: what its files were when `python -m harness.folder` read them.

It lies in `indexes` of the data folder, named by a hash of the folder's path, in two files: a small
header, which is all that a plan reads, and the list of the files. A folder with other files than
that is refused when it is opened, another picture when it is decoded.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.facts import DatasetError, Facts, data_folder
from harness.files import write_atomic, write_json
from harness.picture_files import PictureError, files, pixels

FORMAT = 2
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Header:
    """What an index says of a folder, but for its files.

    Args:
        facts: digest, counts and so on; side is the largest shorter side among the pictures.
        names: of the classes, in the order of their labels.
        sizes: int64 [K, 3], (h, w, how many pictures have that size), sorted.
    """

    facts: Facts
    names: list[str]
    sizes: NDArray[np.int64]

    def smaller_than(self, size: tuple[int, int]) -> float:
        """Share of the pictures with a side below that of `size` (h, w)."""
        heights, widths, counts = self.sizes.T
        return float(counts[(heights < size[0]) | (widths < size[1])].sum() / counts.sum())


@dataclass(frozen=True)
class Files:
    """The pictures of one split, sorted by name.

    Args:
        names: paths relative to the folder.
        sha256: hex, of each file.
        stamps: (bytes, time of change in ns) of each file.
        labels: of each, 0 .. classes - 1.
    """

    names: list[str]
    sha256: list[str]
    stamps: list[list[int]]
    labels: list[int]


def path_of(folder: str | None) -> Path:
    """`data.folder` as an absolute path.

    Raises:
        DatasetError: there is none.
    """
    if folder is None:
        raise DatasetError("data.name image_folder needs data.folder: the folder of its pictures")
    return Path(folder).expanduser().resolve()


def pictures(count: int) -> str:
    """So many pictures, in words."""
    return f"{count:,} picture{'s' * (count != 1)}"


def command(folder: Path) -> str:
    """What indexes a folder."""
    return f"python -m harness.folder {folder}"


def file_of(folder: Path) -> Path:
    """Where the header of a folder's index is kept."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return data_folder() / "indexes" / f"{name}.json"


def write(folder: Path, places: list[str], header: Header, splits: dict[str, Files]) -> Path:
    """Write an index; the file of its header, which appears last.

    Args:
        folder: absolute.
        places: the subfolders that were searched, or "." alone.
        splits: "train" and "test".
    """
    file = file_of(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    both = {"format": FORMAT, "folder": str(folder), "digest": header.facts.digest}
    listed = {split: asdict(splits[split]) for split in SPLITS}
    # On one line, because there can be a million of them.
    content = json.dumps(both | {"places": places, "splits": listed})
    write_atomic(file.with_suffix(".files.json"), content)
    # As text: a plan reads this, and numpy is many times as fast with it as JSON is with lists.
    sizes = " ".join(map(str, header.sizes.ravel().tolist()))
    write_json(file, both | {"facts": asdict(header.facts), "names": header.names, "sizes": sizes})
    return file


def header(folder: Path) -> Header:
    """The header of a folder's index; the folder itself is not looked at.

    Raises:
        DatasetError: there is no index, or not a whole one.
    """
    file = file_of(folder)
    try:
        status = file.stat()
    except FileNotFoundError:
        raise DatasetError(f"{folder} has no index yet; make it with: {command(folder)}") from None
    return _header(folder, file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)  # a plan asks once a cell; time and size make a new index read again
def _header(folder: Path, file: Path, _modified_ns: int, _size: int) -> Header:
    found = _json(folder, file)
    sizes = np.fromstring(found["sizes"], np.int64, sep=" ").reshape(-1, 3)
    return Header(Facts(**found["facts"]), found["names"], sizes)


def open_files(folder: Path) -> dict[str, Files]:
    """The files of both splits, "train" and "test", after a look whether they are still those.

    Raises:
        DatasetError: there is no whole index, or files were added, taken away or changed.
    """
    known = header(folder)
    found = _json(folder, file_of(folder).with_suffix(".files.json"))
    if found["digest"] != known.facts.digest:
        raise DatasetError(f"the index of {folder} is not whole; make it again: {command(folder)}")
    splits = {split: Files(**found["splits"][split]) for split in SPLITS}
    _compare(folder, found["places"], splits)
    return splits


def _json(folder: Path, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
        if (found["format"], found["folder"]) != (FORMAT, str(folder)):
            raise ValueError("it is of another format or folder")
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{file} is no usable index ({error}); make it again: {command(folder)}"
        ) from None


def listed(folder: Path, place: str) -> list[str]:
    """The pictures in a subfolder ("." for none), sorted, relative to `folder`.

    Raises:
        DatasetError: no such folder, no pictures, or other files among them.
    """
    try:
        names = files(folder / place)
    except PictureError as error:
        raise DatasetError(str(error)) from None
    return names if place == "." else [f"{place}/{name}" for name in names]


def stamp(path: Path) -> list[int]:
    """Size in bytes and time of the last change in ns, by which a changed file is noticed.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    return [status.st_size, status.st_mtime_ns]


def _compare(folder: Path, places: list[str], splits: dict[str, Files]) -> None:
    meant = f"; if that is meant, index it again: {command(folder)}"
    there = {name for place in places for name in listed(folder, place)}
    known = {name for split in splits.values() for name in split.names}
    if there != known:
        such = f"{min(there - known)} is new" if there - known else f"{min(known - there)} is gone"
        raise DatasetError(
            f"{folder} has {pictures(len(there))}, its index {len(known):,} ({such}){meant}"
        )
    for split in splits.values():
        for name, before in zip(split.names, split.stamps, strict=True):
            if stamp(folder / name) != before:
                raise DatasetError(f"{folder / name} was changed since it was indexed{meant}")


def picture(path: Path, sha256: str, mode: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture at `size` (h, w) by ADM's centre crop, uint8 [h, w] ("L") or [h, w, 3] ("RGB").

    Raises:
        DatasetError: it cannot be read, or is not the file that was indexed.
    """
    try:
        return pixels(path, sha256, mode, size, crop=True)
    except PictureError as error:
        raise DatasetError(str(error)) from None
