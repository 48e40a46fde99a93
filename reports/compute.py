"""Figures against what the training has cost so far: a plot, and the cost to reach the baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.column import Column, shares
from reports.drawing import (
    GREY,
    HEIGHT,
    MOST,
    WIDTH,
    legend_below,
    log_ticks,
    markers,
    palette,
    plain,
    png,
    scale,
    spans,
)
from reports.formats import (
    NOTHING,
    counted,
    duration,
    figure,
    flop,
    flop_unit,
    listed,
    percent,
    title,
)
from reports.load import Sweep
from reports.notes import upsampled_references
from reports.stats import (
    Summary,
    foremost,
    marked,
    measured,
    protocols,
    reference_sign,
    summaries,
    upsampled,
)
from reports.tables import Cell, Table

NOT_REACHED = "not reached"
TARGET = "the baseline at the end of its training"


@dataclass(frozen=True)
class Spent:
    """What a training has cost, meaned over seeds."""

    n: int  # seeds
    after: float  # share of the training
    flops: float
    images: float
    seconds: float


def followed(sweep: Sweep) -> list[Column]:
    """The columns that are measured at several shares of the training, each at its last."""
    return [one for one in sweep.trained.columns if len(shares(sweep.columns, one)) > 1]


def target(sweep: Sweep, column: Column, metric: str) -> Summary | None:
    """The baseline's figure at the end of its training; None without one that can be compared."""
    snapshots = shares(sweep.columns, column)
    if len({key for one in snapshots for key in protocols(sweep.rows, one, metric)}) > 1:
        return None
    if sweep.baseline in marked(sweep.rows, column, metric):
        return None
    return summaries(sweep.rows, column, metric).get(sweep.baseline or "")


def spent(sweep: Sweep, cell_id: str, column: Column, metric: str) -> Spent | None:
    """What a row had cost when this figure was measured; None where no result tells."""
    own = measured(sweep.rows, column, metric).get(cell_id, {}).values()
    told = [row.training for row in own]
    if not told or not all(told):
        return None
    means = {key: fmean(one[key] for one in told) for key in ("flops", "images", "seconds")}
    return Spent(len(told), column.after, **means)


def first_at(sweep: Sweep, cell_id: str, column: Column, metric: str, value: float) -> Spent | str:
    """The first snapshot whose mean figure is at or below a value: nothing is interpolated.

    A figure with a mark reaches nothing.

    Returns:
        Its cost; or what to say instead: that it was not reached, a dash where an evaluation that
        decides it is missing, nothing for a row that is not followed here.
    """
    asked = [one for one in shares(sweep.columns, column) if (cell_id, one) in sweep.asked]
    for one in asked:
        found = summaries(sweep.rows, one, metric).get(cell_id)
        if found is None:
            return NOTHING
        if found.mean <= value and cell_id not in marked(sweep.rows, one, metric):
            return spent(sweep, cell_id, one, metric) or NOTHING
    return NOT_REACHED if asked else ""


def cost_table(sweep: Sweep, metric: str) -> Table | None:
    """For each resolution what each method costs until it is as good as the baseline at its end."""
    targets = {column: target(sweep, column, metric) for column in followed(sweep)}
    known = {column: one for column, one in targets.items() if one is not None}
    if not known or sweep.baseline is None:
        return None
    header, counts = ["method"], set[int]()
    most = max(one.n for one in known.values())
    rows = {cell_id: [Cell(name)] for cell_id, name in sweep.methods.items()}
    rows[sweep.baseline] = [Cell(f"{sweep.methods[sweep.baseline]} (baseline)")]
    for column, one in known.items():
        sign = reference_sign(sweep.rows, column, metric)
        above = f"{column.title}{sign}: ≤ {figure(metric, one.mean)}"
        header += [f"{above}\n{name}" for name in ("compute", "images", "time")]
        whole = spent(sweep, sweep.baseline, column, metric)
        found = {cell_id: first_at(sweep, cell_id, column, metric, one.mean) for cell_id in rows}
        reached = {cell_id: cost for cell_id, cost in found.items() if isinstance(cost, Spent)}
        least = min((cost.flops for cost in reached.values()), default=None)
        counts |= {cost.n for cost in reached.values()} | {one.n}
        for cell_id, row in rows.items():
            row += _cells(found[cell_id], whole, least, most)
    notes = [
        f"What a training had cost at its first snapshot whose {title(metric)} is at or below that "
        f"of {sweep.methods[sweep.baseline]} at the end of its training; between snapshots nothing "
        "is interpolated. In brackets is the compute as a multiple of the baseline's whole "
        "training.",
        _over(counts),
    ]
    for column, one in known.items():
        if before := _better_before(sweep, column, metric, one.mean):
            notes.append(f"At {column.title} {before}, so what it costs to reach says little.")
    left = [column.title for column in targets if column not in known]
    if left:
        notes.append(f"The baseline has no figure at {listed(left)} that others can be held to.")
    notes += upsampled_references(sweep.narrowed([*known]), [metric])
    if any(not cell.text for row in rows.values() for cell in row):
        notes.append("Blank: the row has no such column, so nothing is missing.")
    return Table(
        f"Cost to reach the baseline's {title(metric)}",
        tuple(header),
        tuple(map(tuple, rows.values())),
        tuple(notes),
    )


def _better_before(sweep: Sweep, column: Column, metric: str, final: float) -> str:
    """That an earlier snapshot of the baseline is better than its last one; nothing where not."""
    assert sweep.baseline is not None
    means = {
        one: summaries(sweep.rows, one, metric)[sweep.baseline].mean
        for one in shares(sweep.columns, column)
        if sweep.baseline in summaries(sweep.rows, one, metric)
        and sweep.baseline not in marked(sweep.rows, one, metric)
    }
    best = min(means, key=lambda one: means[one], default=column)
    if not means.get(best, final) < final:
        return ""
    mean = figure(metric, means[best])
    return f"the baseline had been better before, {mean} after {percent(best.after)}"


def _cells(found: Spent | str, whole: Spent | None, least: float | None, most: int) -> list[Cell]:
    if isinstance(found, str):
        return [Cell(found), *[Cell(NOTHING if found else "")] * 2]
    times = f" ({found.flops / whole.flops:.2f}×)" if whole and whole.flops else ""
    times += f" (n = {found.n})" if found.n < most else ""
    compute = Cell(flop(found.flops) + times, found.flops == least)
    return [compute, Cell(f"{found.images:,.0f}"), Cell(duration(found.seconds))]


def _over(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    if low == high == 1:
        return "n = 1 seed: how much of it is chance is not known."
    return f"By means over n = {f'{low} to ' if low < high else ''}{counted(high, 'seed')}."


def reached(sweep: Sweep, metric: str) -> list[str]:
    """One line: who is as good as the baseline for the least, at the largest size there is.

    Sizes with a true reference come before those without.
    """
    columns = sorted(followed(sweep), key=lambda column: column.area, reverse=True)
    for column in sorted(columns, key=lambda column: upsampled(sweep.rows, column) > 0):
        goal = target(sweep, column, metric)
        whole = spent(sweep, sweep.baseline or "", column, metric)
        if goal is None or whole is None:
            continue
        costs = {one: first_at(sweep, one, column, metric, goal.mean) for one in sweep.methods}
        known = {one: cost for one, cost in costs.items() if isinstance(cost, Spent)}
        cheapest = min(known, key=lambda one: known[one].flops)
        cost = known[cheapest]
        before = _better_before(sweep, column, metric, goal.mean)
        return [
            f"{title(metric)} {figure(metric, goal.mean)} at {column.title}, the baseline's at the "
            f"end of its training, costs least with {sweep.methods[cheapest]}: {flop(cost.flops)}, "
            f"{cost.flops / whole.flops:.2f} times the baseline's whole training"
            + (f"; {before}" if before else "")
        ]
    return []


def compute_plot(sweep: Sweep, metrics: Sequence[str]) -> bytes | None:
    """`compute_figure` as a PNG."""
    canvas = compute_figure(sweep, metrics)
    return None if canvas is None else png(canvas)


def compute_figure(sweep: Sweep, metrics: Sequence[str]) -> Figure | None:
    """Metrics side by side against the training compute, a line per method, panels per resolution.

    Bars are the standard deviation over seeds; where all have one seed, the interval over samples.
    None where no column is followed over the training or nothing is measured.
    """
    frontmost = foremost(sweep.trained.rows, metrics[0], MOST)
    names = {one: name for one, name in sweep.methods.items() if one in frontmost}
    looks = dict(
        zip(names, zip(palette(len(names)), markers(len(names)), strict=True), strict=True)
    )
    panels = [
        (column, metric, lines)
        for column in followed(sweep)
        for metric in metrics
        if (lines := _lines(sweep, column, metric, list(names)))
    ]
    shown = list(dict.fromkeys(column for column, _, _ in panels))
    kinds = [metric for metric in metrics if any(metric == other for _, other, _ in panels)]
    if not panels:
        return None
    size = (max(9.0, WIDTH * len(kinds)), HEIGHT * len(shown))
    canvas = Figure(figsize=size, layout="constrained")
    grid = canvas.subplots(len(shown), len(kinds), squeeze=False)
    every = [x for _, _, lines in panels for points in lines.values() for x, _ in points]
    legend: dict[str, Any] = {}
    for column, metric, lines in panels:
        axes = grid[shown.index(column), kinds.index(metric)]
        held = []
        for cell_id, points in lines.items():
            held += _line(axes, names[cell_id], points, *looks[cell_id])
        if goal := target(sweep, column, metric):
            style = {"color": GREY, "linestyle": "--", "linewidth": 1.2, "zorder": 0}
            axes.axhline(goal.mean, label=TARGET, **style)
            held.append(goal.mean)
        scale(axes, held, spans([one.mean for points in lines.values() for _, one in points]))
        _compute_axis(axes, every)
        axes.set_title(column.title + reference_sign(sweep.rows, column, metric))
        axes.set_ylabel(f"{title(metric)}, lower is better")
        plain(axes)
        handles, labels = axes.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    if TARGET in legend:
        legend[TARGET] = legend.pop(TARGET)  # last
    legend_below(canvas, list(legend.values()), list(legend))
    return canvas


def _lines(
    sweep: Sweep, column: Column, metric: str, cells: Sequence[str]
) -> dict[str, list[tuple[float, Summary]]]:
    """Cell id -> (FLOPs, figure) at each snapshot; nothing where protocols differ."""
    snapshots = shares(sweep.columns, column)
    if len({key for one in snapshots for key in protocols(sweep.rows, one, metric)}) != 1:
        return {}
    lines: dict[str, list[tuple[float, Summary]]] = {}
    for one in snapshots:
        found = summaries(sweep.rows, one, metric)
        for cell_id in cells:
            cost = spent(sweep, cell_id, one, metric)
            if cost and cost.flops > 0 and math.isfinite(found[cell_id].mean):
                lines.setdefault(cell_id, []).append((cost.flops, found[cell_id]))
    return lines


def _line(
    axes: Axes, name: str, points: Sequence[tuple[float, Summary]], colour: Any, marker: str
) -> list[float]:
    """Draw one method; what the axis has to hold of it."""
    x, found = zip(*points, strict=True)
    ends = [
        (one.low, one.high)
        if one.low is not None and one.high is not None
        else (one.mean - (one.sd or 0.0), one.mean + (one.sd or 0.0))
        for one in found
    ]
    means = [one.mean for one in found]
    below = [mean - low for mean, (low, _) in zip(means, ends, strict=True)]
    above = [high - mean for mean, (_, high) in zip(means, ends, strict=True)]
    bars = [below, above] if any(above) else None
    axes.errorbar(
        x, means, yerr=bars, color=colour, marker=marker, markersize=7,
        markeredgecolor="white", linewidth=1.6, elinewidth=1.4, capsize=3, label=name,
    )  # fmt: skip
    return [*means, *(end for pair in ends for end in pair)]


def _compute_axis(axes: Axes, flops: Sequence[float]) -> None:
    low, high = min(flops) / 1.15, max(flops) * 1.15
    unit, name = flop_unit(min(flops))
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    log_ticks(axes.xaxis, low, high, unit)
    axes.set_xlabel(f"training compute so far, {name}")
