"""Multipliers of the attention's logits q k / sqrt(head_dim) at inference.

A scale is `f(tokens in training, tokens now, scale) -> factor`, `scale` >= 1 being how many times
the positions outgrow the trained ones (the larger of the two axes). `log` and `sqrt-log` fall below
1 when there are fewer tokens than in training (0.75 and 0.87 for a 16 x 16 model at 8 x 8), which
flattens attention; `log-clamped` and `yarn` stay at 1 there. All are 1 at the training size and
scale 1, except `fitv2-code`.
"""

import math
from collections.abc import Callable

AttentionScale = Callable[[int, int, float], float]


def yarn(train: int, now: int, scale: float) -> float:
    """(0.1 ln s + 1)^2: YaRN's temperature, which q and k both carry (arXiv 2309.00071 eq. 22)."""
    return (0.1 * math.log(scale) + 1) ** 2


def sqrt_log(train: int, now: int, scale: float) -> float:
    """sqrt(log_train(now)): Jin et al. 2023 (arXiv 2306.08645) as it is implemented.

    ValueError below 2 tokens in training or 1 now, as in every logarithmic scale.
    """
    return math.sqrt(_log_ratio(train, now))


def log(train: int, now: int, scale: float) -> float:
    """log_train(now): Su's log-n scaling (kexue.fm 8823)."""
    return _log_ratio(train, now)


def log_clamped(train: int, now: int, scale: float) -> float:
    """max(1, log_train(now)): FiTv2 (arXiv 2410.13925) eq. 15."""
    return max(1.0, _log_ratio(train, now))


def fitv2_code(train: int, now: int, scale: float) -> float:
    """log_train(2 now): what FiTv2's released code multiplies with (`ntkpro2`).

    It has a factor 2 that the paper's equation lacks, so it is not 1 at the training size either
    (1.125 for 16 x 16 tokens). The published 320 x 320 figures were made with it.
    """
    return _log_ratio(train, 2 * now)


ATTENTION_SCALES: dict[str, AttentionScale] = {
    "none": lambda train, now, scale: 1.0,
    "yarn": yarn,
    "sqrt-log": sqrt_log,
    "log": log,
    "log-clamped": log_clamped,
    "fitv2-code": fitv2_code,
}


def _log_ratio(train: int, now: int) -> float:
    if train < 2 or now < 1:
        raise ValueError(
            f"a logarithmic attention scale needs at least 2 tokens in training and 1 now, "
            f"got {train} and {now}"
        )
    return math.log(now) / math.log(train)
