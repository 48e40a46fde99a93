"""The kinds of value that the configuration's fields take, each checked with a message."""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from harness.errors import nearest
from harness.extractors import FACTS as EXTRACTORS


@dataclass(frozen=True)
class OneOf:
    """A string out of `choices`; anything else is refused with the nearest of them."""

    choices: tuple[str, ...]

    def __call__(self, value: str) -> str:
        if value not in self.choices:
            allowed = ", ".join(self.choices)
            raise ValueError(f"allowed are {allowed}{nearest(value, self.choices)}")
        return value


def one_of(choices: tuple[str, ...]) -> AfterValidator:
    """See `OneOf`."""
    return AfterValidator(OneOf(choices))


def kind_of(field: FieldInfo) -> Any:
    """A field's type with what its values must keep to."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def choices_of(kind: Any) -> tuple[str, ...]:
    """The names that a type allows, wherever in it they stand; () where it allows others."""
    for part in get_args(kind):
        if isinstance(part, AfterValidator) and isinstance(part.func, OneOf):
            return part.func.choices
        if found := choices_of(part):
            return found
    return ()


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
    elif not 1e-3 <= value <= 1e3:
        raise ValueError("must be in 0.001 .. 1000")
    return value


def shown(value: object) -> str:
    """A value as it is written in YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


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
