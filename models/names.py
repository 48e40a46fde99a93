"""The names of the methods, for places that must not import torch.

A test keeps each tuple equal to the keys of the table that implements it.
"""

from collections.abc import Collection
from difflib import get_close_matches

ENCODINGS = ("none", "sincos", "rope")
SAMPLERS = ("consecutive", "randomized")
PLACEMENTS = ("contiguous", "centred", "even", "expected")
LAWS = ("extrapolate", "pi", "ntk", "yarn", "yarn-index")
ATTENTION_SCALES = ("none", "yarn", "sqrt-log", "log", "log-clamped")

# An absolute code has no rotation whose base or ramp could be changed, so only the laws that
# rescale positions fit it; without an encoding there are no frequencies to rescale.
LAWS_FOR: dict[str, tuple[str, ...]] = {
    "none": ("extrapolate",),
    "sincos": ("extrapolate", "pi"),
    "rope": LAWS,
}


def require(kind: str, name: str, choices: Collection[str]) -> None:
    """Raise ValueError, naming the choices and the nearest match, if `name` is not among them."""
    if name in choices:
        return
    near = get_close_matches(name, choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{kind} {name!r} is not one of {', '.join(choices)}{hint}")
