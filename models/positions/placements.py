"""Inference-time placements: where n patches sit on an axis trained with positions 0..length-1.

A placement is `f(n, length) -> positions [n] float32`, ascending, in units of one trained position.
At n == length all of them are 0..n-1 bit for bit. They differ in gap and span elsewhere:
`contiguous` and `centred` keep a gap of 1, `even` and `expected` keep the span. The one that is no
function of n and length alone, `random`, is a draw of `samplers` (`geometry.inference_geometry`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Placement = Callable[[int, int], Tensor]


def contiguous(n: int, length: int) -> Tensor:
    """0, 1, ..., n-1, whatever the range; beyond it for n > length (plain extrapolation)."""
    return _steps(n, length).to(torch.float32)  # [n]


def centred(n: int, length: int) -> Tensor:
    """Gap 1, centred in the range: k + (length - n)/2, k = 0..n-1.

    An odd length - n gives half positions, which training with integers never showed.
    For n > length it starts at 0, as `contiguous` does.
    """
    return (_steps(n, length) + max(length - n, 0) / 2).to(torch.float32)  # [n]


def even(n: int, length: int) -> Tensor:
    """From end to end of the range: k (length-1)/(n-1), k = 0..n-1; one patch sits in the middle.

    For n > length the gap is below 1: the positions are fractional but inside the range. A range of
    one position has no ends: every patch then sits on it.
    """
    steps = _steps(n, length)
    if n == 1:
        return torch.full((1,), (length - 1) / 2, dtype=torch.float32)
    # Multiply first: at n == length the quotient is then exact by construction.
    return (steps * (length - 1) / (n - 1)).to(torch.float32)  # [n]


def expected(n: int, length: int) -> Tensor:
    """The mean of each order statistic of a random draw: E_k = k (L+1)/(n+1) - 1, k = 1..n.

    The centre of what `samplers.randomized` shows to the k-th patch (mean of the k-th smallest of
    n out of 0..L-1 without replacement). For n > length there is no such draw; the same line then
    compresses, and its ends lie up to 1/2 outside 0..L-1 (-0.48 and 15.48 for n = 32, L = 16).
    """
    return ((_steps(n, length) + 1) * (length + 1) / (n + 1) - 1).to(torch.float32)  # [n]


PLACEMENTS: dict[str, Placement] = {
    "contiguous": contiguous,
    "centred": centred,
    "even": even,
    "expected": expected,
}


def _steps(n: int, length: int) -> Tensor:
    if n < 1 or length < 1:
        raise ValueError(f"cannot place {n} patches in a range of {length} positions")
    return torch.arange(n, dtype=torch.float64)  # [n]
