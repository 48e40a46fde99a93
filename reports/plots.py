"""Plots: FID and patch FID against resolution, and the training loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from harness.errors import UserError
from reports.column import Column
from reports.drawing import (
    GREY,
    HEIGHT,
    INK,
    MOST,
    WIDTH,
    legend_below,
    markers,
    palette,
    plain,
    png,
    scale,
    spans,
)
from reports.formats import figure, noun, title
from reports.load import Row, Run, Sweep
from reports.stats import floors, foremost, protocols, reference_sign, several_seeds
from reports.tables import FLOOR_NAME

POINTS = 100  # of a loss curve at most: more are averaged
FAR_BELOW = 5  # times below the best row: there a floor would squeeze all rows together
TRAINING_SIZE = "training size"


def fid_plot(sweep: Sweep, metrics: Sequence[str]) -> bytes | None:
    """`fid_figure` as a PNG."""
    canvas = fid_figure(sweep, metrics)
    return None if canvas is None else png(canvas)


def fid_figure(sweep: Sweep, metrics: Sequence[str]) -> Figure | None:
    """Metrics side by side against the resolution, a line per method; None if nothing is there.

    Columns that differ in more than the resolution get a row of panels for each such setting. A
    column of several protocols is left out. Bars are the standard deviation over seeds; where all
    have one seed, the interval over samples.
    """
    frontmost = set(foremost(sweep.rows, metrics[0], MOST))
    rows = [row for row in sweep.rows if row.cell_id in frontmost]
    drawn = {metric: _drawable(sweep, rows, metric) for metric in metrics}
    drawn = {metric: own for metric, own in drawn.items() if own}
    if not drawn:
        return None
    here = [row for own in drawn.values() for row in own]
    cells, sizes = {row.cell_id for row in here}, {row.column for row in here}
    shown = [name for cell_id, name in sweep.methods.items() if cell_id in cells]
    columns = [column for column in sweep.columns if column in sizes]
    panels = list(dict.fromkeys(column.others for column in columns))
    size = (max(9.0, WIDTH * len(drawn)), HEIGHT * len(panels))
    canvas = Figure(figsize=size, layout="constrained")
    grid = canvas.subplots(len(panels), len(drawn), squeeze=False, sharey="col")
    legend: dict[str, Any] = {}
    for (metric, own), axes_of in zip(drawn.items(), grid.T, strict=True):
        values = [row.metrics[metric] for row in own]
        logarithmic = spans(values)
        held: list[float] = []  # what the axis has to hold
        for axes, panel in zip(axes_of, panels, strict=True):
            those = [column for column in columns if column.others == panel]
            held += _fid_panel(axes, sweep, metric, those, own, shown)
            held += _floor(axes, sweep, metric, those, min(values) if logarithmic else None)
            _training_size(axes, sweep, those)
            axes.set_title(panel)
            handles, labels = axes.get_legend_handles_labels()
            legend |= dict(zip(labels, handles, strict=True))
        scale(axes_of[0], held, logarithmic)  # its panels share it
    if TRAINING_SIZE in legend:
        legend[TRAINING_SIZE] = legend.pop(TRAINING_SIZE)  # last, after the floor of each metric
    legend_below(canvas, list(legend.values()), list(legend))
    return canvas


def _drawable(sweep: Sweep, rows: Sequence[Row], metric: str) -> list[Row]:
    single = {c for c in sweep.columns if len(protocols(sweep.rows, c, metric)) == 1}
    return [
        row
        for row in rows
        if row.column in single and math.isfinite(row.metrics.get(metric, math.nan))
    ]


def _fid_panel(
    axes: Axes,
    sweep: Sweep,
    metric: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    shown: Sequence[str],
) -> list[float]:
    """Draw one panel; the values that its axis has to hold."""
    where = _places(columns)
    here = [row for row in rows if row.column in where]
    values = [row.metrics[metric] for row in here]
    colours = palette(len(shown))
    over_seeds = several_seeds(sweep.rows)
    if here:
        sns.lineplot(
            x=[where[row.column] for row in here], y=values, hue=[row.method for row in here],
            style=[row.method for row in here], hue_order=shown, style_order=shown,
            markers=markers(len(shown)), dashes=False, palette=colours,
            errorbar="sd" if over_seeds else None, err_style="bars", err_kws={"capsize": 3},
            markersize=7, linewidth=1.6, ax=axes,
        )  # fmt: skip
    if not over_seeds:
        by_method = dict(zip(shown, colours, strict=True))
        values += _bars(axes, metric, where, here, by_method)
    if axes.get_legend() is not None:
        axes.get_legend().remove()  # type: ignore[union-attr] # one legend below all panels
    ticks = [
        column.title.removesuffix(f", {column.others}") + reference_sign(sweep.rows, column, metric)
        for column in where
    ]
    axes.set_xticks(list(where.values()), [tick.replace(" (", "\n(") for tick in ticks])
    axes.margins(x=0.08)
    axes.set_xlabel("resolution generated and measured")
    axes.set_ylabel(f"{title(metric)}, lower is better")
    plain(axes)
    return values


def _bars(
    axes: Axes, metric: str, where: Mapping[Column, float], rows: Sequence[Row], colours: Any
) -> list[float]:
    """Draw the intervals over samples; their ends."""
    found: list[float] = []
    for row in rows:
        if metric in row.intervals:
            low, high = row.intervals[metric]
            middle = row.metrics[metric]
            axes.errorbar(
                where[row.column], middle, yerr=[[middle - low], [high - middle]], fmt="none",
                ecolor=colours[row.method], elinewidth=1.4, capsize=3,
            )  # fmt: skip
            found += [low, high]
    return found


def _floor(
    axes: Axes, sweep: Sweep, metric: str, columns: Sequence[Column], lowest: float | None
) -> list[float]:
    """Draw the figures of real images, or tell them in the legend.

    Told are those far below `lowest`, the best row on a logarithmic axis (None: it is linear).
    """
    found = {x: floors(sweep.rows, column, metric) for column, x in _places(columns).items()}
    points = {x: next(iter(values.values())).mean for x, values in found.items() if values}
    real = list(points.values())
    style: dict[str, Any] = {"color": INK, "linestyle": "--", "linewidth": 1.4}
    if real and lowest is not None and (min(real) <= 0 or lowest / min(real) > FAR_BELOW):
        ends = dict.fromkeys(figure(metric, value) for value in (min(real), max(real)))
        name = f"real images (floor):\n{' to '.join(ends)} {noun(metric)}, below this axis"
        axes.plot([], [], label=name, **style)
        return []
    marker = "_" if len(points) == 1 else None
    axes.plot(list(points), real, marker=marker, markersize=14, label=FLOOR_NAME, **style)
    return real


def _training_size(axes: Axes, sweep: Sweep, columns: Sequence[Column]) -> None:
    label = TRAINING_SIZE
    for column, x in _places(columns).items():
        if column.resolution in sweep.training_sizes:
            axes.axvline(x, color=GREY, linestyle=":", linewidth=1.2, zorder=0, label=label)
            label = "_"


def loss_plot(sweep: Sweep) -> tuple[bytes | None, list[str]]:
    """A PNG of the training loss, a line per run and a colour per distinct training.

    Returns:
        The picture, None where there is nothing to draw; the runs left out, each with the reason.
    """
    groups: dict[str, list[Run]] = {}
    for run in sweep.runs:
        groups.setdefault(run.group_id, []).append(run)
    groups = dict(list(groups.items())[:MOST])
    canvas = Figure(figsize=(9.0, HEIGHT), layout="constrained")
    axes = canvas.subplots()
    colours = palette(len(groups))
    settled: list[float] = []  # what the axis must show: not the first steep steps
    everything: list[float] = []
    left_out: list[str] = []
    for runs, colour in zip(groups.values(), colours, strict=True):
        label = runs[0].name
        for run in runs:
            try:
                images, losses = _curve(run)
            except UserError as error:
                left_out.append(f"{run.name}, seed {run.seed}: {error}")
                continue
            if not images:
                continue
            axes.plot(images, losses, color=colour, linewidth=1.3, alpha=0.85, label=label)
            label = "_"
            everything += losses
            settled += losses[len(losses) * 15 // 100 :]
    if not everything:
        return None, left_out
    low, high = min(settled), max(settled)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("training images seen")
    cut = ", its steep start cut off" if max(everything) > high + margin else ""
    axes.set_ylabel(f"training loss{cut}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    legend_below(canvas, *axes.get_legend_handles_labels())
    plain(axes)
    return png(canvas), left_out


def _curve(run: Run) -> tuple[list[float], list[float]]:
    """Images seen and loss, averaged over stretches so that at most POINTS points are left.

    Raises:
        UserError: a line of the run's metrics is damaged.
    """
    try:
        read = [(float(one["images"]), float(one["loss"])) for one in run.folder.metrics()]
    except (KeyError, TypeError, UnicodeDecodeError):
        raise UserError(f"{run.folder.metrics_file}: a line is damaged") from None
    lines = [(images, loss) for images, loss in read if math.isfinite(loss)]
    share = -(-len(lines) // POINTS) or 1
    parts = [lines[start : start + share] for start in range(0, len(lines), share)]
    images = [part[-1][0] for part in parts]
    return images, [math.fsum(loss for _, loss in part) / len(part) for part in parts]


def _places(columns: Sequence[Column]) -> dict[Column, float]:
    """Where each stands on the axis: at its side, or in order where two have one area."""
    columns = sorted(columns, key=lambda column: column.area)
    if len({column.area for column in columns}) < len(columns):
        return {column: float(index) for index, column in enumerate(columns)}
    return {column: math.sqrt(column.area) for column in columns}
