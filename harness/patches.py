"""Random crops at native resolution, for metrics that see detail.

An extractor resizes every image to its own input, and what it then sees of fine detail is little:
an enlarged small image looks as good as a large one. A crop is enlarged instead of shrunk, so its
pixels count (patch FID: Chai et al. 2022, Any-resolution Training, arXiv:2204.07156).
"""

import numpy as np
import torch

from harness import draws


def corners(first: int, count: int, size: tuple[int, int], side: int) -> np.ndarray:
    """Where the crops of images `first` .. `first + count - 1` of a set of `size` begin.

    Uniform over all places where a crop of `side` pixels fits; that of image i is a function of i
    (and of the sizes) alone, so two sets of images are cropped alike.

    Returns:
        int64 `[count, 2]`: top, left.

    Raises:
        ValueError: the crop is larger than the images, or not positive.
    """
    if not 0 < side <= min(size):
        raise ValueError(f"cannot cut crops of side {side} out of images of {size[0]}x{size[1]}")
    room = np.array(size) - side + 1  # [2]
    uniform = [draws.generator(0, "patch", i).random(2) for i in range(first, first + count)]
    return np.floor(np.array(uniform).reshape(count, 2) * room).astype(np.int64)


def crops(images: torch.Tensor, first: int, side: int) -> torch.Tensor:
    """One square crop of each of images `[N, C, h, w]`, number `first` and following of their set.

    Returns:
        `[N, C, side, side]`, of the images' type and on their device; nothing is resized.

    Raises:
        ValueError: the crop is larger than the images, or not positive.
    """
    count, channels, height, width = images.shape
    places = corners(first, count, (height, width), side)
    if count == 0:
        return images.new_empty(0, channels, side, side)
    cut = [
        image[:, top : top + side, left : left + side]
        for image, (top, left) in zip(images, places.tolist(), strict=True)
    ]
    return torch.stack(cut)
