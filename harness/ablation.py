"""An ablation file: its grammar, read and checked; the grid is made of it in `harness.grid`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.bases import FIELDS, found, read_base, relative
from harness.config import KEYS
from harness.errors import UserError, got, nearest, short
from harness.identity import digest
from harness.multiples import Units, absolute, all_absolute, unit_of
from harness.rules import (
    Axes,
    Exclude,
    When,
    axes_of,
    columns_of,
    excludes,
    included,
    listed,
    of_cells,
    settings,
    under,
    zipped,
)
from harness.settings import check_key
from harness.yamlfile import Value, load, parse_value, plain

NAME = re.compile(r"[\w+ ][\w.+ -]*")  # an option begins with -
MAX_NAME = 100  # characters; folders and files are called by it
MAX_SEEDS = 10_000
MAX_SEED = 2**63 - 1
MAX_RULES = 100


@dataclass(frozen=True)
class Ablation:
    """One file, one question. Values keep the file and line that they came from."""

    name: str
    path: Path
    question: str
    fixed: dict[str, Value]  # base, set and changes, dotted keys
    changes: tuple[str, ...] = ()  # KEY=VALUE and --base, as given on the command line
    axes: Axes = field(default_factory=dict)
    zips: list[Axes] = field(default_factory=list)
    include: list[dict[str, Value]] = field(default_factory=list)
    exclude: list[Exclude] = field(default_factory=list)
    when: list[When] = field(default_factory=list)
    seeds: tuple[int, ...] = (0,)
    evaluate: Axes = field(default_factory=dict)
    baseline: dict[str, Value] = field(default_factory=dict)


def read_ablation(
    path: Path,
    overrides: tuple[str, ...] = (),
    base: Path | None = None,
    seeds: int | None = None,
) -> Ablation:
    """Read and check an ablation file.

    Args:
        overrides: `KEY=VALUE` changes on top of the file's `set`.
        base: another base under the same question, from here or from the file's folder.
        seeds: use seeds 0 .. seeds - 1 in place of the file's.

    Raises:
        UserError: file, line, key, what was got, what is allowed.
    """
    _check_name(path)
    top = load(path)
    for name, value in top.items():
        if name not in FIELDS:
            raise UserError(
                f"{value.where}: unknown key '{short(name)}'{nearest(name, FIELDS)} "
                f"(an ablation has {', '.join(FIELDS)}; fixed changes stand under 'set')"
            )
    question = plain(top.get("question"))
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{path}: 'question' is missing: one sentence that the ablation answers")
    fixed: dict[str, Value] = {}
    if base is not None:
        base = found(base, path)
        fixed = read_base(base, (path.resolve(),))
    elif "base" in top:
        fixed = read_base(relative(top["base"], path), (path.resolve(),))
    unit = unit_of(fixed.pop("unit", None))
    asked = _overrides(overrides)
    for layer in (settings(top.get("set"), "set"), asked):
        images = layer.get("train.images")
        own = {} if images is None else {"train.images": images}  # 0.5x is of what lies below
        fixed |= layer | all_absolute(own, Units(unit, _images(fixed)))
    units = Units(unit, _images(fixed))
    fixed = all_absolute(fixed, units)
    top = {
        name: value if name == "evaluate" else absolute(value, units) for name, value in top.items()
    }
    axes = axes_of(top.get("axes"), "axes")
    zips = [group for item in listed(top.get("zip"), "zip") if (group := zipped(item))]
    columns = columns_of(top.get("evaluate"))
    when = [under(item, columns) for item in listed(top.get("when"), "when")]
    taken = _taken(path, axes, zips, when, columns)
    _check_free(asked, taken)
    if base is None and "base" not in top:
        _check_complete(path, fixed.keys() | taken)
    # However it was written, the same base is the same question.
    told = os.path.relpath(base.resolve(), path.resolve().parent) if base else None
    changes = (*([f"--base {told}"] if told else []), *overrides)
    naming = sorted(text for text in changes if not text.startswith("job."))
    return Ablation(
        # Another question gets another name, so that its report and its records stand beside.
        name=path.stem if not naming else f"{path.stem}+{digest(naming)[:6]}",
        changes=changes,
        path=path,
        question=" ".join(question.split()),
        fixed=fixed,
        axes=axes,
        zips=zips,
        include=[included(item, columns) for item in listed(top.get("include"), "include")],
        exclude=excludes(listed(top.get("exclude"), "exclude"), columns),
        when=when,
        seeds=_seeds(top.get("seeds")) if seeds is None else _first_seeds(seeds),
        evaluate=columns,
        baseline=of_cells(settings(top.get("baseline"), "baseline"), "baseline", columns),
    )


def _check_name(path: Path) -> None:
    if not NAME.fullmatch(path.stem) or len(path.stem) > MAX_NAME:
        raise UserError(
            f"{path.parent / short(path.name)}: got the name {got(path.stem)}, by which reports "
            f"are called:\nrename the file to 1 to {MAX_NAME} letters, digits, spaces and . _ - + "
            "(no . or - first)"
        )


def _taken(path: Path, axes: Axes, zips: list[Axes], when: list[When], columns: Axes) -> set[str]:
    """Every key that varies; a second place for one would silently win over the first.

    Raises:
        UserError: a key varies in two places (only rules of 'when' may share one).
    """
    groups = [("evaluate", columns), ("axes", axes), *(("zip", group) for group in zips)]
    groups += [("when", rule.axes) for rule in when]
    if len(when) > MAX_RULES:
        raise UserError(f"{path}: when: got {len(when)} rules; at most {MAX_RULES} are allowed")
    taken: dict[str, tuple[str, str]] = {}
    for place, group in groups:
        for key, values in group.items():
            here = values[0].where
            first, where = taken.get(key, (place, here))
            if key in taken and (first, place) != ("when", "when"):
                raise UserError(
                    f"{here}: {place}: '{key}' stands under '{first}' too (at {where}); keep one"
                )
            taken[key] = first, where
    return set(taken)


def _check_complete(path: Path, given: set[str]) -> None:
    """Without a base, the file itself has to give what has no default."""
    for key, info in KEYS.items():
        if info.is_required() and key not in given:
            raise UserError(
                f"{path}: '{key}' is missing, and so is 'base': name a file that has it, such as "
                f"base: base/fashion_mnist.yaml ({info.description})"
            )


def _seeds(value: Value | None) -> tuple[int, ...]:
    if value is None:
        return (0,)
    seeds = plain(value)
    good = (
        isinstance(seeds, list)
        and seeds
        and len(seeds) <= MAX_SEEDS
        and all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in seeds)
    )
    if not good:
        raise UserError(
            f"{value.where}: seeds: got {got(seeds)}; give a list such as [0, 1, 2] "
            f"of at most {MAX_SEEDS:,} whole numbers from 0 to 2**63 - 1"
        )
    assert isinstance(seeds, list)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{value.where}: seeds: got {got(seeds)}; each seed may stand once")
    return tuple(seeds)


def _first_seeds(number: int) -> tuple[int, ...]:
    if not 1 <= number <= MAX_SEEDS:
        raise UserError(f"--seeds {number}: allowed are 1 to {MAX_SEEDS:,}")
    return tuple(range(number))


def _overrides(overrides: tuple[str, ...]) -> dict[str, Value]:
    fixed: dict[str, Value] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        where = f"'{short(text)}'"
        if not equals:
            raise UserError(f"{where}: a change is KEY=VALUE, such as train.images=80000")
        check_key(key, where)
        if key in fixed:
            raise UserError(f"{where}: {key} is given twice; keep one")
        fixed[key] = parse_value(value, where)
    return fixed


def _check_free(asked: Mapping[str, Value], taken: set[str]) -> None:
    for key, value in asked.items():
        if key in taken:
            raise UserError(
                f"{value.where}: {key} is an axis of this file; pick cells with --only, or edit it"
            )


def _images(fixed: Mapping[str, Value]) -> int | None:
    value = fixed.get("train.images")
    return value.data if value is not None and isinstance(value.data, int) else None
