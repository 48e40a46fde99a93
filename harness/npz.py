"""ADM's batch file: a zip (.npz) with the images in `arr_0`, uint8 [N, H, W, 3], read in blocks.

The form that the ADM evaluation suite reads (openai/guided-diffusion, `evaluations/README.md`). A
reference batch of that suite also carries `mu`, `sigma` (2048 pooled Inception features) and
`mu_s`, `sigma_s` (2023 spatial ones) of a whole training set. Labels (`arr_1`) are left alone.

Nothing is ever unpickled, and no more than a block is in memory, whatever the count of images.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.files import check_target
from harness.npz_arrays import (
    IMAGES,
    NpzError,
    add_arrays,
    array,
    check_moments,
    file_sha256,
    finish,
    opened,
    read_arrays,
    take,
    temporary_beside,
)  # fmt: skip

__all__ = ["NpzBatch", "NpzError", "NpzWriter"]

Array = NDArray[np.float64]
Size = tuple[int, int]

STATISTICS = {"mu": "sigma", "mu_s": "sigma_s"}  # each mean with its covariance
_PEEK = 64  # images looked at to say what an array that is not uint8 holds


class NpzBatch:
    """The images of an .npz: `count` of `size` (h, w) with `channels` (1 or 3), checked unread.

    Raises:
        NpzError: no such file, no whole zip, no `arr_0`, or not uint8 [N >= 1, H, W, 1 or 3].
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as archive:
            self._age = _age(path)
            self.keys = tuple(name.removesuffix(".npy") for name in archive.namelist())
            with array(path, archive, IMAGES) as (shape, dtype, stream):
                if dtype != np.uint8:
                    raise NpzError(_not_uint8(path, shape, dtype, stream))
        if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape:
            raise NpzError(_not_images(path, shape))
        self.count, height, width, self.channels = shape
        self.size: Size = (height, width)

    @property
    def sha256(self) -> str:
        """sha256 (hex) of the file."""
        return file_sha256(self.path)

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        """All images in order: uint8 [b, C, H, W], b = `size` but for the last.

        Raises:
            NpzError: the file is damaged; found at the latest with the last block, whose end has
                the checksum, so nothing may be concluded before the iterator ends.
        """
        if size < 1:
            raise ValueError(f"a block of {size} images; at least 1")
        with opened(self.path) as archive, array(self.path, archive, IMAGES) as (shape, _, file):
            if _age(self.path) != self._age:
                raise NpzError(f"{self.path}: was changed while it was in use; start again")
            for first in range(0, self.count, size):
                here = (min(size, self.count - first), *shape[1:])
                pixels = np.frombuffer(take(file, math.prod(here)), np.uint8).reshape(here)
                # A copy, because an array over `bytes` is read-only.
                yield torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())

    def statistics(self) -> dict[str, Array]:
        """Those of `mu` [D], `sigma` [D, D], `mu_s` [S], `sigma_s` [S, S] that are there: float64.

        They describe what the file's maker measured, often another and larger set of images than
        `arr_0`, so only a reference may use them. A file of *samples* is measured by its images.

        Raises:
            NpzError: a mean without its covariance or the reverse, shapes that do not match, a
                covariance that is not symmetric, values that are not finite.
        """
        found = [name for pair in STATISTICS.items() for name in pair if name in self.keys]
        arrays = read_arrays(self.path, found)
        for mean, covariance in STATISTICS.items():
            for one, other in ((mean, covariance), (covariance, mean)):
                if one in arrays and other not in arrays:
                    raise NpzError(f"{self.path}: has {one} but no {other}; save both, or neither")
            if mean in arrays:
                try:
                    check_moments(arrays[mean], arrays[covariance])
                except ValueError as error:
                    raise NpzError(
                        f"{self.path}: {mean} and {covariance} cannot be used: {error}; make them "
                        "again, or leave them out to measure the images themselves"
                    ) from None
        return {name: array.astype(np.float64) for name, array in arrays.items()}


class NpzWriter:
    """Write ADM's batch file block by block; it appears under its name when it is whole.

        with NpzWriter(path, count, (h, w), channels) as writer:
            writer.write(images)  # uint8 [b, channels, h, w], as often as need be

    Grey images are written as three equal channels, because ADM's evaluator reads no others. The
    bytes are a function of the contents: no time of writing is in them.

    Args:
        arrays: stored beside the images under these names, after them.

    Raises:
        ValueError: images of another kind, or in the end another number of them than `count`.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        size: Size,
        channels: int,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        if count < 1 or min(size) < 1 or channels not in (1, 3):
            raise ValueError(f"cannot write {count} images of {size} with {channels} channels")
        self.path, self.count, self.size, self.channels = path, count, size, channels
        self.written = 0
        self._arrays = dict(arrays or {})

    def __enter__(self) -> "NpzWriter":
        check_target(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = temporary_beside(self.path)
        self._archive = zipfile.ZipFile(self._temporary, "w", allowZip64=True)
        self._stream = self._archive.open(f"{IMAGES}.npy", "w", force_zip64=True)
        shape = (self.count, *self.size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._stream, header)
        return self

    def write(self, images: torch.Tensor) -> None:
        """Append images uint8 [b, channels, h, w]."""
        if images.dtype != torch.uint8 or images.shape[1:] != (self.channels, *self.size):
            raise ValueError(
                f"got {images.dtype} {list(images.shape)}, expected uint8 "
                f"[b, {self.channels}, {self.size[0]}, {self.size[1]}]"
            )
        self.written += len(images)
        if self.written > self.count:
            raise ValueError(f"{self.path} is for {self.count} images, got {self.written}")
        rows = images.cpu().permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
        self._stream.write(rows.numpy().data.cast("B"))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stream.close()
            if kind is None and self.written == self.count:
                add_arrays(self._archive, self._arrays)
            self._archive.close()
            if kind is None:
                if self.written != self.count:
                    raise ValueError(
                        f"{self.path} was not made: {self.written} of {self.count} images came"
                    )
                finish(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def _age(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _not_images(path: Path, shape: tuple[int, ...]) -> str:
    wanted = "expected [N, H, W, 3] (or 1 channel)"
    said = f"{path}: {IMAGES} has shape {list(shape)}, {wanted}"
    if 0 in shape:
        return f"{path}: {IMAGES} has shape {list(shape)}: no images; {wanted}"
    if len(shape) == 4 and shape[1] in (1, 3):
        return f"{said}; channels come last: save {IMAGES}.transpose(0, 2, 3, 1)"
    if len(shape) == 3:
        return f"{said}; for grey images save {IMAGES}[..., None], for one image {IMAGES}[None]"
    if len(shape) == 4 and shape[3] == 4:
        return f"{said}; 4 channels look like an alpha channel: save {IMAGES}[..., :3]"
    return said


def _not_uint8(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], file: IO[bytes]) -> str:
    """What an array of another type holds, and how to make uint8 of it."""
    said = f"{path}: {IMAGES} is {dtype} {list(shape)}, expected uint8 [N, H, W, 3] in 0..255"
    if dtype.kind not in "fiub" or len(shape) == 0 or 0 in shape:
        return said
    first = (min(_PEEK, shape[0]), *shape[1:])
    values = np.frombuffer(take(file, math.prod(first) * dtype.itemsize), dtype)
    count = f"the first {first[0]} images" if first[0] < shape[0] else "the images"
    if not np.isfinite(values).all():
        return f"{said}; {count} hold NaN or infinite values, so what made them went wrong"
    low, high = float(values.min()), float(values.max())
    if dtype.kind == "f" and -1.01 <= low < 0 and high <= 1.01:
        how = f"(({IMAGES} + 1) * 127.5)"
    elif dtype.kind == "b" or (dtype.kind == "f" and low >= 0 and high <= 1.01):
        how = f"({IMAGES} * 255.0)"
    else:
        how = f"np.asarray({IMAGES}, float)"
    return (
        f"{said}; {count} lie in {low:g}..{high:g}: save "
        f"{how}.round().clip(0, 255).astype(np.uint8), if that is their range"
    )
