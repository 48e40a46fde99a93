"""Dotted keys and their values, as files and commands give them: checked, made a configuration."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from harness.config import KEYS, SECTIONS, Section, Stage
from harness.errors import UserError, got, nearest, short
from harness.kinds import kind_of
from harness.yamlfile import Value, plain

P = TypeVar("P", bound=Section)


def check_key(key: str, where: str, allowed: Iterable[str] = KEYS) -> None:
    """Refuse a key that is none of `allowed`, with the nearest one."""
    allowed = tuple(allowed)
    if key not in allowed:
        near = nearest(key, allowed if "." in key else SECTIONS) or _fuller(key, allowed)
        near = near or _siblings(key)
        raise UserError(f"{where}: unknown key '{short(key)}'{near}")


def _fuller(key: str, allowed: Iterable[str]) -> str:
    meant = next((other for other in allowed if other.endswith(f".{key}")), None)
    return f"; did you mean '{meant}'?" if meant else ""


def _siblings(key: str) -> str:
    section = key.split(".")[0]
    if section in SECTIONS:
        return f"; '{section}' has {_fields(section)}"
    return f"; sections are {', '.join(SECTIONS)}"


def _fields(section: str) -> str:
    return ", ".join(k.split(".")[1] for k in KEYS if k.startswith(section + "."))


def flatten(tree: dict[str, Value], prefix: str = "") -> dict[str, Value]:
    """Nested mappings -> {dotted key: Value}; dotted keys may stand in the tree as well."""
    flat: dict[str, Value] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value.data, dict) and value.data and path not in KEYS:
            inner = flatten(value.data, path + ".")
        elif path in SECTIONS:
            raise UserError(
                f"{value.where}: {path} is a section: got "
                f"{'nothing' if value.data is None else got(plain(value))}; "
                f"it has {_fields(path)}"
            )
        else:
            check_key(path, value.where)
            inner = {path: value}
        for name, item in inner.items():
            if name in flat:
                raise UserError(
                    f"{item.where}: '{name}' stands twice (first at {flat[name].where}); keep one"
                )
            flat[name] = item
    return flat


def build(part: type[P], flat: Mapping[str, Value]) -> P:
    """The validated `part` from its dotted keys; keys of other parts are passed over.

    Raises:
        UserError: one line with file, line, key, what was got and what is allowed.
    """
    tree: dict[str, dict[str, object]] = {}
    for key, value in flat.items():
        section, name = key.split(".")
        if section in part.model_fields:
            tree.setdefault(section, {})[name] = plain(value)
    try:
        return part.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(_telling(error), flat)) from None


def check_value(key: str, value: Value) -> Any:
    """The value as the key's field has it: 12 is the size (12, 12), and 1 the number 1.0.

    Raises:
        UserError: the key could never have it; what was got and what is allowed.
    """
    try:
        return _adapter(key).validate_python(plain(value))
    except ValidationError as error:
        first = _telling(error)
        first["loc"] = (*key.split("."), *first["loc"])
        raise UserError(_explain(first, {key: value})) from None


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(kind_of(KEYS[key]), config=ConfigDict(strict=True, allow_inf_nan=False))


def _telling(error: ValidationError) -> dict[str, Any]:
    """The one of several errors to tell: a misspelt key explains one that is missing."""
    found = error.errors()
    return dict(next((one for one in found if one["type"] == "extra_forbidden"), found[0]))


def _explain(error: Mapping[str, Any], flat: Mapping[str, Value]) -> str:
    path = [str(step) for step in error["loc"]]
    key = ".".join(path[:2])
    if error["type"] == "missing" and len(path) <= 2:
        missing = key if len(path) > 1 else f"{key}.{'resolution' if key == 'data' else 'images'}"
        known = next((value.where.rsplit(":", 1)[0] for value in flat.values()), "the base file")
        return f"{known}: '{missing}' is missing: {KEYS[missing].description}"
    where = flat[key].where if key in flat else "configuration"
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if key == "train.stages" and len(path) > 3:
        stage, field = f"{where}: {key}: stage {int(path[2]) + 1}", path[3]
        if error["type"] == "extra_forbidden":
            fields = Stage.model_fields
            near = nearest(field, fields) or f"; it has {', '.join(fields)}"
            return f"{stage}: unknown key '{short(field)}'{near}"
        meaning = Stage.model_fields[field].description
        if error["type"] == "missing":
            return f"{stage}: '{field}' is missing: {meaning}"
        return f"{stage}: {field}: got {got(error['input'])}: {reason} ({meaning})"
    return f"{where}: {key}: got {got(plain(flat[key]))}: {reason} ({KEYS[key].description})"
