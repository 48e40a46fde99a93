"""Images as tensors: loading, resizing, ranges, and the resize-and-crop augmentation.

Fashion-MNIST's ground truth at every resolution comes from the same 32x32 images by exact area
averaging, so a model trained at 12 can be measured at 24 against real images of 24. Nothing here
depends on which images share a batch: an image comes out the same, bit for bit, alone or among
others.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from harness import fashion_mnist

NEUTRAL_CROP = (0.0, 0.0, 1.0, 1.0)  # the crops row of an image that was only resized


def load(folder: Path, split: Literal["train", "test"]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 `[N, 1, 32, 32]`, the 28x28 padded by 2 zeros a side; labels int64 `[N]`.

    Raises:
        DatasetError: a file is missing or damaged.
    """
    images, labels = fashion_mnist.read(folder, split)
    padded = F.pad(torch.from_numpy(images)[:, None], (2, 2, 2, 2))  # [N, 1, 32, 32]
    return padded, torch.from_numpy(labels).long()


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float32 -1..1."""
    return images.float() / 127.5 - 1


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float -1..1 to uint8 0..255: rounded to the nearest, values outside are clamped.

    Raises:
        ValueError: a value is not finite; a cast would make some grey of it without a word.
    """
    if not torch.isfinite(images).all():
        raise ValueError("images hold values that are not finite")
    return (images * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def area_resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Shrink by exact area averaging: float `[B, C, H, W]` to `[B, C, h, w]`.

    Output pixel i is the mean of the input over [i*H/h, (i+1)*H/h), pixels on the border counting
    by the share that lies inside; likewise for columns. At integer ratios this is PIL's BOX filter
    (which, at others, takes border pixels whole or not at all).

    Raises:
        ValueError: `size` is larger than the images, or not positive; the images are not float.
    """
    if not images.is_floating_point():
        raise ValueError(f"area_resize needs float images, not {images.dtype}")
    height, width = images.shape[-2:]
    if not (0 < size[0] <= height and 0 < size[1] <= width):
        raise ValueError(f"area_resize only shrinks: cannot go from {(height, width)} to {size}")
    return _average_last(_average_last(images, size[1]).mT, size[0]).mT.contiguous()


def _average_last(images: torch.Tensor, count: int) -> torch.Tensor:
    """Area average along the last dimension, to `count` values.

    A sum of few shifted copies and no matrix product: a matmul picks its kernel, and so its order
    of summation, by the batch size, and the last bit would depend on the batch.
    """
    length = images.shape[-1]
    if count == length:
        return images
    # In units of 1/count input pixels all borders are integers: output i covers
    # [i*length, (i+1)*length) and input j covers [j*count, (j+1)*count).
    start = torch.arange(count, device=images.device) * length  # [count]
    first = start // count
    total: torch.Tensor | None = None
    for tap in range(-(-length // count) + 1):  # an interval of this length touches at most so many
        source = first + tap
        overlap = torch.minimum(start + length, (source + 1) * count)
        overlap = (overlap - torch.maximum(start, source * count)).clamp(min=0)
        weight = (overlap.double() / length).to(images.dtype)
        part = images[..., source.clamp(max=length - 1)] * weight
        total = part if total is None else total + part
    assert total is not None
    return total


def resize(images: torch.Tensor, size: tuple[int, int], kind: str = "bicubic") -> torch.Tensor:
    """Float32 `[B, C, H, W]` to `[B, C, *size]`: the baseline that invents no detail.

    Pixel centres at halves, antialiased where an axis shrinks; values can overshoot. "bicubic" is
    torch's (Keys' kernel, a = -0.75 enlarging and -0.5 shrinking), "lanczos" Pillow's (3 lobes).

    Raises:
        ValueError: another kind.
    """
    if kind == "bicubic":
        height, width = images.shape[-2:]
        smaller = (min(size[0], height), min(size[1], width))
        if smaller != (height, width):
            images = F.interpolate(images, size=smaller, mode="bicubic", antialias=True)
        if smaller == size:
            return images
        return F.interpolate(images, size=size, mode="bicubic", antialias=False)
    if kind != "lanczos":
        raise ValueError(f"resize is bicubic or lanczos, got {kind!r}")
    planes = [
        Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.LANCZOS)
        for plane in images.flatten(0, 1).cpu().numpy()
    ]
    resized = torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))
    return resized.unflatten(0, images.shape[:2]).to(images.device)


def enlarge(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Float `[B, C, H, W]` in 0..255 to `[B, C, *size]`, where a side of it is above (H, W).

    Axes that shrink are area-averaged first, then the others are enlarged by `resize`'s bicubic
    kernel; overshoot is clamped. What comes out is no ground truth: nothing knows the detail.
    """
    height, width = images.shape[-2:]
    shrunk = area_resize(images, (min(size[0], height), min(size[1], width)))
    return resize(shrunk, size).clamp(0, 255)


def crop_windows(
    size: tuple[int, int], limit: tuple[int, int], uniform: torch.Tensor, max_scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where the random resize-and-crop cuts, as a pure function of its random numbers.

    Image b is brought to r = round(size * s), where s = 1 + uniform[b, 0] * (max_scale - 1), at
    most what takes the first axis to its `limit` (so the aspect stays); then a window of `size` is
    cut at the integer positions top = floor(uniform[b, 1] * (r_h - h + 1)) and left, likewise from
    uniform[b, 2].

    Args:
        size: (h, w), not above `limit`.
        limit: (H, W), the largest that an image can be brought to.
        uniform: `[B, 3]` in [0, 1).
        max_scale: at least 1; 1 only resizes.

    Returns:
        r int64 `[B, 2]`, corners (top, left) int64 `[B, 2]`, and the micro-condition float32
        `[B, 4]` = (top/h, left/w, r_h/h, r_w/w); `NEUTRAL_CROP` where nothing is cut.

    Raises:
        ValueError: `size` above the limit, a wrong shape of `uniform`, `max_scale` below 1.
    """
    h, w = size
    if not (0 < h <= limit[0] and 0 < w <= limit[1]):
        raise ValueError(f"cannot crop {size} out of images of {limit}")
    if uniform.ndim != 2 or uniform.shape[1] != 3:
        raise ValueError(f"uniform has shape {tuple(uniform.shape)}, expected [B, 3]")
    if not max_scale >= 1:
        raise ValueError(f"max_scale is {max_scale}, expected at least 1")
    draw = uniform.double()
    largest = min(limit[0] / h, limit[1] / w)
    scale = (1 + draw[:, :1] * (max_scale - 1)).clamp(max=largest)  # [B, 1]
    target = torch.tensor([size], device=draw.device)
    resized = (target * scale + 0.5).floor().long()  # half rounds up
    corner = (draw[:, 1:] * (resized - target + 1)).floor().long()
    return resized, corner, torch.cat([corner / target, resized / target], dim=1).float()


def resize_crop(
    images: torch.Tensor, size: tuple[int, int], uniform: torch.Tensor, max_scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random resize-and-crop of images in memory: area-resized, then cut, by `crop_windows`.

    Args:
        images: `[B, C, H, W]`, uint8 or float; their size is the limit.
        size: (h, w), not above (H, W).
        uniform: `[B, 3]` in [0, 1).
        max_scale: at least 1; 1 only resizes.

    Returns:
        Float32 images `[B, C, h, w]` in the input's range, and the crops `[B, 4]`.

    Raises:
        ValueError: as `crop_windows`, or not as many rows of `uniform` as images.
    """
    count, channels, height, width = images.shape
    h, w = size
    if len(uniform) != count:
        raise ValueError(f"uniform has shape {tuple(uniform.shape)}, expected {(count, 3)}")
    place = uniform.to(images.device)
    resized, corner, crops = crop_windows(size, (height, width), place, max_scale)
    result = torch.empty(count, channels, h, w, device=images.device)
    for r_h, r_w in sorted({(row[0], row[1]) for row in resized.tolist()}):
        member = (resized == torch.tensor([r_h, r_w], device=images.device)).all(1).nonzero()[:, 0]
        shrunk = area_resize(images[member].float(), (r_h, r_w))
        rows = corner[member, :1] + torch.arange(h, device=images.device)  # [b, h]
        columns = corner[member, 1:] + torch.arange(w, device=images.device)  # [b, w]
        index = torch.arange(len(member), device=images.device)[:, None, None]
        # Indexing around a slice puts the sliced dimension last: [b, h, w, C].
        window = shrunk[index, :, rows[:, :, None], columns[:, None, :]]
        result[member] = window.permute(0, 3, 1, 2)
    return result, crops
