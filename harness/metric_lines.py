"""The lines that were added to a growing metrics.jsonl since it was last read.

A run at work for days has many lines, and a mirror that looks every two seconds must not read all
of them each time. So the place that was reached is kept, with the last line before it: where that
line is not there any more, the file was written anew (a resumed run), and is read from its start.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.files import Json


@dataclass(frozen=True)
class Place:
    """How far a file was read: its lines up to `offset` bytes, the last of which was `line`."""

    offset: int = 0
    line: bytes = b""


def lines_after(file: Path, place: Place) -> tuple[list[Json], Place]:
    """The whole lines after a place, or all of them if the file was replaced; and the new place.

    Raises:
        UserError: a line is damaged.
    """
    if not file.exists():
        return [], Place()
    with file.open("rb") as stream:
        stream.seek(place.offset - len(place.line))
        if stream.read(len(place.line)) != place.line:
            place = Place()
            stream.seek(0)
        added = [line for line in stream if line.endswith(b"\n")]  # a kill may cut the last short
    try:
        lines = [json.loads(line) for line in added]
        if not all(isinstance(line, dict) for line in lines):
            raise ValueError
    except ValueError:
        raise UserError(f"{file}: is damaged (a line is not JSON); remove that line") from None
    if not added:
        return [], place
    return lines, Place(place.offset + sum(map(len, added)), added[-1])
