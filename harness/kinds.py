"""The kinds of value that the configuration's fields take, each checked with a message."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from harness.errors import nearest
from harness.extractors import FACTS as EXTRACTORS


def one_of(choices: tuple[str, ...]) -> AfterValidator:
    """A string out of `choices`; anything else is refused with the nearest of them."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"allowed are {', '.join(choices)}{nearest(value, choices)}")
        return value

    return AfterValidator(check)


def as_size(value: object) -> object:
    """`24` -> (24, 24) and `[16, 24]` -> (16, 24): height, width in pixels."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value)
    raise ValueError("must be a number of pixels, or [height, width]")


def as_pair(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value)
    raise ValueError("must be two numbers, such as [0.9, 0.99]")


def as_names(value: object) -> object:
    """`dinov2` -> ('dinov2',), and a list as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def as_tuple(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(value)
    raise ValueError("must be a list")


def as_shift(value: float | str) -> float | str:
    """'none', 'sd3' or a positive number."""
    if isinstance(value, str):
        choices = ("none", "sd3")
        if value not in choices:
            near = nearest(value, choices)
            raise ValueError(f"allowed are none, sd3 or a number{near}")
    elif not value > 0:
        raise ValueError("must be above 0")
    return value


Positive = Annotated[int, Field(ge=1, le=10**12)]  # a larger count is a slip; most are tighter
Pixels = Annotated[Positive, Field(le=2**16)]
Size = Annotated[tuple[Pixels, Pixels], BeforeValidator(as_size)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Extractors = Annotated[
    tuple[Annotated[str, one_of(tuple(EXTRACTORS))], ...],
    Field(min_length=1),
    AfterValidator(lambda names: tuple(sorted(set(names)))),
]
