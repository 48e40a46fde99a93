"""The columns of a report: at what size, after how much of the training, and with what else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.kinds import shown
from reports.formats import percent, pixels

SAID = ("evaluate.resolution", "evaluate.after")  # what a column has words of its own for


@dataclass(frozen=True)
class Column:
    """One way in which rows are measured: a resolution, and other axes of `evaluate`."""

    resolution: tuple[int, int]  # height, width in pixels
    rest: tuple[tuple[str, str], ...] = ()  # other axes and their values
    scale: str = ""  # `1.5×` the training size, where all rows train at one size
    after: float = 1.0  # share of the training

    @property
    def others(self) -> str:
        """`guidance=2`: the axes beside resolution and share of the training, or nothing."""
        return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.rest)

    @property
    def title(self) -> str:
        """`24×24 (2×)`, `16×24, guidance=2`, `24×24 after 50 %`."""
        text = pixels(self.resolution) + (f" ({self.scale})" if self.scale else "")
        text += f" after {percent(self.after)}" if self.after < 1 else ""
        return text + (f", {self.others}" if self.rest else "")

    @property
    def slug(self) -> str:
        """The column in a file name."""
        parts = [
            pixels(self.resolution, "x"),
            *([f"after-{self.after:g}"] if self.after < 1 else []),
            *(f"{k.rpartition('.')[2]}-{v}" for k, v in self.rest),
        ]
        return "".join(c if c.isalnum() or c in "-." else "-" for c in "-".join(parts))

    @property
    def area(self) -> int:
        return self.resolution[0] * self.resolution[1]

    @property
    def trained(self) -> "Column":
        """The same at the end of the training."""
        return replace(self, after=1.0)


def column_of(measurement: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> Column:
    """The column of a grid record's measurement.

    Args:
        sizes: at which the rows of the grid train.
    """
    asked, evaluate = measurement["column"], measurement["config"]["evaluate"]
    height, width = evaluate["resolution"]
    rest = tuple((key, shown(value)) for key, value in asked.items() if key not in SAID)
    scale = ""
    if len(sizes) == 1 and height * sizes[0][1] == width * sizes[0][0]:
        scale = f"{height / sizes[0][0]:.3g}×"
    after = evaluate["after"] if "evaluate.after" in asked else 1.0
    return Column((height, width), rest, scale, after)


def all_columns(of_cells: Iterable[Iterable[Column]]) -> tuple[Column, ...]:
    """Every column once, as the file has them; from small to large where cells have different."""
    every = [list(own) for own in of_cells]
    found = list(dict.fromkeys(column for own in every for column in own))
    if any(set(own) != set(found) for own in every):
        found.sort(key=lambda column: column.area)
    return tuple(found)


def finals(columns: Iterable[Column]) -> tuple[Column, ...]:
    """Of the columns that differ only in the share of the training, the last of each."""
    last: dict[Column, Column] = {}
    for column in columns:
        known = last.setdefault(column.trained, column)
        if column.after > known.after:
            last[column.trained] = column
    return tuple(last.values())


def shares(columns: Iterable[Column], final: Column) -> list[Column]:
    """The columns that differ from this one only in the share of the training, the first first."""
    alike = [column for column in columns if column.trained == final.trained]
    return sorted(alike, key=lambda column: column.after)
