"""Training-time position samplers: which of a range's positions the patches of an axis take.

A sampler is `f(n, length, uniform [B, length]) -> positions [B, n] float32`, sorted, out of the
integers 0..length-1. All randomness comes in through `uniform`, so a draw is a function of
whatever the caller derives those numbers from, and rows and columns get a row of their own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Sampler = Callable[[int, int, Tensor], Tensor]


def consecutive(n: int, length: int, uniform: Tensor) -> Tensor:
    """0..n-1 for every sample: plain training. Only the batch size of `uniform` matters.

    Shapes: uniform [B, length] -> [B, n]. ValueError if n > length.
    """
    _check(n, length, uniform)
    return torch.arange(n, dtype=torch.float32, device=uniform.device).repeat(len(uniform), 1)


def randomized(n: int, length: int, uniform: Tensor) -> Tensor:
    """n distinct positions of 0..length-1, uniform over all such subsets, in ascending order.

    The indices of the n smallest uniforms are a uniform draw without replacement. At
    n == length this is `consecutive` bit for bit, whatever the uniforms.

    Shapes: uniform [B, length], one independent row a sample -> [B, n].
    Source: RPE-2D (arXiv 2503.18719, abstract: independent draws per axis over an expanded range);
    sorted and without replacement as in Ruoss et al. 2023 (arXiv 2305.16843).
    ValueError if n > length.
    """
    _check(n, length, uniform)
    # Stable, so that equal float32 uniforms give the same draw on every device.
    chosen = uniform.argsort(dim=1, stable=True)[:, :n]  # [B, n]
    return chosen.sort(dim=1).values.to(torch.float32)  # [B, n]


SAMPLERS: dict[str, Sampler] = {
    "consecutive": consecutive,
    "randomized": randomized,
}


def _check(n: int, length: int, uniform: Tensor) -> None:
    if not 1 <= n <= length:
        raise ValueError(f"cannot draw {n} distinct positions out of {length}")
    if uniform.dim() != 2 or uniform.shape[1] != length:
        raise ValueError(f"expected uniforms of shape [B, {length}], got {list(uniform.shape)}")
