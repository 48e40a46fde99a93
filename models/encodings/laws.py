"""Inference-time laws: angular frequencies of one axis, and the multiplier of attention's logits.

A law is `f(theta, dim, scale, length) -> omega [dim/2] float64`, in radians per position:
`theta` the base, `dim` the channels of the axis (two per frequency: head_dim/2 for RoPE, width/2
for the sin-cos code, whose 10000^(-k/(D/4)) is the same omega_k = theta^(-2k/dim)), `scale` >= 1
how many times the positions outgrow the trained ones, `length` the number of trained positions.
At scale 1 every law is `extrapolate` bit for bit.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Law = Callable[[float, int, float, float], Tensor]
AttentionScale = Callable[[int, int, float], float]

# Rotations over the trained range below which a frequency is interpolated fully, and above which
# it is kept (YaRN, arXiv 2309.00071, for LLaMA; FiT keeps both for images).
ALPHA, BETA = 1.0, 32.0


def extrapolate(theta: float, dim: int, scale: float, length: float) -> Tensor:
    """omega_j = theta^(-2j/dim), j = 0..dim/2-1: the trained frequencies, unchanged.

    Source: RoFormer (arXiv 2104.09864) section 3.2.2.
    ValueError on an odd dim, theta <= 1, scale < 1 or length <= 0, as in every law.
    """
    _check(theta, dim, scale, length)
    j = torch.arange(dim // 2, dtype=torch.float64)
    return theta ** (-2 * j / dim)  # [dim/2]


def pi(theta: float, dim: int, scale: float, length: float) -> Tensor:
    """Position interpolation: omega_j / scale (Chen et al. 2023, arXiv 2306.15595)."""
    return extrapolate(theta, dim, scale, length) / scale  # [dim/2]


def ntk(theta: float, dim: int, scale: float, length: float) -> Tensor:
    """NTK-aware: base theta * scale^(dim/(dim-2)), so omega_0 stays and the last is omega/scale.

    Source: FiT (arXiv 2402.12376) definition 3.1, per axis. ValueError if dim <= 2: there the
    first frequency is also the last, and cannot both stay and be divided.
    """
    _check(theta, dim, scale, length)
    if dim <= 2:
        raise ValueError(f"the ntk law needs more than 2 channels an axis, got {dim}")
    return extrapolate(theta * scale ** (dim / (dim - 2)), dim, scale, length)  # [dim/2]


def yarn(theta: float, dim: int, scale: float, length: float) -> Tensor:
    """YaRN as published: the ramp runs over rotations r_j = length omega_j / (2 pi).

    omega'_j = (1 - g) omega_j / scale + g omega_j,  g = clip((r_j - 1)/(32 - 1), 0, 1).
    Source: FiT definition 3.2. On a grid of 16 even r_0 is 2.5, so g <= 0.05: nearly `pi`.
    YaRN's temperature is an attention scale of its own here.
    """
    omega = extrapolate(theta, dim, scale, length)
    rotations = length * omega / (2 * math.pi)
    return _blend(omega, scale, (rotations - ALPHA) / (BETA - ALPHA))


def yarn_index(theta: float, dim: int, scale: float, length: float) -> Tensor:
    """YaRN as FiT's code has it: the ramp runs over the index j, from `low` to `high`.

    index(r) = dim ln(length / (2 pi r)) / (2 ln theta), low = floor(index(32)), high =
    ceil(index(1)), both clipped to 0..dim-1; g_j = 1 - clip((j - low)/(high - low), 0, 1).
    Index 0 is always kept; it differs from `yarn` on small grids (16 positions, dim 36: g = 1,
    0.5, 0, ... against 0.05, 0.02, 0, ...). Up to 6 positions low = high = 0, and the ramp is a
    step: index 0 alone is kept.
    """
    omega = extrapolate(theta, dim, scale, length)

    def index(rotations: float) -> float:
        return dim * math.log(length / (2 * math.pi * rotations)) / (2 * math.log(theta))

    low = min(max(math.floor(index(BETA)), 0), dim - 1)
    high = min(max(math.ceil(index(ALPHA)), 0), dim - 1)
    j = torch.arange(dim // 2, dtype=torch.float64)
    # A ramp of no width becomes a step after `low` instead of 0/0.
    return _blend(omega, scale, 1 - (j - low) / max(high - low, 1e-3))


LAWS: dict[str, Law] = {
    "extrapolate": extrapolate,
    "pi": pi,
    "ntk": ntk,
    "yarn": yarn,
    "yarn-index": yarn_index,
}

# Multipliers of the logits q k / sqrt(head_dim): f(tokens in training, tokens now, scale). `log`
# and `sqrt-log` fall below 1 when there are fewer tokens than in training (0.75 and 0.87 for a
# 16 x 16 model at 8 x 8), which flattens attention; `log-clamped` and `yarn` stay at 1 there.
ATTENTION_SCALES: dict[str, AttentionScale] = {
    "none": lambda train, test, scale: 1.0,
    # YaRN's temperature 0.1 ln s + 1, which q and k both carry (arXiv 2309.00071 eq. 22).
    "yarn": lambda train, test, scale: (0.1 * math.log(scale) + 1) ** 2,
    # Jin et al. 2023 (arXiv 2306.08645) as implemented: sqrt(log_train(test)).
    "sqrt-log": lambda train, test, scale: math.sqrt(_log_ratio(train, test)),
    # Su's log-n scaling: log_train(test).
    "log": lambda train, test, scale: _log_ratio(train, test),
    # FiTv2 eq. 15: max(1, log_train(test)).
    "log-clamped": lambda train, test, scale: max(1.0, _log_ratio(train, test)),
}


def _blend(omega: Tensor, scale: float, kept: Tensor) -> Tensor:
    # lerp is exact at both ends and where they are equal, as a weighted sum is not.
    return torch.lerp(omega / scale, omega, kept.clamp(0, 1))  # [dim/2]


def _log_ratio(train: int, test: int) -> float:
    if train < 2 or test < 1:
        raise ValueError(
            f"a logarithmic attention scale needs at least 2 tokens in training and 1 now, "
            f"got {train} and {test}"
        )
    return math.log(test) / math.log(train)


def _check(theta: float, dim: int, scale: float, length: float) -> None:
    if dim < 2 or dim % 2:
        raise ValueError(f"expected an even number of channels an axis, got {dim}")
    if not theta > 1:
        raise ValueError(f"expected a frequency base theta above 1, got {theta}")
    if not scale >= 1:
        raise ValueError(f"expected a scale of at least 1, got {scale}")
    if not length > 0:
        raise ValueError(f"expected a positive number of trained positions, got {length}")
