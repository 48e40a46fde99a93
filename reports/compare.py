"""Differences between two rows: seed by seed, or with one seed sample by sample."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from scipy.special import ndtri, stdtrit  # quantiles of the normal and of Student's t

from reports.formats import signed
from reports.load import Row
from reports.stats import summary

LEVEL = 0.95  # of every interval


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
    influence values are missing, or where counts or protocols are not the same.
    """
    if ours.protocol_key(metric) != theirs.protocol_key(metric):
        return None
    u, v = (influence(row.influence, metric) for row in (ours, theirs))
    if u is None or v is None or u.shape != v.shape:
        return None
    half = float(ndtri((1 + LEVEL) / 2) * np.linalg.norm(u - v) / len(u))
    return half if math.isfinite(half) else None


def influence(file: Path | None, metric: str) -> np.ndarray | None:
    """What each sample does to a metric: float64 [N]; None where it was not kept."""
    with suppress(FileNotFoundError, SafetensorError):  # a figure stands without it
        if file is not None:
            with safe_open(file, framework="numpy") as kept:
                if metric in kept.keys():  # noqa: SIM118 # it is no dict
                    return kept.get_tensor(metric).astype(np.float64)
    return None


def interval(metric: str, difference: Difference, like: float) -> str:
    """`−8.9 [−10.8, −7.1]`; `−8.9 (n = 1, no interval)`; with the decimals of a value `like`."""
    mean = signed(metric, difference.mean, like)
    if difference.low is None or difference.high is None:
        return f"{mean} (n = 1, no interval)"
    ends = (signed(metric, end, like) for end in (difference.low, difference.high))
    return f"{mean} [{', '.join(ends)}]"
