"""What all plots have in common: colours, markers, axes, a legend below, PNG."""

import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
MOST = 12  # rows or trainings in one picture: more cannot be told apart
LOG_FROM = 5  # ratio of the largest to the smallest value from which an axis is logarithmic
LETTERS = 84  # of a name in a legend, before it is wrapped
WIDTH = 6.0  # of one panel, in inches
HEIGHT = 5.0  # of the axes with their labels, in inches
INK, GREY = "#333333", "#777777"


def spans(values: Sequence[float]) -> bool:
    """Whether an axis of these values is better logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM


def scale(axes: Axes, drawn: Sequence[float], logarithmic: bool) -> None:
    """A linear axis from 0, or a logarithmic one with ticks that can be read."""
    if not logarithmic:
        axes.set_ylim(min(0, *drawn), max(drawn) * 1.08 or 1)
        return
    positive = [value for value in drawn if value > 0]  # the end of an interval may not be
    low, high = min(positive) / 1.15, max(positive) * 1.15
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    log_ticks(axes.yaxis, low, high)


def log_ticks(axis: Axis, low: float, high: float, unit: float = 1.0) -> None:
    """Ticks at round numbers of a unit between two positive values."""
    ratio = high / low
    parts = (1, 1.5, 2, 3, 5, 7) if ratio < 30 else (1, 2, 5) if ratio < 1000 else (1,)
    steps = [m * 10.0**e * unit for e in range(-6, 8) for m in parts]
    axis.set_ticks([step for step in steps if low <= step <= high])
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))


def legend_below(canvas: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend under the axes, in as many columns as fit, and make the picture higher by it.

    The axes stay at least as high as the legend, whatever the names.
    """
    renderer = FigureCanvasAgg(canvas).get_renderer()
    width, height = canvas.get_size_inches()
    wrapped = [textwrap.fill(label, LETTERS) if "\n" not in label else label for label in labels]
    for columns in range(min(len(wrapped), 6), 0, -1):
        legend = canvas.legend(
            handles, wrapped, loc="outside lower center", frameon=False, ncols=columns,
            fontsize="small" if len(wrapped) > 6 else "medium",
        )  # fmt: skip
        size = legend.get_window_extent(renderer)
        if size.width <= 0.98 * width * canvas.dpi or columns == 1:
            break
        legend.remove()
    high = size.height / canvas.dpi
    canvas.set_figheight(high + max(height, high + 2.0))  # the axes are the larger half


def palette(count: int) -> list[Any]:
    # Colours that read as thin lines on white; beyond ten, hues and markers keep rows apart.
    colours = sns.color_palette("tab10", count) if count <= 10 else None
    return list(colours or sns.husl_palette(count, l=0.5, s=0.95))


def markers(count: int) -> list[str]:
    return [MARKERS[index % len(MARKERS)] for index in range(count)]


def plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)


def png(canvas: Figure) -> bytes:
    buffer = BytesIO()
    canvas.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()
