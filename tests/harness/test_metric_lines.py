"""A growing file is read on from where it was left, and anew when it was replaced."""

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.metric_lines import Place, lines_after


def text(*steps: int, time: int = 0) -> str:
    return "".join(f'{{"step": {step}, "time": {time}}}\n' for step in steps)


def read(file: Path, place: Place) -> tuple[list[int], Place]:
    lines, place = lines_after(file, place)
    return [line["step"] for line in lines], place


def test_only_what_was_added_is_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert read(file, Place()) == ([], Place())
    file.write_text(text(1, 2) + text(3)[:9])  # cut short, as while it is written
    steps, place = read(file, Place())
    assert steps == [1, 2]
    assert read(file, place) == ([], place)
    file.write_text(text(1, 2, 3, 4))
    steps, place = read(file, place)
    assert (steps, place.offset) == ([3, 4], file.stat().st_size)

    damaged = file.read_text().replace("2", "?")  # behind the place: it is not read again
    file.write_text(damaged + text(5))
    assert read(file, place)[0] == [5]
    with pytest.raises(UserError, match="remove that line"):
        lines_after(file, Place())


@pytest.mark.parametrize("after", [text(1, 2, time=7), text(1), "", text(1, 2, 3, 4, 5, time=7)])
def test_a_file_that_was_replaced_is_read_from_its_start(tmp_path: Path, after: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(text(1, 2, 3))
    _, place = read(file, Place())
    file.write_text(after)
    steps, place = read(file, place)
    assert len(steps) == after.count("\n")
    with file.open("a") as more:
        more.write(text(9))
    assert read(file, place)[0] == [9]


@pytest.mark.parametrize("line", ["no json", "[1]", "\0\0\0", "{"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(text(1) + line + "\n")
    with pytest.raises(UserError, match="a line is not JSON"):
        lines_after(file, Place())
