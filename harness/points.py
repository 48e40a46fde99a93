"""The points of a grid, before they are cells: the product of its axes, its rules, their number."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.ablation import Ablation
from harness.config import KEYS
from harness.rules import Axes, Condition, When
from harness.settings import check_value
from harness.yamlfile import Value

MAX_CELLS = 1_000_000

Choices = dict[str, Value]


class Fields:
    """The values of points as their fields have them, so that 12 is [12, 12] and 1 is 1.0."""

    def __init__(self, fixed: Mapping[str, Value]) -> None:
        self._fixed = {key: field.default for key, field in KEYS.items()}
        self._fixed |= {key: check_value(key, value) for key, value in fixed.items()}
        # Points share the values of their axes; each is kept, so that its id stays its own.
        self._checked: dict[tuple[str, int], tuple[Value, Any]] = {}

    def hold(self, condition: Condition, point: Choices) -> bool:
        """Whether a point has one of the values of each key, also where no axis sets it."""
        return all(self._of(point, key) in allowed for key, allowed in condition.items())

    def _of(self, point: Choices, key: str) -> Any:
        if key not in point:
            return self._fixed[key]
        value = point[key]
        index = key, id(value)
        if index not in self._checked:
            self._checked[index] = value, check_value(key, value)
        return self._checked[index][1]


def alone(axes: Axes) -> list[Axes]:
    """Each axis as a group of its own."""
    return [{key: values} for key, values in axes.items()]


def product(groups: Sequence[Axes]) -> Iterator[Choices]:
    """All points of groups of axes; the lists inside a group advance together."""
    steps = [
        [list(zip(group, values, strict=True)) for values in zip(*group.values(), strict=True)]
        for group in groups
    ]
    for combination in itertools.product(*steps):
        yield dict(itertools.chain.from_iterable(combination))


def under(rules: Sequence[When], point: Choices, fields: Fields) -> Iterator[Choices]:
    """`point` times the axes of the rules that hold for it, one rule after the other."""
    points = [point]
    for rule in rules:
        points = [
            p | extra
            for p in points
            for extra in (product(alone(rule.axes)) if fields.hold(rule.condition, p) else [{}])
        ]
    yield from points


def count_cells(ablation: Ablation, fields: Fields) -> int:
    """How many cells the file asks for, without making one; beyond MAX_CELLS, at least how many."""
    groups = [*alone(ablation.axes), *ablation.zips]
    return _count(groups, ablation.when, {}, fields) + len(ablation.include)


def _count(groups: Sequence[Axes], rules: Sequence[When], point: Choices, fields: Fields) -> int:
    """Cells of `point` x `groups` under `rules`: walk what a rule looks at, multiply the rest."""
    looked_at = {key for rule in rules for key in rule.condition}
    walked = [group for group in groups if not looked_at.isdisjoint(group)]
    rest = math.prod(_length(group) for group in groups if looked_at.isdisjoint(group))
    if (least := math.prod(map(_length, walked))) > MAX_CELLS:
        return least * rest
    found = 0
    for choices in product(walked):
        here = point | choices
        index = next((i for i, r in enumerate(rules) if fields.hold(r.condition, here)), None)
        if index is None:
            found += 1
        else:
            found += _count(alone(rules[index].axes), rules[index + 1 :], here, fields)
        if found * rest > MAX_CELLS:
            break
    return found * rest


def _length(group: Axes) -> int:
    return len(next(iter(group.values())))
