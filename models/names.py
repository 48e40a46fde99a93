"""The names of the methods, for places that must not import torch.

A test keeps each tuple equal to the keys of the table that implements it.
"""

from collections.abc import Collection
from difflib import get_close_matches

ENCODINGS = ("none", "sincos", "learned", "rope", "rope-mixed")
SAMPLERS = (
    "consecutive", "randomized", "with-replacement", "unsorted", "order-statistics", "shift",
    "affine", "rescale", "jitter",
)  # fmt: skip
PLACEMENTS = ("contiguous", "centred", "even", "expected", "random")
LAWS = (
    "extrapolate", "pi", "ei", "ntk", "yarn", "yarn-index", "lumina", "lumina-code", "riflex",
    "dype-pi", "dype-ntk", "dype-yarn", "resonance", "resonance-yarn",
)  # fmt: skip
LAW_SCALES = ("shared", "per_axis")
ATTENTION_SCALES = ("none", "yarn", "sqrt-log", "log", "log-clamped", "fitv2-code")

# Samplers that draw 0..n-1 bit for bit where the range is no wider than the grid.
PLAIN_AT_ONE = ("consecutive", "randomized", "shift", "affine", "rescale", "jitter")
# Placements that stay in the trained range whatever the grid (`expected` but for half a position),
# so that no law has anything to stretch.
COMPRESSING = ("even", "expected", "random")
# Codes that are added to the tokens once, before the first layer.
ABSOLUTE = ("sincos", "learned")
# Laws whose frequencies change while an image is sampled.
TIME_AWARE = ("lumina", "lumina-code", "dype-pi", "dype-ntk", "dype-yarn")

DDPM_STEPS = 1000  # of training, as in DiT (Peebles and Xie 2023, arXiv 2212.09748)

# An absolute code has no rotation whose base or ramp could be changed, so only the laws that
# rescale positions fit it; a learned table ends where training did and can only be resized; the
# learned frequencies of rope-mixed have no base; without an encoding there is nothing to rescale.
LAWS_FOR: dict[str, tuple[str, ...]] = {
    "none": ("extrapolate",),
    "sincos": ("extrapolate", "pi", "ei"),
    "learned": ("extrapolate", "ei"),
    "rope": tuple(law for law in LAWS if law != "ei"),
    "rope-mixed": ("extrapolate", "pi"),
}


def require(kind: str, name: str, choices: Collection[str]) -> None:
    """Raise ValueError, naming the choices and the nearest match, if `name` is not among them."""
    if name in choices:
        return
    near = get_close_matches(name, choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{kind} {name!r} is not one of {', '.join(choices)}{hint}")
