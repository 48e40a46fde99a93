"""Training batches and reference images, as functions of seed and index."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from harness.config import Augmentation
from harness.dataset import find
from harness.draws import permutation, uniform
from harness.images import NEUTRAL_CROP, area_resize, load, resize_crop

REFERENCE_SEED = 0  # fixed: which real images stand in a reference is part of the protocol


@dataclass(frozen=True)
class Images:
    """A split in memory: uint8 [N, C, 32, 32] and its labels, int64 [N]."""

    pixels: torch.Tensor
    labels: torch.Tensor


@lru_cache(maxsize=2)
def open_split(split: str, root: Path | None = None) -> Images:
    """The training or test split.

    Raises:
        DatasetError: no usable copy of the data set; the message says how to get one.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return Images(*load(find(root), "train" if split == "train" else "test"))


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
    images: Images,
    indices: torch.Tensor,
    resolution: tuple[int, int],
    augmentation: Augmentation,
    seed: int,
    step: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images float [B, C, h, w] in -1..1, labels [B], and crops [B, 4] (the micro-condition)."""
    pixels, labels = images.pixels[indices], images.labels[indices]
    if augmentation.kind == "resize_crop":
        draws = uniform(seed, "augmentation", step, (len(indices), 3))
        resized, crops = resize_crop(pixels, resolution, draws, augmentation.max_scale)
    else:
        resized = area_resize(pixels.float(), resolution)
        crops = torch.tensor(NEUTRAL_CROP).expand(len(indices), 4)
    return resized / 127.5 - 1, labels, crops


def real_images(split: str, count: int, resolution: tuple[int, int]) -> torch.Tensor:
    """A fixed random subset of `count` real images at `resolution`: uint8 [count, C, h, w].

    The first n of a larger subset are the subset of n.
    """
    images = open_split(split)
    chosen = permutation(REFERENCE_SEED, f"reference {split}", 0, len(images.pixels))[:count]
    # In parts, because floats of all of them would take many times the memory of the result.
    parts = torch.from_numpy(chosen).split(1000)
    small = (area_resize(images.pixels[part].float(), resolution) for part in parts)
    return torch.cat([part.round().to(torch.uint8) for part in small])


def unseen_images(count: int, taken: int, resolution: tuple[int, int]) -> torch.Tensor:
    """Real images that are not among the first `taken` training ones: uint8 [count, C, h, w].

    They make the floor. Held-out images come first; where more are asked for than there are, the
    rest are training images that the reference does not hold.
    """
    held_out = len(open_split("test").pixels)
    images = real_images("test", min(count, held_out), resolution)
    if count > held_out:
        more = real_images("train", taken + count - held_out, resolution)[taken:]
        images = torch.cat([images, more])
    return images
