"""An ablation file: its grammar, read and checked; the grid is made of it in `harness.grid`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.bases import FIELDS, found, read_base, relative
from harness.config import EVALUATION_KEYS, JOB_KEYS, KEYS
from harness.errors import UserError, got, nearest, short
from harness.identity import digest
from harness.multiples import Units, absolute, all_absolute, unit_of
from harness.settings import check_key, check_value, flatten
from harness.yamlfile import Value, load, parse_value, plain

NAME = re.compile(r"[\w+ -][\w.+ -]*")
MAX_NAME = 100  # characters; folders and files are called by it
MAX_SEEDS = 10_000
MAX_SEED = 2**63 - 1
MAX_RULES = 100

Axes = dict[str, list[Value]]
Condition = dict[str, list[Any]]  # key -> the values that it may have, as its field has them


@dataclass(frozen=True)
class Exclude:
    name: str
    condition: Condition


@dataclass(frozen=True)
class When:
    condition: Condition
    axes: Axes


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
        fixed = read_base(found(base, path), (path.resolve(),))
    elif "base" in top:
        fixed = read_base(relative(top["base"], path), (path.resolve(),))
    unit = unit_of(fixed.pop("unit", None))
    asked = _overrides(overrides)
    for layer in (_settings(top.get("set"), "set"), asked):
        images = layer.get("train.images")
        own = {} if images is None else {"train.images": images}  # 0.5x is of what lies below
        fixed |= layer | all_absolute(own, Units(unit, _images(fixed)))
    units = Units(unit, _images(fixed))
    fixed = all_absolute(fixed, units)
    top = {
        name: value if name == "evaluate" else absolute(value, units) for name, value in top.items()
    }
    axes = _axes(top.get("axes"), "axes")
    zips = [group for item in _list(top.get("zip"), "zip") if (group := _zip(item))]
    columns = _evaluate(top.get("evaluate"))
    when = [_when(item, columns) for item in _list(top.get("when"), "when")]
    taken = _taken(path, axes, zips, when, columns)
    _check_free(asked, taken)
    if base is None and "base" not in top:
        _check_complete(path, fixed.keys() | taken)
    changes = (*([f"--base {base}"] if base else []), *overrides)
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
        include=[_include(item, columns) for item in _list(top.get("include"), "include")],
        exclude=_excludes(_list(top.get("exclude"), "exclude"), columns),
        when=when,
        seeds=_seeds(top.get("seeds")) if seeds is None else _first_seeds(seeds),
        evaluate=columns,
        baseline=_of_cells(_settings(top.get("baseline"), "baseline"), "baseline", columns),
    )


def _check_name(path: Path) -> None:
    if not NAME.fullmatch(path.stem) or len(path.stem) > MAX_NAME:
        raise UserError(
            f"{path.parent / short(path.name)}: got the name {got(path.stem)}, by which reports "
            f"are called:\nrename the file to 1 to {MAX_NAME} letters, digits, spaces and . _ - + "
            "(no . first)"
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


def _of_cells(settings: dict[str, Value], what: str, columns: Axes) -> dict[str, Value]:
    """Refuse keys that a cell does not have, because they vary along its row."""
    for key, value in settings.items():
        if key in columns:
            raise UserError(
                f"{value.where}: {what}: '{key}' stands under 'evaluate' (at "
                f"{columns[key][0].where});\nit is a column, and 'if', 'include' and 'baseline' "
                "see cells, not columns: remove it from one of them"
            )
    return settings


def _mapping(value: Value, what: str) -> dict[str, Value]:
    if not isinstance(value.data, dict):
        raise UserError(f"{value.where}: {what} must be a mapping, got {got(plain(value))}")
    return value.data


def _list(value: Value | None, what: str) -> list[Value]:
    if value is None or value.data is None:
        return []
    if not isinstance(value.data, list):
        raise UserError(
            f"{value.where}: {what} must be a list ('- ...' lines), got {got(plain(value))}"
        )
    return value.data


def _settings(value: Value | None, what: str) -> dict[str, Value]:
    if value is None or value.data is None:
        return {}
    return flatten(_mapping(value, what))


def _axes(value: Value | None, what: str) -> Axes:
    if value is None or value.data is None:
        return {}
    return {key: _axis(key, item, what) for key, item in _mapping(value, what).items()}


def _axis(key: str, value: Value, what: str) -> list[Value]:
    check_key(key, value.where, [k for k in KEYS if k not in JOB_KEYS])
    if not isinstance(value.data, list):
        raise UserError(
            f"{value.where}: {what}: {key}: got {got(plain(value))}; an axis is a list of values "
            "(one fixed value belongs under 'set')"
        )
    if not value.data:
        raise UserError(
            f"{value.where}: {what}: {key}: the axis is empty; give it a value or remove it"
        )
    return value.data


def _zip(value: Value) -> Axes:
    axes = _axes(value, "zip")
    lengths = {key: len(values) for key, values in axes.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise UserError(f"{value.where}: zip: lists must be equally long: {told}")
    return axes


def _include(value: Value, columns: Axes) -> dict[str, Value]:
    settings = _of_cells(_settings(value, "include"), "include", columns)
    for key, item in settings.items():
        if key in JOB_KEYS:
            raise UserError(
                f"{item.where}: include: '{key}' is one for all cells; put it under 'set'"
            )
    return settings


def _condition(value: Value | None, where: str, columns: Axes) -> Condition:
    if value is None:
        raise UserError(f"{where}: 'if' is missing: the values under which it applies")
    condition: Condition = {}
    settings = _of_cells(flatten(_mapping(value, "if")), "if", columns)
    for key, item in settings.items():
        if item.data == []:
            raise UserError(f"{item.where}: if: {key}: got []; give the values that it may have")
        choices = item.data if isinstance(item.data, list) else [item]
        if key.endswith((".resolution", ".betas")) and not any(
            isinstance(choice.data, list) for choice in choices
        ):
            choices = [item]  # [8, 12] is one size; [[8, 12], 16] are two
        condition[key] = [check_value(key, choice) for choice in choices]
    return condition


def _excludes(values: list[Value], columns: Axes) -> list[Exclude]:
    rules: dict[str, Exclude] = {}
    for value in values:
        rule = _mapping(value, "exclude")
        _only(rule, ("name", "if"), "exclude")
        name = rule["name"].data if "name" in rule else None
        if not isinstance(name, str):
            raise UserError(
                f"{value.where}: exclude: 'name' is missing: the plan counts drops by it"
            )
        if name in rules:
            raise UserError(
                f"{value.where}: exclude: the name '{short(name)}' stands twice; the plan counts "
                "drops by it, so give each rule its own"
            )
        rules[name] = Exclude(name, _condition(rule.get("if"), value.where, columns))
    return list(rules.values())


def _when(value: Value, columns: Axes) -> When:
    rule = _mapping(value, "when")
    _only(rule, ("if", "axes"), "when")
    if "axes" not in rule:
        raise UserError(f"{value.where}: when: 'axes' is missing: the axes that exist only then")
    condition = _condition(rule.get("if"), value.where, columns)
    return When(condition, _axes(rule["axes"], "when"))


def _only(rule: Mapping[str, Value], allowed: tuple[str, ...], what: str) -> None:
    for key, value in rule.items():
        if key not in allowed:
            raise UserError(
                f"{value.where}: {what}: unknown key '{short(key)}'{nearest(key, allowed)} "
                f"(it has {', '.join(allowed)})"
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


def _evaluate(value: Value | None) -> Axes:
    if value is None or value.data is None:
        return {}
    axes: Axes = {}
    for key, item in _mapping(value, "evaluate").items():
        dotted = key if "." in key else f"evaluate.{key}"
        check_key(dotted, item.where, EVALUATION_KEYS)
        if dotted in axes:
            raise UserError(
                f"{item.where}: evaluate: '{dotted}' stands twice (first at "
                f"{axes[dotted][0].where}); keep one"
            )
        axes[dotted] = _axis(dotted, item, "evaluate")
    return axes


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
