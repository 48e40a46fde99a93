"""Inference-time laws: the angular frequencies of one axis, changed for a size never trained on.

A law is `f(axis) -> omega [channels/2] float64`, in radians per position. At scale 1 every law is
`extrapolate` bit for bit. T = 2 pi / omega is the period of a frequency, in positions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """What a law may look at.

    theta: base of the frequencies. channels: those of this axis, two per frequency (head_dim/2 for
    RoPE; width/2 for the sin-cos code, whose 10000^(-k/(D/4)) is the same theta^(-2k/channels)).
    scale: s >= 1, how many times the positions outgrow the trained ones. length: L, the number of
    trained positions. time: the sampler's t in 0..1, 1 = noise, for laws that change on the way.

    ValueError on an odd number of channels or a value out of its range.
    """

    theta: float
    channels: int
    scale: float
    length: float
    time: float = 0.0

    def __post_init__(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise ValueError(f"expected an even number of channels an axis, got {self.channels}")
        if not self.theta > 1:
            raise ValueError(f"expected a frequency base theta above 1, got {self.theta}")
        if not self.scale >= 1:
            raise ValueError(f"expected a scale of at least 1, got {self.scale}")
        if not self.length > 0:
            raise ValueError(f"expected a positive number of trained positions, got {self.length}")
        if not 0 <= self.time <= 1:
            raise ValueError(f"expected a time between 0 (data) and 1 (noise), got {self.time}")


Law = Callable[[Axis], Tensor]

# Rotations over the trained range below which a frequency is interpolated fully, and above which
# it is kept (YaRN, arXiv 2309.00071, for LLaMA; FiT keeps both for images).
ALPHA, BETA = 1.0, 32.0
# Lumina's released code interpolates before this time of its own (0 = noise), and then stops.
WATERSHED = 0.3
# RIFLEx stretches the period of its frequency to the test length over this.
RIFLEX_SHARE = 0.9
# DyPE's kappa(t) = DYPE_SCALE t^DYPE_POWER multiplies exponents; YaRN's ramp takes t^DYPE_POWER.
DYPE_SCALE, DYPE_POWER = 2.0, 2.0


def extrapolate(axis: Axis) -> Tensor:
    """omega_j = theta^(-2j/channels), j = 0..channels/2-1: the trained frequencies, unchanged.

    Source: RoFormer (arXiv 2104.09864) section 3.2.2.
    """
    return axis.theta ** (-2 * _index(axis) / axis.channels)  # [channels/2]


def pi(axis: Axis) -> Tensor:
    """Position interpolation: omega_j / s (Chen et al. 2023, arXiv 2306.15595)."""
    return extrapolate(axis) / axis.scale  # [channels/2]


def ntk(axis: Axis) -> Tensor:
    """NTK-aware: base theta s^(d/(d-2)), d channels: omega_0 stays and the last is omega/s.

    Source: FiT (arXiv 2402.12376) definition 3.1, per axis. ValueError if d <= 2: there the first
    frequency is also the last, and cannot both stay and be divided.
    """
    exponent = axis.channels / _beyond_the_first(axis, "ntk")
    return extrapolate(replace(axis, theta=axis.theta * axis.scale**exponent))  # [channels/2]


def yarn(axis: Axis) -> Tensor:
    """YaRN as published: the ramp runs over rotations r_j = L omega_j / (2 pi).

    omega'_j = (1 - g) omega_j / s + g omega_j,  g = clip((r_j - 1)/(32 - 1), 0, 1).
    Source: FiT definition 3.2. On a grid of 16 even r_0 is 2.5, so g <= 0.05: nearly `pi`.
    YaRN's temperature is an attention scale of its own here.
    """
    return _by_rotations(axis, ALPHA, BETA)  # [channels/2]


def yarn_index(axis: Axis) -> Tensor:
    """YaRN as FiT's code has it: the ramp runs over the index j, from `low` to `high`.

    index(r) = d ln(L / (2 pi r)) / (2 ln theta), d channels; low = floor(index(32)), high =
    ceil(index(1)), both clipped to 0..d-1; g_j = 1 - clip((j - low)/(high - low), 0, 1).
    Index 0 is always kept; it differs from `yarn` on small grids (16 positions, d = 36: g = 1,
    0.5, 0, ... against 0.05, 0.02, 0, ...). Up to 6 positions low = high = 0, and the ramp is a
    step: index 0 alone is kept.
    """
    last = axis.channels - 1

    def index(rotations: float) -> float:
        octaves = math.log(axis.length / (2 * math.pi * rotations)) / (2 * math.log(axis.theta))
        return axis.channels * octaves

    low = min(max(math.floor(index(BETA)), 0), last)
    high = min(max(math.ceil(index(ALPHA)), 0), last)
    # A ramp of no width becomes a step after `low` instead of 0/0.
    return _blend(axis, 1 - (_index(axis) - low) / max(high - low, 1e-3))  # [channels/2]


def lumina(axis: Axis) -> Tensor:
    """Lumina-Next's time-aware scaling, as published: from PI at the noise to NTK at the data.

    omega'_j = max(omega_j s^(-2j/d_t), omega_j / s),  d_t = (d - 1)(1 - time) + 1, d channels:
    the base theta s^(d/d_t), floored by PI. Index 0 is never scaled.
    Source: Lumina-Next (arXiv 2406.18583). Applied to each axis, d its own channels, is inferred.
    """
    d = (axis.channels - 1) * (1 - axis.time) + 1
    return torch.maximum(_stretched(axis, 1 / d), pi(axis))  # [channels/2]


def lumina_code(axis: Axis) -> Tensor:
    """Lumina-Next as released: PI while 1 - time < 0.3, then the base theta s.

    Source: Lumina-T2X, `precompute_freqs_cis`; the base has no exponent d/(d-2) there.
    """
    if 1 - axis.time < WATERSHED:
        return pi(axis)  # [channels/2]
    return extrapolate(replace(axis, theta=axis.theta * axis.scale))  # [channels/2]


def riflex(axis: Axis) -> Tensor:
    """RIFLEx: the frequency whose period is nearest to L gets the period L s / 0.9.

    k = argmin_j |round(T_j) - L|, the first of equals; omega'_k = 0.9 * 2 pi / (L s); all others
    unchanged. Just above scale 1 the period can become shorter than it was.
    Source: RIFLEx (arXiv 2502.15894) and its code, made for the frames of a video.
    """
    omega = extrapolate(axis)
    if axis.scale > 1:
        intrinsic = int((_periods(omega).round() - axis.length).abs().argmin())
        omega[intrinsic] = RIFLEX_SHARE * 2 * math.pi / (axis.length * axis.scale)
    return omega  # [channels/2]


def dype_pi(axis: Axis) -> Tensor:
    """DyPE over PI: omega_j / s^kappa, kappa = 2 t^2; s^2 at the noise, unscaled at the data.

    Source: DyPE (arXiv 2510.20766), lambda_s = lambda_t = 2, as are all three.
    """
    return extrapolate(axis) / axis.scale ** _kappa(axis)  # [channels/2]


def dype_ntk(axis: Axis) -> Tensor:
    """DyPE over NTK: omega_j s^(-kappa 2j/(d-2)), kappa = 2 t^2, d channels.

    ValueError if d <= 2, as in `ntk`.
    """
    return _stretched(axis, _kappa(axis) / _beyond_the_first(axis, "dype-ntk"))  # [channels/2]


def dype_yarn(axis: Axis) -> Tensor:
    """DyPE over YaRN: the ramp's bounds 1 and 32 become t^2 and 32 t^2; `yarn` at t = 1.

    At t = 0 the ramp has no width and every frequency turns often enough: nothing is scaled.
    Over the ramp of rotations, which cannot invert at a small t as that over the index does.
    """
    shrink = axis.time**DYPE_POWER
    if shrink == 0:
        return extrapolate(axis)  # [channels/2]
    return _by_rotations(axis, ALPHA * shrink, BETA * shrink)  # [channels/2]


def resonance(axis: Axis) -> Tensor:
    """Resonance RoPE: 2 pi / round(T_j), so that every period is a whole number of positions.

    Source: Wang et al. 2024 (arXiv 2403.00071). Rounding at inference alone is ours: the paper
    trains with it too.
    """
    return _whole_periods(axis, extrapolate(axis))  # [channels/2]


def resonance_yarn(axis: Axis) -> Tensor:
    """Resonance RoPE over `yarn`: its periods, rounded to whole positions."""
    return _whole_periods(axis, yarn(axis))  # [channels/2]


LAWS: dict[str, Law] = {
    "extrapolate": extrapolate,
    "pi": pi,
    "ei": extrapolate,  # resizes the code instead: models.geometry moves the positions
    "ntk": ntk,
    "yarn": yarn,
    "yarn-index": yarn_index,
    "lumina": lumina,
    "lumina-code": lumina_code,
    "riflex": riflex,
    "dype-pi": dype_pi,
    "dype-ntk": dype_ntk,
    "dype-yarn": dype_yarn,
    "resonance": resonance,
    "resonance-yarn": resonance_yarn,
}


def _index(axis: Axis) -> Tensor:
    return torch.arange(axis.channels // 2, dtype=torch.float64)  # [channels/2]


def _kappa(axis: Axis) -> float:
    return DYPE_SCALE * axis.time**DYPE_POWER


def _beyond_the_first(axis: Axis, law: str) -> int:
    if axis.channels <= 2:
        raise ValueError(f"the {law} law needs more than 2 channels an axis, got {axis.channels}")
    return axis.channels - 2


def _stretched(axis: Axis, rate: float) -> Tensor:
    # A base theta s^(d rate), without the overflow of large powers.
    return extrapolate(axis) * axis.scale ** (-2 * rate * _index(axis))  # [channels/2]


def _blend(axis: Axis, kept: Tensor) -> Tensor:
    # lerp is exact at both ends and where they are equal, as a weighted sum is not.
    return torch.lerp(pi(axis), extrapolate(axis), kept.clamp(0, 1))  # [channels/2]


def _by_rotations(axis: Axis, alpha: float, beta: float) -> Tensor:
    rotations = axis.length * extrapolate(axis) / (2 * math.pi)
    return _blend(axis, (rotations - alpha) / (beta - alpha))  # [channels/2]


def _periods(omega: Tensor) -> Tensor:
    return 2 * math.pi / omega  # [channels/2] positions


def _whole_periods(axis: Axis, omega: Tensor) -> Tensor:
    return 2 * math.pi / _periods(omega).round() if axis.scale > 1 else omega  # [channels/2]
