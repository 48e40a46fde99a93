"""Statistics over seeds, and what they say in plain sentences. Pure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit  # the quantile of Student's t

from reports.formats import (
    counted,
    family,
    figure,
    in_order,
    lower_is_better,
    signed,
    significant,
    title,
)  # fmt: skip
from reports.load import Column, Row

LEVEL = 0.95  # of every interval
RANKED = 6  # rows that the headline names after the best


@dataclass(frozen=True)
class Summary:
    """Mean and spread over seeds."""

    n: int
    mean: float
    sd: float | None  # with n - 1 in its denominator; None for one seed


@dataclass(frozen=True)
class Difference:
    """Mean of the differences seed by seed, with its t interval."""

    n: int
    mean: float
    low: float | None  # None for one seed: there is no interval
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """The interval lies on one side of 0; never so without an interval."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def summary(values: Iterable[float]) -> Summary:
    """Mean, standard deviation and count of at least one value."""
    values = sorted(values)  # so that the order of seeds changes no bit
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), statistics.fmean(values), sd)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """`ours` - `theirs` over the seeds that both have; None where there is no such seed."""
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not differences:
        return None
    found = summary(differences)
    if found.sd is None:
        return Difference(found.n, found.mean, None, None)
    half = float(stdtrit(found.n - 1, (1 + LEVEL) / 2)) * found.sd / math.sqrt(found.n)
    return Difference(found.n, found.mean, found.mean - half, found.mean + half)


def by_seed(rows: Iterable[Row], column: Column, metric: str) -> dict[str, dict[int, float]]:
    """Cell id -> seed -> value, for what is measured in this column."""
    values: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.column == column and metric in row.metrics:
            values.setdefault(row.cell_id, {})[row.seed] = row.metrics[metric]
    return values


def protocols(rows: Iterable[Row], column: Column, metric: str) -> list[str]:
    """The distinct protocols behind a column's figures; more than one: they are not comparable."""
    found = (r.protocol_key for r in rows if r.column == column and metric in r.metrics)
    return list(dict.fromkeys(found))


def floors(rows: Iterable[Row], column: Column, metric: str) -> dict[str, float]:
    """Protocol -> the figure of real images under it, meaned over evaluations."""
    found: dict[str, set[float]] = {}
    for row in rows:
        if row.column == column and metric in row.floor:
            found.setdefault(row.protocol_key, set()).add(row.floor[metric])
    return {key: summary(values).mean for key, values in found.items()}


def best(means: Mapping[str, float], metric: str) -> list[str]:
    """The cells with the best mean: more than one only where they are exactly equal."""
    finite = [value for value in means.values() if math.isfinite(value)]
    if not finite:
        return []
    top = min(finite) if lower_is_better(metric) else max(finite)
    return [cell_id for cell_id, value in means.items() if value == top]


def foremost(rows: Sequence[Row], metric: str | None, most: int) -> list[str]:
    """The cells that a picture shows, in their order: all, or the `most` best at the largest size.

    The baseline is always among them.
    """
    cells = list(dict.fromkeys(row.cell_id for row in rows))
    measured = [row.column for row in rows if metric in row.metrics]
    if len(cells) <= most or metric is None or not measured:
        return cells[:most]
    values = by_seed(rows, max(measured, key=lambda column: column.area), metric)
    means = {cell_id: summary(v.values()).mean for cell_id, v in values.items()}
    sign = 1 if lower_is_better(metric) else -1
    ranked = sorted(cells, key=lambda cell_id: sign * means.get(cell_id, sign * math.inf))
    kept = {*ranked[:most], *(row.cell_id for row in rows if row.is_baseline)}
    return [cell_id for cell_id in cells if cell_id in kept]


def headline(rows: Sequence[Row]) -> list[str]:
    """The figures that matter, as lines for a terminal: those of the largest resolution.

    The best row; the baseline and the paired difference to it; the other rows and the floor.
    """
    metric = next(
        (m for m in in_order(m for r in rows for m in r.metrics) if family(m) == "fid"), None
    )
    if metric is None:
        return ["no evaluation is finished yet"]
    measured = [row.column for row in rows if metric in row.metrics]
    column = max(measured, key=lambda c: c.area)  # the first of equal ones
    where = f"{title(metric)} at {column.title}"
    if len(protocols(rows, column, metric)) > 1:
        return [f"{where}: measured by more than one protocol, so rows are not compared"]

    values = by_seed(rows, column, metric)
    names = {row.cell_id: row.method for row in rows}
    means = {cell_id: summary(v.values()).mean for cell_id, v in values.items()}
    ranked = sorted(means, key=lambda cell_id: means[cell_id])

    def told(cell_id: str) -> str:
        return f"{names[cell_id]} {spread(metric, summary(values[cell_id].values()))}"

    seeds = sorted({len(v) for v in values.values()})
    count = counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    first = ranked[0]
    lines = [f"{where}, {count}: best is {told(first)}"]
    baseline = next((row.cell_id for row in rows if row.is_baseline), None)
    if baseline == first:
        lines[0] += " (the baseline)"
    elif baseline in values:
        difference = paired(values[first], values[baseline])
        lines.append(f"baseline: {told(baseline)}")
        if difference:
            lines[-1] += f"; difference of the best {interval(metric, difference, means[first])}"
            lines[-1] += f" over {difference.n} seeds" if difference.n > 1 else ""
    last = []
    others = [one for one in ranked if means[one] != means[first] and one != baseline]
    if others:
        more = f" and {len(others) - RANKED} more" if len(others) > RANKED else ""
        last.append("then " + " · ".join(told(one) for one in others[:RANKED]) + more)
    floor = floors(rows, column, metric)
    if floor:
        last.append(f"real images: {figure(metric, next(iter(floor.values())))}")
    return lines + ([" | ".join(last)] if last else [])


def spread(metric: str, found: Summary) -> str:
    """`20.9 ± 0.4`; for one seed just `20.9`. A spread is never rounded to nothing."""
    mean = figure(metric, found.mean)
    if found.sd is None:
        return mean
    sd = figure(metric, found.sd, found.mean)
    return f"{mean} ± {sd if found.sd == 0 or float(sd) else significant(found.sd, 1)}"


def interval(metric: str, difference: Difference, like: float) -> str:
    """`−8.9 [−10.8, −7.1]`; `−8.9 (n = 1, no interval)`; with the decimals of a value `like`."""
    mean = signed(metric, difference.mean, like)
    if difference.low is None or difference.high is None:
        return f"{mean} (n = 1, no interval)"
    ends = (signed(metric, end, like) for end in (difference.low, difference.high))
    return f"{mean} [{', '.join(ends)}]"
