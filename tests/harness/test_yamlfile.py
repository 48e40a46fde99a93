from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.yamlfile import load, parse_value, plain, scalar


def loaded(tmp_path: Path, text: str | bytes) -> object:
    file = tmp_path / "x.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return plain(load(file))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2E3", 2000.0),
        ("1", 1),
        ("-3", -3),
        ("012", 12),
        ("1.", 1.0),
        (".5", 0.5),
        ("0x10", 16),
        ("true", True),
        ("no", "no"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("1e", "1e"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_are_yaml_1_2(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_writes_reads_back(value: float) -> None:
    assert scalar(repr(value)) == value


def test_values_know_their_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: 1\nb:\n  c: [2,\n   '3']\n")
    top = load(file)
    assert top["b"].data["c"].data[1].where == f"{file}:4"
    assert plain(top) == {"a": 1, "b": {"c": [2, "3"]}}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n\t- 1\n", "x.yaml:2: is not YAML"),
        (b"a: \xff\n", "not UTF-8"),
        ("a: 1\na: 2\n", "x.yaml:2: key 'a' stands twice"),
        ("a: !!python/object/apply:os.system [ls]\n", "x.yaml:1: tag '!!python/object/apply"),
        ("a: !!python/name:os.system ''\n", "tag"),
        ("a: !thing 3\n", "tag '!thing' is not allowed"),
        (BOMB, "expands to more than 100,000 values"),
        ("a: &x [*x]\n", "refers to itself"),
        ("a: [1\n", "is not YAML"),
        ("- 1\n", "must be a mapping"),
        ("", "is empty"),
        ("? [a, b]\n: 1\n", "a key must be a plain word"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("a:\n - " + "9" * 5000, "x.yaml:2: got 999"),
        ("a: 0x" + "f" * 5000, "a whole number of 5002 characters"),
        ('a: "\\ud800"\n', "are no characters of their own"),
        ('"\\udfff": 3\n', "are no characters of their own"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded(tmp_path, text)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_modest_alias_is_allowed(tmp_path: Path) -> None:
    assert loaded(tmp_path, "a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: there is no such file$"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "range.yaml").touch()
    with pytest.raises(UserError, match=r"rang\.yaml: .* did you mean 'range\.yaml'"):
        load(tmp_path / "rang.yaml")


def test_values_of_the_command_line() -> None:
    assert parse_value("1e-4", "'x'").data == 1e-4
    assert plain(parse_value("[16, 24]", "'x'")) == [16, 24]
    assert parse_value("", "'x'").data is None
