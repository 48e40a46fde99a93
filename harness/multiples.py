"""Multiples such as `1.5x`, so that one ablation file fits every base.

data.resolution: 2x                              of the `unit` (pixels) that the base names
train.images: 0.5x                               of the base's
train.stages: [{resolution: 1x, images: 0.5x}]   of the unit, and of train.images
evaluate: {resolution: [1x, 1.5x]}               of each cell's own training size
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from harness.errors import UserError, got
from harness.yamlfile import Value, plain

MULTIPLE = re.compile(r"([0-9]+(?:\.[0-9]+)?)x")


@dataclass(frozen=True)
class Units:
    """What 1x stands for; None where nothing was named."""

    pixels: int | None
    images: int | None


def factor(data: object) -> Fraction | None:
    """3/2 for `1.5x`; None for what is no multiple."""
    match = MULTIPLE.fullmatch(data) if isinstance(data, str) else None
    return Fraction(match.group(1)) if match else None


def unit_of(value: Value | None) -> int | None:
    """The pixels of 1x, from a base file's `unit`.

    Raises:
        UserError: no whole number above 0.
    """
    if value is None:
        return None
    if type(value.data) is not int or not 1 <= value.data <= 2**16:
        raise UserError(
            f"{value.where}: unit: got {got(plain(value))}; give the pixels that 1x stands for, "
            "such as 16"
        )
    return value.data


def absolute(value: Value, units: Units, key: str = "") -> Value:
    """`value` with the multiples in it worked out, wherever they stand in a mapping or list.

    Args:
        key: dotted key of the value, whose last part says which unit it is in.

    Raises:
        UserError: no unit is named, or the product is no whole number.
    """
    if isinstance(value.data, dict):
        inner = {name: absolute(item, units, name) for name, item in value.data.items()}
        return Value(inner, value.where)
    if isinstance(value.data, list):
        return Value([absolute(item, units, key) for item in value.data], value.where)
    field = key.rpartition(".")[2]
    times = factor(value.data) if field in ("resolution", "images") else None
    if times is None or key == "evaluate.resolution":
        return value
    unit = units.pixels if field == "resolution" else units.images
    if unit is None:
        missing = "the base names no 'unit' (pixels of 1x)"
        missing = missing if field == "resolution" else "there is no train.images to multiply"
        raise UserError(f"{value.where}: {key}: got '{value.data}', but {missing}")
    if field == "images":
        return Value(round(times * unit), value.where)
    return Value(_whole(times, unit, value, f"the base's unit of {unit} pixels"), value.where)


def all_absolute(flat: Mapping[str, Value], units: Units) -> dict[str, Value]:
    """`absolute` for dotted keys."""
    return {key: absolute(value, units, key) for key, value in flat.items()}


def of_training(value: Value, resolution: tuple[int, int]) -> Value:
    """A column's `1.5x`, or `[1x, 2x]`, as the size it is for a model trained at `resolution`.

    Raises:
        UserError: it is no whole number of pixels.
    """
    asked = value.data if isinstance(value.data, list) else [value, value]
    if len(asked) != 2 or all(factor(side.data) is None for side in asked):
        return value
    named = f"the training size {resolution[0]}x{resolution[1]}"
    sides = [
        Value(_whole(times, whole, side, named), side.where)
        if (times := factor(side.data))
        else side
        for side, whole in zip(asked, resolution, strict=True)
    ]
    return sides[0] if sides[0].data == sides[1].data else Value(sides, value.where)


def _whole(times: Fraction, unit: int, value: Value, of: str) -> int:
    pixels = times * unit
    if pixels.denominator != 1 or pixels < 1:
        raise UserError(
            f"{value.where}: got '{value.data}', which is {float(pixels):g} pixels of {of}; "
            "give a multiple that is a whole number of pixels"
        )
    return int(pixels)
