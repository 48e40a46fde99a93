"""Statistics over seeds and over samples, and how they are written. Pure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.column import Column
from reports.formats import family, figure, lower_is_better, scaled, significant
from reports.load import Row
from reports.tables import UPSAMPLED


@dataclass(frozen=True)
class Summary:
    """Mean and spread over seeds; for one seed, the figure and its interval over the samples."""

    n: int
    mean: float
    sd: float | None  # with n - 1 in its denominator; None for one seed
    low: float | None = None
    high: float | None = None


def summary(values: Iterable[float]) -> Summary:
    """Mean, standard deviation and count of at least one value."""
    values = sorted(values)  # so that the order of seeds changes no bit
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), sd)


def measured(rows: Iterable[Row], column: Column, metric: str) -> dict[str, dict[int, Row]]:
    """Cell id -> seed -> row, for what is measured in this column."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.column == column and metric in row.metrics:
            found.setdefault(row.cell_id, {})[row.seed] = row
    return found


def several_seeds(rows: Iterable[Row]) -> bool:
    """Whether any cell is measured with more than one seed in one column.

    Where it is so, every spread and interval that is written beside a figure is over seeds; else
    every one is over samples, so that nobody takes one for the other.
    """
    seeds: dict[tuple[str, Column], set[int]] = {}
    for row in rows:
        if row.metrics:
            seeds.setdefault((row.cell_id, row.column), set()).add(row.seed)
    return any(len(own) > 1 for own in seeds.values())


def summaries(rows: Sequence[Row], column: Column, metric: str) -> dict[str, Summary]:
    """Cell id -> its figure in this column."""
    over_samples = not several_seeds(rows)
    found = {}
    for cell_id, by_seed in measured(rows, column, metric).items():
        if over_samples:
            (row,) = by_seed.values()
            ends = row.intervals.get(metric, (None, None))
            found[cell_id] = Summary(1, row.metrics[metric], None, *ends)
        else:
            found[cell_id] = summary(row.metrics[metric] for row in by_seed.values())
    return found


def half_widths(rows: Iterable[Row], metric: str) -> list[float]:
    """Half the width of every interval over samples of this metric."""
    ends = [row.intervals[metric] for row in rows if metric in row.intervals]
    return [(high - low) / 2 for low, high in ends]


def protocols(rows: Iterable[Row], column: Column, metric: str) -> list[str]:
    """The distinct protocols behind a column's figures; more than one: they are not comparable."""
    found = (r.protocol_key(metric) for r in rows if r.column == column and metric in r.metrics)
    return list(dict.fromkeys(found))


def floors(rows: Iterable[Row], column: Column, metric: str) -> dict[str, Summary]:
    """Protocol -> the figure of real images under it, meaned over evaluations.

    It has an interval where all evaluations agree on the figure: it is of no seed.
    """
    found: dict[str, dict[float, Row]] = {}
    for row in rows:
        if row.column == column and metric in row.floor:
            found.setdefault(row.protocol_key(metric), {})[row.floor[metric]] = row
    told = {}
    for key, values in found.items():
        mean, row = summary(values).mean, next(iter(values.values()))
        alike = all(math.isclose(value, mean, rel_tol=1e-6) for value in values)
        ends = row.floor_intervals.get(metric, (None, None)) if alike else (None, None)
        told[key] = Summary(1, mean, None, *ends)
    return told


def marked(rows: Iterable[Row], column: Column, metric: str) -> dict[str, list[str]]:
    """Cell id -> why its figure in this column must not be taken like others, or is not there."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.column == column and metric in row.marks:
            found.setdefault(row.cell_id, []).append(row.marks[metric])
    return found


def best(means: Mapping[str, float], metric: str) -> list[str]:
    """The cells with the best mean: more than one only where they are exactly equal."""
    finite = [value for value in means.values() if math.isfinite(value)]
    if not finite:
        return []
    top = min(finite) if lower_is_better(metric) else max(finite)
    return [cell_id for cell_id, value in means.items() if value == top]


def winners(rows: Sequence[Row], column: Column, metric: str) -> list[str]:
    """The best cells of a column, in which a figure with a mark takes no part."""
    excluded = marked(rows, column, metric)
    found = summaries(rows, column, metric)
    return best({c: one.mean for c, one in found.items() if c not in excluded}, metric)


def largest(rows: Sequence[Row], metric: str) -> Column:
    """The column with the largest images in which the metric is measured; the first of equals.

    If there are any, it is one of those that the baseline has too, and of these one with a true
    reference.
    """
    found = dict.fromkeys(row.column for row in rows if metric in row.metrics)
    shared = {row.column for row in rows if row.is_baseline}
    either = [column for column in found if column in shared] or [*found]
    true = [column for column in either if not upsampled(rows, column)]
    return max(true or either, key=lambda column: (column.area, column.after))


def upsampled(rows: Iterable[Row], column: Column) -> float:
    """Share of a column's reference images that were enlarged from smaller originals."""
    return max((row.upsampled for row in rows if row.column == column), default=0.0)


def reference_sign(rows: Iterable[Row], column: Column, metric: str) -> str:
    """What a column's title carries where the metric's reference is upsampled; or nothing."""
    return f" {UPSAMPLED}" if family(metric) != "is" and upsampled(rows, column) else ""


def foremost(rows: Sequence[Row], metric: str | None, most: int) -> list[str]:
    """The cells that a picture shows, in their order: all, or the `most` best at the largest size.

    Where rows have different columns each is ranked in the largest that it has. The baseline and
    its twins are always among them.
    """
    cells = list(dict.fromkeys(row.cell_id for row in rows))
    if len(cells) <= most or metric is None:
        return cells[:most]
    places: dict[str, int] = {}
    columns = dict.fromkeys(row.column for row in rows if metric in row.metrics)
    direction = 1 if lower_is_better(metric) else -1
    for column in sorted(columns, key=lambda column: (column.area, column.after), reverse=True):
        found = summaries(rows, column, metric)
        ranked = sorted(found, key=lambda cell_id: direction * found[cell_id].mean)
        places = {cell_id: place for place, cell_id in enumerate(ranked)} | places
    ranked = sorted(cells, key=lambda cell_id: places.get(cell_id, len(cells)))
    held_to = (row.cell_id for row in rows if row.is_baseline or row.is_twin)
    kept = {*ranked[:most], *held_to}
    return [cell_id for cell_id in cells if cell_id in kept]


def spread(metric: str, found: Summary) -> str:
    """`20.9 ± 0.4` over seeds, `20.9 [19.8, 22.0]` over samples, or just `20.9`.

    A spread over seeds is never rounded to nothing.
    """
    if found.low is not None and found.high is not None:
        like = max(abs(found.mean), (found.high - found.low) / 2)
        ends = (figure(metric, end, like) for end in (found.low, found.high))
        return f"{figure(metric, found.mean, like)} [{', '.join(ends)}]"
    like = max(abs(found.mean), found.sd or 0)
    mean = figure(metric, found.mean, like)
    if found.sd is None:
        return mean
    sd = figure(metric, found.sd, like)
    hidden = found.sd > 0 and float(sd) == 0
    return f"{mean} ± {significant(scaled(metric, found.sd), 1) if hidden else sd}"
