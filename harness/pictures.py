"""Sets of images to measure, from a folder of pictures, an .npz or a named data set, in blocks.

A set knows its size, its count and a digest of its content before it is read, so a reference can
be named by what it holds. Pictures come to a size by ADM's rule (`center_crop`), as the field's
own reference batches do.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness import dataset
from harness.config import Data
from harness.files import Json
from harness.npz import NpzBatch
from harness.picture_files import Look, PictureError, ahead, files, look, pixels, threads

Size = tuple[int, int]
Progress = Callable[[int], None]  # told how many more are done; may raise to stop

BLOCK_BYTES = 1 << 26  # of uint8 images in memory at once
BLOCK_IMAGES = 1024
_SEED = 0  # fixed: which images are drawn is part of the protocol


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, in a fixed order.

    Args:
        describe: what they are, in few words.
        digest: hex, a function of their content, size and order.
        count: how many; at least 1.
        size: (h, w) in pixels.
        channels: 1 or 3.
        batches: n -> all images in order, uint8 [b, channels, h, w], b = n but for the last.
        facts: JSON to be kept beside figures: `crop` (how they came to their size), `upsampled`
            and `lossy` (shares of the images).
        shuffled: their order is random already, so the first ones are a fair sample of them.
    """

    describe: str
    digest: str
    count: int
    size: Size
    channels: int
    batches: Callable[[int], Iterator[torch.Tensor]]
    facts: Json = field(default_factory=dict)
    shuffled: bool = False

    @property
    def block(self) -> int:
        """How many images to take at once: bounded in bytes, and a function of the size alone."""
        each = self.channels * self.size[0] * self.size[1]
        return max(1, min(BLOCK_IMAGES, BLOCK_BYTES // each))

    def drawn(self, count: int) -> NDArray[np.int64]:
        """Indices, ascending, of `count` of the images: a fair sample, always the same one.

        The first ones where the order is random; otherwise drawn without replacement, because the
        first files of a sorted folder are often all of one class.
        """
        return np.arange(count) if self.shuffled else _drawn("manifold", self.count, count)

    def only(self, rows: NDArray[np.int64]) -> Iterator[torch.Tensor]:
        """The images of these ascending indices, in blocks."""
        first = 0
        for images in self.batches(self.block):
            begin, end = np.searchsorted(rows, [first, first + len(images)])
            if end > begin:
                yield images[torch.from_numpy(rows[begin:end] - first)]
            first += len(images)


def from_path(
    path: Path,
    resolution: Size | None = None,
    count: int | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """`from_folder` or `from_npz`, by what `path` is; an .npz is never resized.

    Raises:
        UserError: as they say, or an .npz of another size than `resolution`.
    """
    if path.is_dir():
        return from_folder(path, resolution, count, progress)
    images = from_npz(path, count)
    if resolution not in (None, images.size):
        raise PictureError(
            f"{path}: has images of {_sides(images.size)}, asked for {_sides(resolution)}; give "
            f"the resolution {_sides(images.size)}, or a folder of the original pictures"
        )
    return images


def from_npz(path: Path, count: int | None = None) -> ImageSet:
    """The images (`arr_0`) of ADM's batch file; statistics stored beside them are left alone.

    Args:
        count: draw so many of them at random (a fixed draw), in their order; None: all.

    Raises:
        npz.NpzError: see `NpzBatch`.
        PictureError: `count` is more than there are.
    """
    batch = NpzBatch(path)
    images = ImageSet(
        describe=path.name,
        digest=batch.sha256,
        count=batch.count,
        size=batch.size,
        channels=batch.channels,
        batches=batch.batches,
        facts={"crop": "none"},
    )
    if count in (None, batch.count):
        return images
    rows = _chosen(path, batch.count, count)

    def some(size: int) -> Iterator[torch.Tensor]:
        waiting = torch.empty(0, batch.channels, *batch.size, dtype=torch.uint8)
        for block in images.only(rows):
            waiting = torch.cat([waiting, block])
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if len(waiting):
            yield waiting

    return replace(
        images,
        describe=f"{len(rows)} of {path.name}",
        digest=hashlib.sha256(f"{len(rows)} of {batch.sha256}".encode()).hexdigest(),
        count=len(rows),
        batches=some,
    )


# How the images of each data set come to a size; Fashion-MNIST's above their own by bicubic.
_CROPS = {"fashion_mnist": "area", "glyphs": "drawn", "image_folder": "adm-center-crop"}


def from_dataset(
    data: Data, split: Literal["train", "test"], count: int | None, resolution: Size
) -> ImageSet:
    """`count` images of a data set at `resolution` (all where None), made block by block.

    Which ones is fixed (`harness.data.real_images`); the first n of a larger count are those of n.

    Raises:
        PictureError: more images than it has.
        dataset.DatasetError: no usable copy of it; some are only noticed once images are asked for.
    """
    from harness.data import real_images
    from harness.identity import digest

    facts = dataset.facts(data)
    there = {"train": facts.training, "test": facts.held_out}[split]
    count = there if count is None else count
    if not 1 <= count <= there:
        raise PictureError(f"{count} images of {data.name}'s {split} split; it has {there}")

    def batches(size: int) -> Iterator[torch.Tensor]:
        yield from real_images(data, split, count, resolution, size)

    enlarged = dataset.upsampled(data, resolution)
    own = f"{Path(data.folder).name} " if data.folder else ""
    return ImageSet(
        describe=f"{data.name} {own}{split}",
        digest=digest([facts.digest, split, list(resolution), count]),
        count=count,
        size=resolution,
        channels=facts.channels,
        batches=batches,
        facts={"crop": _CROPS[data.name], "upsampled": enlarged, "lossy": facts.lossy},
        shuffled=True,
    )


def from_folder(
    path: Path,
    resolution: Size | None = None,
    count: int | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """The pictures in a folder and its subfolders, sorted by relative path, by `center_crop`.

    8-bit grey and colour; palettes and CMYK become RGB as Pillow does it. A set is grey when all
    its pictures are. An alpha channel is dropped where it is opaque everywhere and refused where
    not, because the colour behind it is anyone's guess. Names that begin with a dot are passed
    over. Orientation tags are ignored, as ADM does. Every file is read once here for its sha256.

    Args:
        resolution: (h, w); None: as they are, and then all of one size.
        count: draw so many of them at random (a fixed draw), in their order; None: all.
        progress: told how many more files were looked at.

    Raises:
        PictureError: nothing there, other files among them, a picture that is broken, has 16 bits
            or is transparent, sizes that differ with no `resolution`, or `count` too large.
    """
    there = files(path)
    names = there if count is None else [there[row] for row in _chosen(path, len(there), count)]
    seen: list[Look] = []
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, len(names), BLOCK_IMAGES):
            part = [path / name for name in names[start : start + BLOCK_IMAGES]]
            seen += pool.map(look, part)
            if progress:
                progress(len(part))
    if resolution is None:
        other = next((i for i, one in enumerate(seen) if one.size != seen[0].size), None)
        if other is not None:
            raise PictureError(
                f"{path}: pictures of several sizes: {names[0]} is {_sides(seen[0].size)}, "
                f"{names[other]} is {_sides(seen[other].size)}; give a resolution to bring them to"
            )
    size = resolution or seen[0].size
    mode: Literal["L", "RGB"] = "L" if all(one.grey for one in seen) else "RGB"
    total = hashlib.sha256(f"center_crop {_sides(size)} {mode}\n".encode())
    for name, one in zip(names, seen, strict=True):
        total.update(f"{name}\0{one.sha256}\n".encode())
    smaller = sum(one.size[0] < size[0] or one.size[1] < size[1] for one in seen)
    about = {
        "crop": "none" if resolution is None else "adm-center-crop",
        "upsampled": smaller / len(seen),
        "lossy": sum(one.lossy for one in seen) / len(seen),
    }

    def batches(block: int) -> Iterator[torch.Tensor]:
        def read(row: int) -> NDArray[np.uint8]:
            return pixels(path / names[row], seen[row].sha256, mode, size, resolution is not None)

        for arrays in ahead(range(len(names)), read, block):
            stack = torch.from_numpy(np.stack(arrays))
            yield stack.reshape(len(arrays), *size, -1).permute(0, 3, 1, 2).contiguous()

    describe = path.resolve().name if count is None else f"{count} of {path.resolve().name}"
    return ImageSet(
        describe, total.hexdigest(), len(names), size, 1 if mode == "L" else 3, batches, about
    )


def write_png_folder(folder: Path, batches: Iterable[torch.Tensor]) -> int:
    """Write images uint8 [b, 1 or 3, h, w] as 000000.png, 000001.png, ...; how many there were.

    Pixels are exact, grey images are grey files. The folder appears when it is whole.

    Raises:
        PictureError: the folder is there and not empty.
        ValueError: images of another kind, or none.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PictureError(f"{folder}: is not empty; move it away, or name another folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    count = 0
    try:
        for images in batches:
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
                raise ValueError(f"got {images.dtype} {list(images.shape)}, expected uint8 NCHW")
            for image in images.cpu().permute(0, 2, 3, 1).numpy():
                grey = image.shape[2] == 1
                picture = Image.fromarray(image[..., 0] if grey else np.ascontiguousarray(image))
                picture.save(temporary / f"{count:06}.png")
                count += 1
        if not 1 <= count <= 1_000_000:  # seven digits would sort before six
            raise ValueError(f"{count} images do not fit names of six digits")
        temporary.replace(folder)
    finally:
        rmtree(temporary, ignore_errors=True)
    return count


def _chosen(path: Path, there: int, count: int) -> NDArray[np.int64]:
    if not 1 <= count <= there:
        raise PictureError(f"{path}: asked for {count} images; there are {there}")
    return _drawn("subset", there, count)


def _drawn(purpose: str, there: int, count: int) -> NDArray[np.int64]:
    from harness.draws import permutation

    return np.sort(permutation(_SEED, purpose, there, there)[:count])


def _sides(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
