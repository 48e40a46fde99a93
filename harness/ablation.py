"""An ablation file: its grammar, read and checked; the grid is made of it in `harness.grid`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.config import (
    EVALUATION_KEYS,
    JOB_KEYS,
    KEYS,
    check_key,
    flatten,
)
from harness.errors import UserError, nearest
from harness.identity import digest
from harness.yamlfile import Value, load, parse_value, plain

FIELDS = (
    "question", "base", "set", "axes", "zip", "include", "exclude", "when", "seeds", "evaluate",
    "baseline",
)  # fmt: skip

Axes = dict[str, list[Value]]
Condition = dict[str, list[object]]


@dataclass(frozen=True)
class Exclude:
    name: str
    condition: Condition


@dataclass(frozen=True)
class When:
    condition: Condition
    axes: Axes
    where: str


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
    top = load(path)
    for name, value in top.items():
        if name not in FIELDS:
            raise UserError(
                f"{value.where}: unknown key '{name}'{nearest(name, FIELDS)} "
                f"(an ablation has {', '.join(FIELDS)}; fixed changes stand under 'set')"
            )
    if not isinstance(plain(top.get("question", Value("", ""))), str) or not plain(
        top.get("question")
    ):
        raise UserError(f"{path}: 'question' is missing: one sentence that the ablation answers")
    if base is not None:
        fixed = read_base(_found(base, path), (path.resolve(),))
    elif "base" in top:
        fixed = read_base(_relative(top["base"], path), (path.resolve(),))
    else:
        fixed = {}
    fixed |= _settings(top.get("set"), "set")
    axes = _axes(top.get("axes"), "axes")
    zips = [_zip(item) for item in _list(top.get("zip"), "zip")]
    when = [_when(item) for item in _list(top.get("when"), "when")]
    taken = set(axes) | {k for z in zips for k in z} | {k for w in when for k in w.axes}
    fixed |= _overrides(overrides, taken)
    changes = (*([f"--base {base}"] if base else []), *overrides)
    return Ablation(
        # Another question gets another name, so that its report and its records stand beside.
        name=path.stem if not changes else f"{path.stem}+{digest(sorted(changes))[:6]}",
        changes=changes,
        path=path,
        question=" ".join(str(plain(top["question"])).split()),
        fixed=fixed,
        axes=axes,
        zips=zips,
        include=[_settings(item, "include") for item in _list(top.get("include"), "include")],
        exclude=[_exclude(item) for item in _list(top.get("exclude"), "exclude")],
        when=when,
        seeds=tuple(range(seeds)) if seeds is not None else _seeds(top.get("seeds")),
        evaluate=_evaluate(top.get("evaluate")),
        baseline=_settings(top.get("baseline"), "baseline"),
    )


def read_base(path: Path, above: tuple[Path, ...]) -> dict[str, Value]:
    """Dotted keys of a base file on top of its own base.

    Raises:
        UserError: the file is missing, or is its own base by way of others.
    """
    if path.resolve() in above:
        chain = " -> ".join(p.name for p in (*above, path))
        raise UserError(f"{above[-1]}: 'base' goes in a circle: {chain}; remove one of them")
    top = load(path)
    inherited: dict[str, Value] = {}
    if "base" in top:
        inherited = read_base(_relative(top.pop("base"), path), (*above, path.resolve()))
    misplaced = next((name for name in top if name in FIELDS and name != "evaluate"), None)
    if misplaced:
        raise UserError(
            f"{top[misplaced].where}: '{misplaced}' belongs into an ablation, not into a base"
        )
    return inherited | flatten(top)


def _relative(value: Value, path: Path) -> Path:
    if not isinstance(value.data, str):
        raise UserError(f"{value.where}: base: got {plain(value)!r}; give the path of a YAML file")
    found = path.parent / value.data
    if not found.is_file():
        raise UserError(
            f"{value.where}: base: there is no file {found}{nearest(value.data, _yaml_files(path))}"
        )
    return found


def _found(base: Path, path: Path) -> Path:
    for candidate in (base, path.parent / base):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"--base {base}: there is no such file, here or in {path.parent}"
        f"{nearest(str(base), _yaml_files(path))}"
    )


def _yaml_files(beside: Path) -> list[str]:
    """What a misspelt base could have meant."""
    folder = beside.parent
    return [str(p.relative_to(folder)) for p in folder.glob("**/*.yaml") if p != beside]


def _mapping(value: Value, what: str) -> dict[str, Value]:
    if not isinstance(value.data, dict):
        raise UserError(f"{value.where}: {what} must be a mapping, got {plain(value)!r}")
    return value.data


def _list(value: Value | None, what: str) -> list[Value]:
    if value is None or value.data is None:
        return []
    if not isinstance(value.data, list):
        raise UserError(
            f"{value.where}: {what} must be a list ('- ...' lines), got {plain(value)!r}"
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
            f"{value.where}: {what}: {key}: got {plain(value)!r}; an axis is a list of values "
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


def _condition(value: Value | None, where: str) -> Condition:
    if value is None:
        raise UserError(f"{where}: 'if' is missing: the values under which it applies")
    condition: Condition = {}
    for key, item in flatten(_mapping(value, "if")).items():
        data = plain(item)
        is_choice = isinstance(data, list) and not key.endswith((".resolution", ".betas"))
        condition[key] = data if is_choice else [data]  # type: ignore[assignment]
    return condition


def _exclude(value: Value) -> Exclude:
    rule = _mapping(value, "exclude")
    _only(rule, ("name", "if"), "exclude")
    if "name" not in rule or not isinstance(rule["name"].data, str):
        raise UserError(f"{value.where}: exclude: 'name' is missing: the plan counts drops by it")
    return Exclude(rule["name"].data, _condition(rule.get("if"), value.where))


def _when(value: Value) -> When:
    rule = _mapping(value, "when")
    _only(rule, ("if", "axes"), "when")
    if "axes" not in rule:
        raise UserError(f"{value.where}: when: 'axes' is missing: the axes that exist only then")
    return When(_condition(rule.get("if"), value.where), _axes(rule["axes"], "when"), value.where)


def _only(rule: Mapping[str, Value], allowed: tuple[str, ...], what: str) -> None:
    for key, value in rule.items():
        if key not in allowed:
            raise UserError(
                f"{value.where}: {what}: unknown key '{key}'{nearest(key, allowed)} "
                f"(it has {', '.join(allowed)})"
            )


def _seeds(value: Value | None) -> tuple[int, ...]:
    if value is None:
        return (0,)
    seeds = plain(value)
    good = (
        isinstance(seeds, list)
        and seeds
        and all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds)
    )
    if not good:
        raise UserError(
            f"{value.where}: seeds: got {seeds!r}; give a list of numbers such as [0, 1, 2]"
        )
    assert isinstance(seeds, list)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{value.where}: seeds: got {seeds!r}; each seed may stand once")
    return tuple(seeds)


def _evaluate(value: Value | None) -> Axes:
    if value is None or value.data is None:
        return {}
    axes = {}
    for key, item in _mapping(value, "evaluate").items():
        dotted = key if "." in key else f"evaluate.{key}"
        check_key(dotted, item.where, EVALUATION_KEYS)
        axes[dotted] = _axis(dotted, item, "evaluate")
    return axes


def _overrides(overrides: tuple[str, ...], taken: set[str]) -> dict[str, Value]:
    fixed: dict[str, Value] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"'{text}': a change is KEY=VALUE, such as train.images=80000")
        check_key(key, f"'{text}'")
        if key in taken:
            raise UserError(f"'{text}': {key} is an axis of this file; pick cells with --only")
        fixed[key] = parse_value(value, f"'{text}'")
    return fixed
