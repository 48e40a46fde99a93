"""Training-time position samplers: which of a range's positions the patches of an axis take.

A sampler is `f(n, length, uniform [B, length], shared [B]) -> positions [B, n] float32`, within
0..length-1. All randomness comes in through numbers that are uniform in [0, 1), so a draw is a
function of whatever the caller derives those from: `uniform` has a row of its own for rows and for
columns, `shared` is one number a sample that both axes see. B may be several dimensions, as
(layers, samples). Every sampler raises ValueError if n > length.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Sampler = Callable[[int, int, Tensor, Tensor], Tensor]


def consecutive(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """0..n-1 for every sample: plain training. Only the shape and device of `uniform` matter."""
    _check(n, length, uniform)
    steps = torch.arange(n, dtype=torch.float32, device=uniform.device)
    return steps.repeat(*uniform.shape[:-1], 1)  # [B, n]


def randomized(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """n distinct positions of 0..length-1, uniform over all such subsets, in ascending order.

    The indices of the n smallest uniforms are a uniform draw without replacement. At
    n == length this is `consecutive` bit for bit, whatever the uniforms.

    Source: RPE-2D (arXiv 2503.18719, abstract: independent draws per axis over an expanded range);
    sorted and without replacement as in Ruoss et al. 2023 (arXiv 2305.16843).
    """
    return unsorted(n, length, uniform, shared).sort(dim=-1).values  # [B, n]


def with_replacement(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """n independent positions floor(length u) of 0..length-1, ascending; some coincide."""
    _check(n, length, uniform)
    drawn = (uniform[..., :n].double() * length).floor()
    return drawn.sort(dim=-1).values.to(torch.float32)  # [B, n]


def unsorted(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """The draw of `randomized` in random order: a negative control, whose order says nothing.

    At n == length it is a permutation of 0..n-1.
    """
    _check(n, length, uniform)
    # Stable, so that equal float32 uniforms give the same draw on every device.
    return uniform.argsort(dim=-1, stable=True)[..., :n].to(torch.float32)  # [B, n]


def order_statistics(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """n independent real positions (length-1) u, ascending: `randomized` without the integers."""
    _check(n, length, uniform)
    drawn = uniform[..., :n].double() * (length - 1)
    return drawn.sort(dim=-1).values.to(torch.float32)  # [B, n]


def shift(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """o + 0..n-1, o uniform in {0, ..., length-n}: every position is seen, no gap but 1."""
    _check(n, length, uniform)
    offset = (uniform[..., :1].double() * (length - n + 1)).floor()  # [B, 1]
    return (offset + _steps(n, uniform)).to(torch.float32)  # [B, n]


def affine(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """o + a k, k = 0..n-1: stretched and shifted at random, with equal gaps.

    a ~ U(1, (length-1)/(n-1)), 1 for a single patch; then o ~ U(0, length-1 - a (n-1)).
    """
    _check(n, length, uniform)
    drawn = uniform.double()
    widest = (length - 1) / (n - 1) if n > 1 else 1.0
    gap = 1 + drawn[..., :1] * (widest - 1)  # [B, 1]
    # Rounding may leave a room of -1e-16.
    room = (length - 1 - gap * (n - 1)).clamp(min=0)
    return (drawn[..., -1:] * room + gap * _steps(n, uniform)).to(torch.float32)  # [B, n]


def rescale(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """(length-1)/2 + (k - (n-1)/2) f, k = 0..n-1: about the middle, f the same for both axes.

    f is log-uniform in [n/length, length/n], its place in that interval the sample's `shared`
    number; the ends stay within 0..length-1. Source: DINOv3's rescaling of RoPE's box
    (arXiv 2508.10104 and its code), there with normalised coordinates and bounds 1/2 and 2.
    """
    _check(n, length, uniform)
    return _about_the_middle(n, length, shared[..., None], uniform)  # [B, n]


def jitter(n: int, length: int, uniform: Tensor, shared: Tensor) -> Tensor:
    """As `rescale`, with an f of its own for each axis (DINOv3's jitter): shapes change too."""
    _check(n, length, uniform)
    return _about_the_middle(n, length, uniform[..., :1], uniform)  # [B, n]


SAMPLERS: dict[str, Sampler] = {
    "consecutive": consecutive,
    "randomized": randomized,
    "with-replacement": with_replacement,
    "unsorted": unsorted,
    "order-statistics": order_statistics,
    "shift": shift,
    "affine": affine,
    "rescale": rescale,
    "jitter": jitter,
}


def _about_the_middle(n: int, length: int, place: Tensor, like: Tensor) -> Tensor:
    factor = ((2 * place.double() - 1) * math.log(length / n)).exp()  # [B, 1]
    return ((length - 1) / 2 + (_steps(n, like) - (n - 1) / 2) * factor).to(torch.float32)


def _steps(n: int, like: Tensor) -> Tensor:
    return torch.arange(n, dtype=torch.float64, device=like.device)  # [n]


def _check(n: int, length: int, uniform: Tensor) -> None:
    if not 1 <= n <= length:
        raise ValueError(f"cannot draw {n} distinct positions out of {length}")
    if uniform.dim() < 2 or uniform.shape[-1] != length:
        raise ValueError(f"expected uniforms of shape [B, {length}], got {list(uniform.shape)}")
