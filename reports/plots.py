"""Plots: FID against resolution, and the training loss."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from reports.formats import significant, title
from reports.load import Column, Run, Sweep
from reports.stats import floors, protocols

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
POINTS = 100  # of a loss curve at most: more are averaged
LOG_FROM = 10  # ratio of the largest to the smallest value from which an axis is logarithmic
GREY = "#777777"


def fid_plot(sweep: Sweep, metric: str) -> bytes | None:
    """A PNG of a metric against the resolution, a line per method; None where nothing can be drawn.

    Columns that differ in more than the resolution get a panel for each such setting. A column of
    several protocols is left out.
    """
    columns = [c for c in sweep.columns if len(protocols(sweep.rows, c, metric)) == 1]
    panels = list(dict.fromkeys(column.others for column in columns))
    if not panels:
        return None
    shown = [
        m for c, m in sweep.methods.items() if any(r.cell_id == c and r.metrics for r in sweep.rows)
    ]
    figure = Figure(figsize=(5.6 * len(panels) + 3.4, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    drawn: list[float] = []
    for axes, panel in zip(grid, panels, strict=True):
        drawn += _fid_panel(axes, sweep, metric, [c for c in columns if c.others == panel], shown)
        axes.set_title(panel)
    _scale(grid[0], drawn)  # all panels share it
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    return _png(figure)


def _fid_panel(
    axes: Axes, sweep: Sweep, metric: str, columns: Sequence[Column], shown: Sequence[str]
) -> list[float]:
    """Draw one panel; the values that its axis has to hold."""
    columns = sorted(columns, key=lambda c: c.area)
    where = _places(columns)
    frame = pd.DataFrame(
        [
            {"x": where[row.column], "y": row.metrics[metric], "method": row.method}
            for row in sweep.rows
            if row.column in where and metric in row.metrics
        ]
    )
    sns.lineplot(
        data=frame, x="x", y="y", hue="method", hue_order=shown, style="method", style_order=shown,
        markers=_markers(len(shown)), dashes=False, palette=_palette(len(shown)), errorbar="sd",
        err_style="bars", err_kws={"capsize": 3}, markersize=7, linewidth=1.6, ax=axes,
    )  # fmt: skip
    if axes.get_legend() is not None:
        axes.get_legend().remove()  # type: ignore[union-attr] # one legend beside all panels
    floor = {
        where[c]: min(floors(sweep.rows, c, metric).values(), default=math.nan) for c in columns
    }
    drawn = [*frame["y"], *(value for value in floor.values() if math.isfinite(value))]
    one_column = len(columns) == 1
    axes.plot(list(floor), list(floor.values()), color=GREY, linestyle="--", linewidth=1.4,
              marker="_" if one_column else None, markersize=14, label="real images (floor)")  # fmt: skip
    for number, column in enumerate(c for c in columns if c.resolution in sweep.training_sizes):
        axes.axvline(where[column], color=GREY, linestyle=":", linewidth=1.2, zorder=0,
                     label="_" * number + "training size")  # fmt: skip
    ticks = [c.title.removesuffix(f", {c.others}") for c in columns]
    axes.set_xticks([where[c] for c in columns], [tick.replace(" ", "\n") for tick in ticks])
    axes.margins(x=0.08)
    axes.set_xlabel("resolution generated and measured")
    axes.set_ylabel(f"{title(metric)}, lower is better")
    _plain(axes)
    return drawn


def loss_plot(sweep: Sweep) -> bytes | None:
    """A PNG of the training loss, a line per run and a colour per distinct training."""
    groups: dict[str, list[Run]] = {}
    for run in sweep.runs:
        groups.setdefault(run.group_id, []).append(run)
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    palette = _palette(len(groups))
    settled: list[float] = []  # what the axis must show: not the first steep steps
    everything: list[float] = []
    for runs, colour in zip(groups.values(), palette, strict=True):
        label = runs[0].name
        for run in runs:
            images, losses = _curve(run)
            if not images:
                continue
            axes.plot(images, losses, color=colour, linewidth=1.3, alpha=0.85, label=label)
            label = "_"
            everything += losses
            settled += losses[len(losses) // 20 :]
    if not everything:
        return None
    low, high = min(settled), max(settled)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("training images seen")
    cut = ", its steep start cut off" if max(everything) > high + margin else ""
    axes.set_ylabel(f"training loss{cut}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    figure.legend(loc="outside right center", frameon=False)
    _plain(axes)
    return _png(figure)


def _curve(run: Run) -> tuple[list[float], list[float]]:
    """Images seen and loss, averaged over stretches so that at most POINTS points are left."""
    lines = [line for line in run.folder.metrics() if math.isfinite(line["loss"])]
    share = -(-len(lines) // POINTS) or 1
    parts = [lines[start : start + share] for start in range(0, len(lines), share)]
    images = [float(part[-1]["images"]) for part in parts]
    return images, [math.fsum(line["loss"] for line in part) / len(part) for part in parts]


def _places(columns: Sequence[Column]) -> Mapping[Column, float]:
    """Where a column stands on the axis: at its side, or in order where two have one area."""
    if len({c.area for c in columns}) < len(columns):
        return {column: float(index) for index, column in enumerate(columns)}
    return {column: math.sqrt(column.area) for column in columns}


def _scale(axes: Axes, drawn: Sequence[float]) -> None:
    """A logarithmic axis where the values differ by LOG_FROM times, with ticks that can be read."""
    if min(drawn) <= 0 or max(drawn) / min(drawn) < LOG_FROM:
        axes.set_ylim(0, max(drawn) * 1.08)
        return
    axes.set_yscale("log")
    low, high = min(drawn) / 1.3, max(drawn) * 1.3
    steps = [m * 10.0**e for e in range(-6, 8) for m in (1, 2, 5)]
    axes.set_yticks([step for step in steps if low <= step <= high])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: significant(y, 1)))
    axes.set_ylim(low, high)


def _palette(count: int) -> list[Any]:
    colours = sns.color_palette("colorblind", count) if count <= 10 else None
    # Beyond ten the colour-blind set repeats; hues and markers keep rows apart.
    return list(colours or sns.husl_palette(count, l=0.5, s=0.95))


def _markers(count: int) -> list[str]:
    return [MARKERS[index % len(MARKERS)] for index in range(count)]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()
