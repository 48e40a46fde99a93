"""YAML read strictly: plain data only, each value with the file and line that it came from.

The scalars are those of YAML 1.2's core schema, not of PyYAML's YAML 1.1: `1e-4` is a number,
and `no`, `off` and `012` are not surprises. Tags, duplicate keys, cycles and documents that
expand out of proportion are refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from harness.errors import UserError, nearest, short

MAX_NODES = 100_000  # after aliases are expanded; the largest sensible file has some hundreds
MAX_DIGITS = 40  # of an integer

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INT = re.compile(r"[-+]?[0-9]+")
HEX = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
SPECIAL = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}

PLAIN = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Value:
    """A value and its origin, such as `ablations/range.yaml:7`."""

    data: object
    where: str


def scalar(text: str) -> object:
    """The value of an unquoted scalar by YAML 1.2's core schema."""
    if NULL.fullmatch(text):
        return None
    if text in BOOL:
        return BOOL[text]
    if INT.fullmatch(text):
        return int(text)
    if HEX.fullmatch(text):
        return int(text, 0)
    if FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in SPECIAL:
        return float(SPECIAL[text.lower()])
    return text


def load(
    path: Path, needs: str = "an ablation needs at least 'question' and 'base'"
) -> dict[str, Value]:
    """The top-level mapping of a YAML file: name -> Value, nested mappings as dicts of Values.

    Args:
        needs: what is said of a file with nothing in it.

    Raises:
        UserError: the file cannot be read, is no UTF-8, is no YAML, is no mapping, holds a tag,
            a duplicate key or an alias to itself, or expands to more than 100,000 values.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        beside = [file.name for file in path.parent.glob("*.yaml")]
        raise UserError(f"{path}: there is no such file{nearest(path.name, beside)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    node = _compose(text, str(path))
    if node is None:
        raise UserError(f"{path}: is empty; {needs}")
    if not isinstance(node, yaml.MappingNode):
        raise UserError(
            f"{path}:{node.start_mark.line + 1}: must be a mapping of 'key: value' lines"
        )
    return _Builder(str(path)).mapping(node, ())


def parse_value(text: str, where: str) -> Value:
    """One value given on the command line, such as the `1e-4` of `train.learning_rate=1e-4`."""
    node = _compose(text, where)
    if node is None:
        return Value(None, where)
    return Value(_Builder(where).value(node, ()).data, where)


def plain(value: object) -> object:
    """Data without origins: Values unwrapped, all the way down."""
    if isinstance(value, Value):
        return plain(value.data)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _compose(text: str, where: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        hint = ""
        if mark and "\t" in text.splitlines()[min(mark.line, len(text.splitlines()) - 1)]:
            hint = " (the line holds a tab; YAML indents with spaces)"
        raise UserError(f"{where}{line}: is not YAML: {error.problem}{hint}") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{where}: is not YAML: {reason}".replace("\n", " ")) from None


class _Builder:
    """Builds Values from one document's nodes, counting them (aliases count each time)."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.nodes = 0

    def where(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"

    def value(self, node: yaml.Node, above: tuple[int, ...]) -> Value:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise UserError(
                f"{self.where(node)}: expands to more than {MAX_NODES:,} values; "
                "write out what its aliases (*name) repeat, or use 'base'"
            )
        if id(node) in above:
            raise UserError(f"{self.where(node)}: an alias refers to itself; write it out")
        if isinstance(node, yaml.MappingNode):
            return Value(self.mapping(node, above), self.where(node))
        if isinstance(node, yaml.SequenceNode):
            self.refuse_tag(node, "seq")
            inside = (*above, id(node))
            return Value([self.value(item, inside) for item in node.value], self.where(node))
        assert isinstance(node, yaml.ScalarNode)
        if node.style is not None:  # quoted or block text is text
            self.refuse_tag(node, "str")
            return Value(self.text(node), self.where(node))
        if not node.tag.startswith(PLAIN) or node.tag.startswith(PLAIN + "python"):
            self.refuse_tag(node, "str")
        text = self.text(node)
        if len(text) > MAX_DIGITS and (INT.fullmatch(text) or HEX.fullmatch(text)):
            raise UserError(
                f"{self.where(node)}: got {short(text)}: a whole number of {len(text)} characters; "
                f"at most {MAX_DIGITS} are allowed, so write a smaller one"
            )
        return Value(scalar(text), self.where(node))

    def text(self, node: yaml.ScalarNode) -> str:
        """The text of a scalar; half a surrogate pair is no character, and no file can hold it."""
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise UserError(
                f"{self.where(node)}: got {ascii(node.value)[:80]}: \\ud800 to \\udfff are no "
                "characters of their own; write the character itself"
            )
        return str(node.value)

    def mapping(self, node: yaml.MappingNode, above: tuple[int, ...]) -> dict[str, Value]:
        self.refuse_tag(node, "map")
        inside = (*above, id(node))
        found: dict[str, Value] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{self.where(key_node)}: a key must be a plain word")
            self.refuse_tag(key_node, None)
            key = self.text(key_node)
            if key in found:
                raise UserError(
                    f"{self.where(key_node)}: key '{short(key)}' stands twice "
                    f"(first at {found[key].where}); keep one"
                )
            found[key] = self.value(value_node, inside)
        return found

    def refuse_tag(self, node: yaml.Node, kind: str | None) -> None:
        known = (
            node.tag.startswith(PLAIN)
            and "/" not in node.tag
            and (kind is None or node.tag == PLAIN + kind)
        )
        if not known:
            raise UserError(
                f"{self.where(node)}: tag '{node.tag.replace(PLAIN, '!!')}' is not allowed; "
                "write plain values"
            )
