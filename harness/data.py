"""Images of a data set at a size: training batches and references, functions of seed and index."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from harness import fashion_mnist, folder_index, glyphs
from harness.config import Augmentation, Data
from harness.draws import permutation, uniform
from harness.facts import Facts
from harness.images import (
    NEUTRAL_CROP,
    area_resize,
    crop_windows,
    enlarge,
    load,
    resize_crop,
    to_float,
)
from harness.picture_files import ahead, threads

REFERENCE_SEED = 0  # fixed: which real images stand in a reference is part of the protocol
BLOCK_IMAGES = 1000
BLOCK_BYTES = 1 << 27  # of float32 images at once

Size = tuple[int, int]


class Split(Protocol):
    """The training or the held-out images of a data set."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def labels(self) -> torch.Tensor:
        """int64 [N]."""
        ...

    def images(self, indices: torch.Tensor, size: Size) -> torch.Tensor:
        """Float32 [B, C, h, w], 0..255: true images of `size`, enlarged where they are smaller.

        Raises:
            DatasetError: a picture was changed since it was indexed.
        """
        ...

    def cropped(
        self, indices: torch.Tensor, size: Size, draws: torch.Tensor, max_scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random resize-and-crop of `images`: see `harness.images.crop_windows`.

        Returns:
            Float32 [B, C, h, w] in 0..255, and crops float32 [B, 4].
        """
        ...


@dataclass(frozen=True)
class Pixels:
    """A split in memory: uint8 [N, C, H, W], the ground truth of every smaller size."""

    pixels: torch.Tensor
    labels: torch.Tensor

    @property
    def count(self) -> int:
        return len(self.pixels)

    def images(self, indices: torch.Tensor, size: Size) -> torch.Tensor:
        """Area averages; above the images' own size, enlarged by `harness.images.enlarge`."""
        chosen = self.pixels[indices].float()
        height, width = chosen.shape[-2:]
        fits = size[0] <= height and size[1] <= width
        return area_resize(chosen, size) if fits else enlarge(chosen, size)

    def cropped(
        self, indices: torch.Tensor, size: Size, draws: torch.Tensor, max_scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Area-resized and cut."""
        return resize_crop(self.pixels[indices], size, draws, max_scale)


@dataclass(frozen=True)
class Scenes:
    """A split that is drawn anew at every size (`harness.glyphs`)."""

    split: str
    labels: torch.Tensor

    @property
    def count(self) -> int:
        return len(self.labels)

    def images(self, indices: torch.Tensor, size: Size) -> torch.Tensor:
        """Drawn straight at `size`."""
        return torch.from_numpy(glyphs.render(self.split, indices.tolist(), size))

    def cropped(
        self, indices: torch.Tensor, size: Size, draws: torch.Tensor, max_scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows of drawings of the whole; only the window is drawn."""
        limit = (glyphs.FACTS.side, glyphs.FACTS.side)
        whole, corners, crops = crop_windows(size, limit, draws, max_scale)
        chosen = indices.tolist()
        drawn = glyphs.render(self.split, chosen, size, whole.numpy(), corners.numpy())
        return torch.from_numpy(drawn), crops


@dataclass(frozen=True)
class Pictures:
    """A split of a folder of pictures, decoded by threads when asked for."""

    folder: Path
    facts: Facts
    files: folder_index.Files
    labels: torch.Tensor
    pool: ThreadPoolExecutor

    @property
    def count(self) -> int:
        return len(self.labels)

    def _picture(self, index: int, size: Size) -> torch.Tensor:
        mode = "L" if self.facts.channels == 1 else "RGB"
        path, sha256 = self.folder / self.files.names[index], self.files.sha256[index]
        found = folder_index.picture(path, sha256, mode, size).astype(np.float32)
        return torch.from_numpy(found).reshape(*size, -1).permute(2, 0, 1)

    def images(self, indices: torch.Tensor, size: Size) -> torch.Tensor:
        """By ADM's rule, `harness.picture_files.center_crop`."""
        found = self.pool.map(lambda index: self._picture(index, size), indices.tolist())
        return torch.stack(list(found))

    def cropped(
        self, indices: torch.Tensor, size: Size, draws: torch.Tensor, max_scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Each picture centre-cropped to the size of its own draw, then the window."""
        side, (h, w) = self.facts.side, size
        whole, corners, crops = crop_windows(size, (side, side), draws, max_scale)

        def window(index: int, full: list[int], corner: list[int]) -> torch.Tensor:
            top, left = corner
            picture = self._picture(index, (full[0], full[1]))
            return picture[:, top : top + h, left : left + w]

        found = self.pool.map(window, indices.tolist(), whole.tolist(), corners.tolist())
        return torch.stack(list(found)), crops


def open_data(data: Data, split: str) -> Split:
    """The "train" or the "test" split of a data set; opened once in a process.

    Raises:
        DatasetError: no usable copy of the data set; the message says how to get one.
        ValueError: another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return _open(data.name, data.folder, split)


@lru_cache(maxsize=4)
def _open(name: str, pictures: str | None, split: str) -> Split:
    if name == "fashion_mnist":
        return Pixels(*load(fashion_mnist.find(), "train" if split == "train" else "test"))
    if name == "glyphs":
        glyphs.check()
        count = glyphs.FACTS.training if split == "train" else glyphs.FACTS.held_out
        return Scenes(split, torch.arange(count) % glyphs.FACTS.classes)
    path = folder_index.path_of(pictures)
    files = _open_folder(path)[split]
    facts, labels = folder_index.header(path).facts, torch.tensor(files.labels)
    return Pictures(path, facts, files, labels, ThreadPoolExecutor(threads()))


@lru_cache(maxsize=1)
def _open_folder(path: Path) -> dict[str, folder_index.Files]:
    return folder_index.open_files(path)


class Order:
    """The order in which a seed sees the training images: a new permutation each epoch."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed, self.count = seed, count
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def batch(self, step: int, size: int) -> torch.Tensor:
        """Indices int64 [size] of the images of a step (its first image has index step * size)."""
        positions = np.arange(step * size, (step + 1) * size)
        epochs, within = positions // self.count, positions % self.count
        picked = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            if epoch != self._epoch:
                self._order = permutation(self.seed, "order", int(epoch), self.count)
                self._epoch = int(epoch)
            here = epochs == epoch
            picked[here] = self._order[within[here]]
        return torch.from_numpy(picked)


def training_batch(
    split: Split,
    indices: torch.Tensor,
    resolution: Size,
    augmentation: Augmentation,
    seed: int,
    step: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images float [B, C, h, w] in -1..1, labels [B], and crops [B, 4] (the micro-condition)."""
    if augmentation.kind == "resize_crop":
        draws = uniform(seed, "augmentation", step, (len(indices), 3))
        resized, crops = split.cropped(indices, resolution, draws, augmentation.max_scale)
    else:
        resized = split.images(indices, resolution)
        crops = torch.tensor(NEUTRAL_CROP).expand(len(indices), 4)
    return to_float(resized), split.labels[indices], crops


def real_images(
    data: Data, split: str, count: int, resolution: Size, block: int | None = None
) -> Iterator[torch.Tensor]:
    """A fixed random subset of `count` real images at `resolution`: blocks uint8 [b, C, h, w].

    The first n of a larger subset are the subset of n. The next block is made while the caller
    works on one, and no more than that is in memory.

    Args:
        block: b, but for the last; None: as many as are good for memory.
    """
    yield from _blocks(data, split, slice(count), resolution, block)


def unseen_images(data: Data, count: int, taken: int, resolution: Size) -> torch.Tensor:
    """Real images that are not among the first `taken` training ones: uint8 [count, C, h, w].

    They make the floor. Held-out images come first; where more are asked for than there are, the
    rest are training images that the reference does not hold.
    """
    held_out = min(count, open_data(data, "test").count)
    more = slice(taken, taken + count - held_out)
    parts = [*_blocks(data, "test", slice(held_out), resolution)]
    return torch.cat([*parts, *_blocks(data, "train", more, resolution)])


def _blocks(
    data: Data, split: str, part: slice, resolution: Size, block: int | None = None
) -> Iterator[torch.Tensor]:
    """A part of a split's images, in the fixed random order of references."""
    images = open_data(data, split)
    order = permutation(REFERENCE_SEED, f"reference {split}", 0, images.count)
    chosen = torch.from_numpy(order[part])
    if not len(chosen):
        return
    # In parts, because floats of all of them would take many times the memory of the result.
    each = 4 * 3 * resolution[0] * resolution[1]
    parts = chosen.split(block or max(1, min(BLOCK_IMAGES, BLOCK_BYTES // each)))

    def read(indices: torch.Tensor) -> torch.Tensor:
        return images.images(indices, resolution).round().to(torch.uint8)

    for (ready,) in ahead(list(parts), read, 1):
        yield ready
