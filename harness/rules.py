"""The parts of an ablation file that say what varies: axes, zips, columns, rules, single cells.

Every function here refuses what it cannot take with a UserError: file, line, what was got.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config import EVALUATION_KEYS, JOB_KEYS, KEYS
from harness.errors import UserError, got, nearest, short
from harness.settings import check_key, check_value, flatten
from harness.yamlfile import Value, plain

Axes = dict[str, list[Value]]
Condition = dict[str, list[Any]]  # key -> the values that it may have, as its field has them

# Fields whose value is itself a list: in a condition only a list of lists means any of them.
LISTS = (".resolution", ".betas", ".stages", ".snapshots", ".extractors")


@dataclass(frozen=True)
class Exclude:
    name: str
    condition: Condition


@dataclass(frozen=True)
class When:
    condition: Condition
    axes: Axes


def settings(value: Value | None, what: str) -> dict[str, Value]:
    """Dotted keys of a mapping of the configuration; none where there is nothing."""
    if value is None or value.data is None:
        return {}
    return flatten(_mapping(value, what))


def listed(value: Value | None, what: str) -> list[Value]:
    """The items of a list; none where there is nothing."""
    if value is None or value.data is None:
        return []
    if not isinstance(value.data, list):
        raise UserError(
            f"{value.where}: {what} must be a list ('- ...' lines), got {got(plain(value))}"
        )
    return value.data


def _mapping(value: Value, what: str) -> dict[str, Value]:
    if not isinstance(value.data, dict):
        raise UserError(f"{value.where}: {what} must be a mapping, got {got(plain(value))}")
    return value.data


def axes_of(value: Value | None, what: str) -> Axes:
    """Key -> the values that it takes."""
    if value is None or value.data is None:
        return {}
    return {key: _axis(key, item, what) for key, item in _mapping(value, what).items()}


def _axis(key: str, value: Value, what: str) -> list[Value]:
    check_key(key, value.where, [k for k in KEYS if k not in JOB_KEYS])
    if not isinstance(value.data, list):
        raise UserError(
            f"{value.where}: {what}: {key}: got {got(plain(value))}; an axis is a list of values: "
            f"write [{plain(value)}]"
        )
    if not value.data:
        raise UserError(
            f"{value.where}: {what}: {key}: the axis is empty; give it a value or remove it"
        )
    return value.data


def zipped(value: Value) -> Axes:
    """Axes of one length, which advance together."""
    axes = axes_of(value, "zip")
    lengths = {key: len(values) for key, values in axes.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise UserError(f"{value.where}: zip: lists must be equally long: {told}")
    return axes


def columns_of(value: Value | None) -> Axes:
    """The axes of evaluation; a bare key belongs to the section `evaluate`."""
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


def included(value: Value, columns: Axes) -> dict[str, Value]:
    """A single cell's differences from base and set."""
    cell = of_cells(settings(value, "include"), "include", columns)
    for key, item in cell.items():
        if key in JOB_KEYS:
            raise UserError(
                f"{item.where}: include: '{key}' is one for all cells; put it under 'set'"
            )
    return cell


def of_cells(flat: dict[str, Value], what: str, columns: Axes) -> dict[str, Value]:
    """Refuse keys that a cell does not have, because they vary along its row."""
    for key, value in flat.items():
        if key in columns:
            raise UserError(
                f"{value.where}: {what}: '{key}' stands under 'evaluate' (at "
                f"{columns[key][0].where});\nit is a column, and 'if', 'include' and 'baseline' "
                "see cells, not columns: remove it from one of them"
            )
    return flat


def _condition(value: Value | None, where: str, columns: Axes) -> Condition:
    if value is None:
        raise UserError(f"{where}: 'if' is missing: the values under which it applies")
    condition: Condition = {}
    for key, item in of_cells(flatten(_mapping(value, "if")), "if", columns).items():
        if item.data == [] and not key.endswith(LISTS):
            raise UserError(f"{item.where}: if: {key}: got []; give the values that it may have")
        choices = item.data if isinstance(item.data, list) else [item]
        if key.endswith(LISTS) and not any(isinstance(choice.data, list) for choice in choices):
            choices = [item]  # [8, 12] is one size; [[8, 12], 16] are two
        condition[key] = [check_value(key, choice) for choice in choices]
    return condition


def excludes(values: list[Value], columns: Axes) -> list[Exclude]:
    """The rules that drop cells, each with a name of its own."""
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


def under(value: Value, columns: Axes) -> When:
    """One rule of `when`: the axes that exist only under a condition."""
    rule = _mapping(value, "when")
    _only(rule, ("if", "axes"), "when")
    if "axes" not in rule:
        raise UserError(f"{value.where}: when: 'axes' is missing: the axes that exist only then")
    condition = _condition(rule.get("if"), value.where, columns)
    return When(condition, axes_of(rule["axes"], "when"))


def _only(rule: Mapping[str, Value], allowed: tuple[str, ...], what: str) -> None:
    for key, value in rule.items():
        if key not in allowed:
            raise UserError(
                f"{value.where}: {what}: unknown key '{short(key)}'{nearest(key, allowed)} "
                f"(it has {', '.join(allowed)})"
            )
