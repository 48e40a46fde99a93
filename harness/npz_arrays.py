"""Arrays in an .npz (a zip), read with distrust: nothing is unpickled, every fault is told.

Whatever is wrong with a file becomes an NpzError that names the file and says what to do.
"""

import functools
import hashlib
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.errors import UserError, nearest, short
from harness.files import check_target

IMAGES = "arr_0"  # the name that np.savez gives to the first array
_WIDEST = 16_384  # features of a stored covariance: 2 GiB in float64
_AGAIN = "copy or download it again"


class NpzError(UserError):
    """A file of images or statistics cannot be used; the message says why and what to do."""


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`; whatever reading it raises becomes an NpzError that names it."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile:
                raise NpzError(_not_a_zip(path, start)) from None
            with archive:
                yield archive
    except FileNotFoundError:
        raise NpzError(no_such_file(path)) from None
    except IsADirectoryError:
        raise NpzError(f"{path}: is a folder, expected an .npz file") from None
    except OSError as error:
        raise NpzError(f"{path}: cannot be read: {error.strerror or error}; {_AGAIN}") from None
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error,
        EOFError, RuntimeError, ValueError, OverflowError,
    ) as error:  # fmt: skip
        reason = short(str(error)) or "it ends too early"
        raise NpzError(f"{path}: is damaged ({reason}); {_AGAIN}") from None


@contextmanager
def array(
    path: Path, archive: zipfile.ZipFile, name: str
) -> Iterator[tuple[tuple[int, ...], np.dtype[Any], IO[bytes]]]:
    """Shape and type of an array of the zip, and its stream at the first value.

    Raises:
        NpzError: it is not there, holds Python objects, or is longer or shorter than it says.
    """
    keys = [key.removesuffix(".npy") for key in archive.namelist()]
    if f"{name}.npy" not in archive.namelist():
        there = ", ".join(keys[:10]) or "nothing"
        raise NpzError(
            f"{path}: has no {name}; there are: {short(there)}{nearest(name, keys)}. Images are "
            f"read from {IMAGES}, as np.savez(path, images) writes them"
        )
    with archive.open(f"{name}.npy") as stream:
        version = npy.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(stream)
        else:
            raise NpzError(f"{path}: {name} has npy version {version}, expected (1, 0) or (2, 0)")
        if dtype.hasobject:
            raise NpzError(
                f"{path}: {name} holds Python objects (a pickle), which are never read because "
                "that can run code; save plain numbers, images as uint8 [N, H, W, 3]"
            )
        if fortran and len(shape) > 1:
            raise NpzError(f"{path}: {name} is in Fortran order; save np.ascontiguousarray({name})")
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
        size = archive.getinfo(f"{name}.npy").file_size
        if size != expected or any(side < 0 for side in shape):
            raise NpzError(
                f"{path}: is damaged: {name} of shape {list(shape)} should take {expected:,} "
                f"bytes, got {size:,}; {_AGAIN}"
            )
        yield shape, dtype, stream


def take(stream: IO[bytes], size: int) -> bytes:
    """The next `size` bytes; EOFError where there are fewer (inside `opened`: an NpzError)."""
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it ends too early")
    return data


def read_arrays(path: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    """The named arrays of numbers or text of an .npz, whole.

    Raises:
        NpzError: the file cannot be read, lacks one of them, or one holds anything else.
    """
    arrays = {}
    with opened(path) as archive:
        for name in names:
            with array(path, archive, name) as (shape, dtype, stream):
                if dtype.kind not in "fiuU" or any(side > _WIDEST for side in shape[1:]):
                    raise NpzError(f"{path}: {name} is {dtype} {list(shape)}, expected numbers")
                size = math.prod(shape) * dtype.itemsize
                arrays[name] = np.frombuffer(take(stream, size), dtype).reshape(shape).copy()
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz of these arrays; it appears when it is whole, its bytes depend on them alone.

    np.savez does the same, but leaves half a file where it is stopped.
    """
    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            add_arrays(archive, arrays)
        finish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def keys_of(path: Path) -> tuple[str, ...]:
    """The names of the arrays of an .npz.

    Raises:
        NpzError: no such file, or no whole zip.
    """
    with opened(path) as archive:
        return tuple(name.removesuffix(".npy") for name in archive.namelist())


def check_moments(mean: NDArray[Any], covariance: NDArray[Any]) -> None:
    """ValueError, in words, unless these are a mean [D] and a covariance [D, D]: floats, finite,
    symmetric to 1e-6 of the largest value, no variance below 0."""
    if mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise ValueError(f"they are {mean.dtype} and {covariance.dtype}, expected floats")
    if mean.ndim != 1 or len(mean) == 0 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"they have shapes {list(mean.shape)} and {list(covariance.shape)}, expected "
            "[D] and [D, D]"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("they hold values that are not finite")
    if np.abs(covariance - covariance.T).max() > 1e-6 * np.abs(covariance).max():
        raise ValueError("the covariance is not symmetric")
    if covariance.diagonal().min() < 0:
        raise ValueError("the covariance has a variance below 0")


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file, read again only when its time or size changed."""
    try:
        status = path.stat()
        return _sha256(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise NpzError(f"{path}: cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, _modified_ns: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def temporary_beside(path: Path) -> Path:
    """Where to write what `finish` gives its name; on the same file system, so it can."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def add_arrays(archive: zipfile.ZipFile, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Append named arrays to a zip that is being written."""
    for name, array in arrays.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
            npy.write_array(stream, array, allow_pickle=False)


def finish(temporary: Path, path: Path) -> None:
    """Give a file that is whole its name, once its bytes are on the disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def no_such_file(path: Path) -> str:
    """The message that says so, with the name beside it that is most like it."""
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    like = "".join(f"; did you mean '{name}'?" for name in get_close_matches(path.name, beside, 1))
    return f"{path}: there is no such file{like}"


def _not_a_zip(path: Path, start: bytes) -> str:
    if not start:
        return f"{path}: is empty; {_AGAIN}"
    if start == b"\x93NUMPY":
        return (
            f"{path}: is a bare .npy array, expected an .npz; make one with "
            f'np.savez("{path.stem}.npz", np.load("{path.name}"))'
        )
    if start.startswith(b"PK"):
        return f"{path}: is truncated: the end of the zip is missing; {_AGAIN}"
    return f"{path}: is no .npz file (a zip of arrays), or its start is damaged; {_AGAIN}"
