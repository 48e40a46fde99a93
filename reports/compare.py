"""Differences between two rows: seed by seed, or with one seed sample by sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError, safe_open
from scipy.special import ndtri, stdtrit  # quantiles of the normal and of Student's t

from reports.formats import decimals, scaled, signed, usual_decimals
from reports.load import Row
from reports.stats import summary

LEVEL = 0.95  # of every interval
ROUNDING = 1e-9  # half an interval, as a share of its ends, up to which it is rounding


@dataclass(frozen=True)
class Difference:
    """A mean of differences with its interval."""

    n: int  # seeds
    mean: float
    low: float | None  # None for one seed without influence values: there is no interval
    high: float | None
    over: str = "seeds"  # or "samples": what the interval is over

    @property
    def excludes_zero(self) -> bool:
        """The interval lies on one side of 0; never so without an interval."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def difference(
    ours: Mapping[int, Row], theirs: Mapping[int, Row], metric: str, over_samples: bool
) -> Difference | None:
    """`ours` - `theirs` over the seeds that both have; None where there is no such seed.

    Args:
        ours, theirs: seed -> what was measured with it, in one column.
        over_samples: the report has one seed, so an interval can only be over samples.
    """
    values = ({seed: row.metrics[metric] for seed, row in one.items()} for one in (ours, theirs))
    found = paired(*values)
    if found is None or found.n > 1 or not over_samples:
        return found
    (seed,) = ours.keys() & theirs.keys()
    half = _half_width(ours[seed], theirs[seed], metric)
    if half is None:
        return found
    return Difference(1, found.mean, found.mean - half, found.mean + half, "samples")


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Mean of the differences over the seeds that both have, with its t interval."""
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not differences:
        return None
    found = summary(differences)
    if found.sd is None:
        return Difference(found.n, found.mean, None, None)
    half = float(stdtrit(found.n - 1, (1 + LEVEL) / 2)) * found.sd / math.sqrt(found.n)
    return Difference(found.n, found.mean, found.mean - half, found.mean + half)


def _half_width(ours: Row, theirs: Row, metric: str) -> float | None:
    """Half the interval of a difference between two evaluations of one seed, over the samples.

    Both generated sample i from the same noise and label, so the influence values u_i of the two
    are paired and the difference has those of their difference: se = sqrt(sum (u_i - v_i)^2) / N
    (infinitesimal jackknife: Jaeckel 1972; Efron 1982). The reference is held fixed. None where
    influence values are missing or all 0, or where counts or protocols are not the same.
    """
    if ours.protocol_key(metric) != theirs.protocol_key(metric):
        return None
    (u, _), (v, _) = (influence(row, metric) for row in (ours, theirs))
    if u is None or v is None or u.shape != v.shape or not (u.any() and v.any()):
        return None
    return float(ndtri((1 + LEVEL) / 2) * np.linalg.norm(u - v) / len(u))


def influence(row: Row, metric: str) -> tuple[np.ndarray | None, str]:
    """What each sample does to a metric, float64 [N]; or None, and what is wrong with its file.

    Nothing is wrong where the evaluation has no such values for this metric.
    """
    if row.influence is None:
        return None, ""
    try:
        with safe_open(row.influence, framework="numpy") as kept:
            if metric not in kept.keys():  # noqa: SIM118 # it is no dict
                return None, ""
            u = kept.get_tensor(metric).astype(np.float64)
    except FileNotFoundError:
        return None, "missing"
    except SafetensorError:
        return None, "damaged"
    whole = u.shape == (row.protocol.get("samples", u.size),) and np.isfinite(u).all()
    return (u, "") if whole else (None, "damaged")


def interval(metric: str, difference: Difference, like: float) -> str:
    """`−8.9 [−10.8, −7.1]`, `−8.9 (n = 1, no interval)`.

    Args:
        like: a value of the metric; its decimals are used where there is no interval, or one
            without width.
    """
    places = places_of(metric, difference, like)
    mean = signed(metric, difference.mean, places)
    if difference.low is None or difference.high is None:
        return f"{mean} (n = 1, no interval)"
    ends = (signed(metric, end, places) for end in (difference.low, difference.high))
    return f"{mean} [{', '.join(ends)}]"


def places_of(metric: str, difference: Difference, like: float) -> int:
    """Decimals of a difference: two digits of half its interval, and what tells its ends from 0."""
    mean, low, high = difference.mean, difference.low, difference.high
    places, nearest = usual_decimals(metric, like), abs(mean)
    if low is not None and high is not None:
        half = (high - low) / 2
        if half > ROUNDING * max(abs(low), abs(high)):
            places = decimals(scaled(metric, half), 2)
            nearest = min(abs(low), abs(high)) if difference.excludes_zero else 0.0
    nearest = scaled(metric, nearest)
    hidden = nearest > 0 and float(f"{nearest:.{places}f}") == 0
    return decimals(nearest, 1) if hidden else places
