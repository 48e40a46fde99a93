"""How numbers, metrics and sizes are written in a report."""

import math
from collections.abc import Iterable

INCEPTION = "inception-v3-compat"  # the field's own: its metrics name no extractor
TITLES = {
    "fid": "FID",
    "patch-fid": "patch FID",
    "sfid": "sFID",
    "is": "IS",
    "precision": "Precision",
    "recall": "Recall",
    "kid": "KID ×10³",
    "density": "Density",
    "coverage": "Coverage",
    "fid-infinity": "FID∞",
    "patch-fid-infinity": "patch FID∞",
}  # in the order of the report
# No Inception, so no FID: the field calls the distance over DINOv2's features FD-DINOv2
# (Stein et al. 2023, arXiv:2306.04675).
DINOV2 = {
    "fid": "FD-DINOv2",
    "patch-fid": "patch FD-DINOv2",
    "fid-infinity": "FD∞-DINOv2",
    "patch-fid-infinity": "patch FD∞-DINOv2",
}
BESIDE = {"fid": "patch-fid", "fid-infinity": "patch-fid-infinity"}  # in one table with it
FRECHET = (*BESIDE, *BESIDE.values(), "sfid")  # distances between Gaussians
LOWER_IS_BETTER = (*FRECHET, "kid")
DECIMALS = {"is": 2, "precision": 3, "recall": 3, "density": 3, "coverage": 3}
SCALE = {"kid": 1000.0}  # else it is all zeros; the title says so
NOTHING = "–"


def family(metric: str) -> str:
    """`fid` for `fid.fashion-cnn`: what kind of figure it is, whatever the extractor."""
    return metric.partition(".")[0]


def extractor(metric: str) -> str:
    """`fashion-cnn` for `fid.fashion-cnn`; a bare name is a metric of Inception."""
    return metric.partition(".")[2] or INCEPTION


def of(kind: str, metric: str) -> str:
    """The metric of this kind with the extractor of `metric`: `patch-fid.fashion-cnn`."""
    return kind + metric[len(family(metric)) :]


def noun(metric: str) -> str:
    """`patch FID`, `FD-DINOv2`: the metric, where its extractor is known otherwise."""
    kind = family(metric)
    named = DINOV2 if extractor(metric) == "dinov2" else {}
    return named.get(kind) or TITLES.get(kind, kind)


def title(*metrics: str) -> str:
    """`FID (fashion-cnn)`, `FID and patch FID (fashion-cnn)`: metrics of one extractor.

    Without an extractor in its name a metric is the Inception one.
    """
    name = extractor(metrics[0])
    said = name == INCEPTION or all(name.casefold() in noun(m).casefold() for m in metrics)
    return listed(map(noun, metrics)) + ("" if said else f" ({name})")


def arrow(metric: str) -> str:
    """Which way is better."""
    return "↓" if lower_is_better(metric) else "↑"


def lower_is_better(metric: str) -> bool:
    return family(metric) in LOWER_IS_BETTER


def in_order(metrics: Iterable[str]) -> list[str]:
    """FID first, then patch FID, sFID, IS, ...; families that are not known come last."""
    order = list(TITLES)

    def place(metric: str) -> tuple[int, str]:
        kind = family(metric)
        return (order.index(kind) if kind in order else len(order)), metric

    return sorted(set(metrics), key=place)


def side_by_side(metrics: Iterable[str]) -> list[tuple[str, ...]]:
    """The metrics of each table, in order: FID and patch FID of one extractor share one.

    FID hardly sees detail and patch FID sees nothing else, so neither is shown alone.
    """
    ordered = in_order(metrics)
    before = {second: first for first, second in BESIDE.items()}
    groups: dict[str, list[str]] = {}
    for metric in ordered:
        first = of(before.get(family(metric), family(metric)), metric)
        groups.setdefault(first if first in ordered else metric, []).append(metric)
    return [tuple(group) for group in groups.values()]


def significant(value: float, digits: int = 3) -> str:
    """`20.9`, `0.700`, `1234`: `digits` significant digits, and never an exponent."""
    return f"{value:.{decimals(value, digits)}f}"


def scaled(metric: str, value: float) -> float:
    """A value in the unit of the metric's title."""
    return SCALE.get(family(metric), 1.0) * value


def figure(metric: str, value: float, like: float | None = None) -> str:
    """A metric's value, with the decimals that `like` would have (its spread: its mean)."""
    return _written(metric, value, usual_decimals(metric, value if like is None else like))


def signed(metric: str, value: float, places: int) -> str:
    """`+1.25`, `−8.94`, `0.00`: a difference, with this many decimals."""
    text = _written(metric, value, places)
    return "+" + text if value > 0 and float(text) != 0 else text


def _written(metric: str, value: float, places: int) -> str:
    text = f"{scaled(metric, value):.{places}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def usual_decimals(metric: str, value: float) -> int:
    """The decimals that a metric's value is written with."""
    fixed = DECIMALS.get(family(metric))
    return decimals(scaled(metric, value)) if fixed is None else fixed


def decimals(value: float, digits: int = 3) -> int:
    """How many decimals `digits` significant digits of a value have."""
    if value == 0 or not math.isfinite(value):
        return digits - 1
    exponent = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])  # after rounding
    return max(0, digits - 1 - exponent)


def pixels(resolution: Iterable[int], cross: str = "×") -> str:
    """`24×24`, `16×24`: height, width."""
    return cross.join(str(side) for side in resolution)


def percent(share: float) -> str:
    """`50 %`, `12.5 %`."""
    return f"{100 * share:.4g} %"


def duration(seconds: float) -> str:
    """`48 s`, `12.5 min`, `3.20 h`."""
    if seconds < 100:
        return f"{significant(seconds, 2)} s"
    return (
        f"{significant(seconds / 60)} min" if seconds < 6000 else f"{significant(seconds / 3600)} h"
    )


def flop(count: float) -> str:
    """`1.23 PFLOP`."""
    unit, name = flop_unit(count)
    return f"{significant(count / unit)} {name}" if unit > 1 else f"{count:.0f} {name}"


def flop_unit(count: float) -> tuple[float, str]:
    """(1e15, `PFLOP`): in which such a count is written."""
    for prefix, unit in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= unit:
            return unit, f"{prefix}FLOP"
    return 1.0, "FLOP"


def counted(count: int, thing: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def listed(items: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
