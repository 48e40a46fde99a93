"""How numbers, metrics and sizes are written in a report."""

import math
from collections.abc import Iterable

TITLES = {"fid": "FID", "sfid": "sFID", "is": "IS", "precision": "Precision", "recall": "Recall"}
LOWER_IS_BETTER = ("fid", "sfid")
DECIMALS = {"is": 2, "precision": 3, "recall": 3}  # the others have 3 significant digits
NOTHING = "–"


def family(metric: str) -> str:
    """`fid` for `fid.fashion-cnn`: what kind of figure it is, whatever the extractor."""
    return metric.partition(".")[0]


def title(metric: str) -> str:
    """`FID (fashion-cnn)`; without an extractor in its name a metric is the Inception one."""
    kind, _, extractor = metric.partition(".")
    return TITLES.get(kind, kind) + (f" ({extractor})" if extractor else "")


def arrow(metric: str) -> str:
    """Which way is better."""
    return "↓" if lower_is_better(metric) else "↑"


def lower_is_better(metric: str) -> bool:
    return family(metric) in LOWER_IS_BETTER


def in_order(metrics: Iterable[str]) -> list[str]:
    """FID first, then IS, precision, recall; families that are not known come last."""
    order = list(TITLES)

    def place(metric: str) -> tuple[int, str]:
        kind = family(metric)
        return (order.index(kind) if kind in order else len(order)), metric

    return sorted(set(metrics), key=place)


def significant(value: float, digits: int = 3) -> str:
    """`20.9`, `0.700`, `1234`: `digits` significant digits, and never an exponent."""
    return f"{value:.{_decimals(value, digits)}f}"


def figure(metric: str, value: float, like: float | None = None) -> str:
    """A metric's value, with the decimals that `like` would have (its spread: its mean)."""
    decimals = DECIMALS.get(family(metric))
    if decimals is None:
        decimals = _decimals(value if like is None else like)
    return f"{value:.{decimals}f}"


def signed(metric: str, value: float, like: float | None = None) -> str:
    """`+1.25`, `−8.94`, `0.00`."""
    text = figure(metric, abs(value), like)
    if float(text) == 0:
        return text
    return ("−" if value < 0 else "+") + text


def _decimals(value: float, digits: int = 3) -> int:
    if value == 0 or not math.isfinite(value):
        return digits - 1
    exponent = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])  # after rounding
    return max(0, digits - 1 - exponent)


def pixels(resolution: Iterable[int], cross: str = "×") -> str:
    """`24×24`, `16×24`: height, width."""
    return cross.join(str(side) for side in resolution)


def duration(seconds: float) -> str:
    """`48 s`, `12.5 min`, `3.20 h`."""
    if seconds < 100:
        return f"{significant(seconds, 2)} s"
    return (
        f"{significant(seconds / 60)} min" if seconds < 6000 else f"{significant(seconds / 3600)} h"
    )


def flop(count: float) -> str:
    """`1.23 PFLOP`."""
    for prefix, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= unit:
            return f"{significant(count / unit)} {prefix}FLOP"
    return f"{count:.0f} FLOP"


def counted(count: int, thing: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def listed(items: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
