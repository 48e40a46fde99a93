"""How far a figure would move with another sample of the same size: standard errors, intervals.

Each generated sample has an influence value u_i on a figure: the derivative of the figure by the
sample's weight, times N, with mean 0. The standard error is then sqrt(sum u_i^2) / N, the
infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6): what the bootstrap over samples
estimates, at the cost of one more pass. The reference is held fixed, and spread over training seeds
is another thing. Two figures of samples from the same noise are compared by u_i - v_i.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from torch import Tensor

from harness.draws import generator
from harness.metrics import (
    ROWS,
    Array,
    check_gaussians,
    checked,
    checked_pair,
    factor,
    frechet_distance,
    kernel_diagonal,
    kernel_sums,
    moments,
)

# The least that a kind of metric can be; other kinds can be anything.
LEAST = {"fid": 0.0, "patch-fid": 0.0, "sfid": 0.0, "is": 1.0, "density": 0.0}
SHARES = ("precision", "recall", "coverage")
ROUNDING = 1e-9  # of a figure: what is left of an error that is 0
LEAST_OF_KID = 100  # samples: below, its standard error is as large as what it measures
DISTANCES = ("fid", "patch-fid", "sfid", "fid-infinity", "patch-fid-infinity")


def standard_error(u: Array) -> float:
    """Of the figure whose influence values are `u [N]`."""
    return float(np.sqrt((u**2).sum())) / len(u)


def interval(
    kind: str, value: float, error: float, count: int, level: float = 0.95
) -> tuple[float, float] | None:
    """The interval around a figure of metric `kind` with this standard error, of `count` samples.

    It is about the figure's expectation at this count, and does not show how far that is from an
    infinite count's. Normal, cut to what the metric can be; for a share (precision, recall,
    coverage) Wilson's (1927), with the number of trials that has this error, because a share of 1
    is not known exactly, with as many as there are samples. None for the others where the samples
    do not vary (copies of one image).
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    if kind in SHARES:
        trials = value * (1 - value) / error**2 if error and 0 < value < 1 else count
        centre = (value + z**2 / (2 * trials)) / (1 + z**2 / trials)
        spread = value * (1 - value) / trials + z**2 / (4 * trials**2)
        reach = z * spread**0.5 / (1 + z**2 / trials)
        return max(0.0, min(value, centre - reach)), min(1.0, max(value, centre + reach))
    if error <= ROUNDING * max(1.0, abs(value)):
        return None
    return max(LEAST.get(kind, -np.inf), value - z * error), value + z * error


def shortfall(kind: str, count: int, width: int) -> str | None:
    """Why `count` samples are too few for metric `kind` on `width` dimensions, or None.

    With no more samples than dimensions a covariance is singular. The distance is still defined,
    but most of it is that shortage, so such a figure is to be marked; and so is a kernel distance
    of a handful of images.
    """
    if kind in DISTANCES and count <= width:
        least = width + 1
        return (
            f"{count:,} samples for {width:,} dimensions: the covariance needs at least {least:,}"
        )
    if kind == "kid" and count < LEAST_OF_KID:
        return f"{count:,} samples: a kernel distance needs at least {LEAST_OF_KID:,}"
    return None


@dataclass(frozen=True, eq=False)
class FrechetGradient:
    """The derivative of a Fréchet distance by the mean and covariance of the samples."""

    mean: Array  # [D], of the samples
    linear: Array  # [D], by the mean
    root: Array  # [D, rank]: by the covariance the derivative is I - root root^T
    offset: float  # the trace of that times the covariance: the quadratic term's mean


def frechet_gradient(mu: Array, cov: Array, mu_ref: Array, cov_ref: Array) -> FrechetGradient:
    """The derivative of `frechet_distance(mu, cov, mu_ref, cov_ref)` by `mu [D]` and `cov [D, D]`.

    With cov_ref = L L^T: 2 (mu - mu_ref), and I - L (L^T cov L)^(-1/2) L^T. The inverse is the
    pseudo-inverse: other weights of the same samples stay within their span.

    Raises:
        ValueError: as `frechet_distance`.
    """
    check_gaussians(mu, cov, mu_ref, cov_ref)
    lower = factor(cov_ref)
    values, vectors = np.linalg.eigh(lower.T @ cov @ lower)
    kept = values > len(mu) * np.finfo(float).eps * values.max(initial=0)
    root = lower @ (vectors[:, kept] * values[kept] ** -0.25)
    offset = np.trace(cov) - np.sqrt(values[kept]).sum()
    return FrechetGradient(mu, 2 * (mu - mu_ref), root, float(offset))


def frechet_influence(features: Tensor | Array, gradient: FrechetGradient) -> Array:
    """Influence values `[n]` of the samples `[n, D]`, any block of those behind the gradient.

    With c = x - mu: linear.c + |c|^2 - |root^T c|^2 - offset.

    Raises:
        ValueError: another width, or values that are not finite.
    """
    values = checked(features, "features", 1).cpu().double().numpy()
    if values.shape[1] != len(gradient.mean):
        raise ValueError(f"features of width {values.shape[1]}, not {len(gradient.mean)}")
    centred = values - gradient.mean
    across = centred @ gradient.root
    along: Array = centred @ gradient.linear + np.einsum("nd,nd->n", centred, centred)
    return along - np.einsum("nd,nd->n", across, across) - gradient.offset


def score_influence(
    logits: Tensor | Array, splits: int = 10, shuffle: bool = True, seed: int = 2020
) -> Array:
    """Influence values `[N]` on `inception_score` of the same arguments.

    IS_s (KL(p_i || q_s) - mean of it) in the part s that sample i falls into, q_s being the part's
    mean distribution, times the part's share of the score: N / (splits x its samples).

    Raises:
        ValueError: as `inception_score`.
    """
    values = checked(logits, "logits", max(2, splits)).cpu().double()
    count = len(values)
    order = np.random.RandomState(seed).permutation(count) if shuffle else np.arange(count)
    influence = np.empty(count)
    for part in range(splits):
        chosen = order[part * count // splits : (part + 1) * count // splits]
        log_p = values[chosen].log_softmax(1)
        p = log_p.exp()
        divergence = (p * (log_p - p.mean(0).log())).sum(1)
        score = divergence.mean().exp()
        if not score.isfinite():
            raise ValueError("the logits are too far apart: a class has probability 0 in float64")
        each = score * (divergence - divergence.mean()) * count / (splits * len(chosen))
        influence[chosen] = each.numpy()
    return influence


def kid_influence(
    generated: Tensor | Array, real: Tensor | Array, partners: int = 10_000, seed: int = 0
) -> Array:
    """Influence values `[N]` on the kernel inception distance of all samples `[N, D]`, `[M, D]`.

    2 (mean over generated j of k(x_i, x_j) - mean over real j of k(x_i, y_j)), less its mean: the
    first-order part of the U-statistic that the random subsets of `metrics.kid` estimate. The means
    are over at most `partners` samples of each set, drawn at random, so that time grows as N.

    Raises:
        ValueError: as `metrics.kid`, or fewer than 2 partners.
    """
    if partners < 2:
        raise ValueError(f"partners is {partners}, expected at least 2")
    x, y = (values.cpu().numpy() for values in checked_pair(generated, real))
    draws = generator(seed, "partners")
    near, far = (draws.permutation(len(values))[:partners] for values in (x, y))
    itself = np.isin(np.arange(len(x)), near)  # a pair of a sample with itself does not count
    within = np.where(itself, -kernel_diagonal(x), 0.0)
    across = np.empty(len(x))
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        within[rows] += kernel_sums(x[rows], x[near])
        across[rows] = kernel_sums(x[rows], y[far])
    each = 2 * (within / (len(near) - itself) - across / len(far))
    influence: Array = each - each.mean()
    return influence


def extrapolated(
    features: Tensor | Array, mean: Array, covariance: Array, seed: int = 0, points: int = 15
) -> tuple[float, float]:
    """The Fréchet distance at infinitely many samples and its standard error.

    Chong and Forsyth 2020 (arXiv:1911.07023), section 3: the distances of random subsets of
    `points` regular sizes, from max(2 D, N / 10) to N, on a line in 1 / size, read at 0. Below 0 is
    possible. What is left of the bias are the terms in 1 / size^2: a tenth of it at N = 15 D.

    The error is that of the samples, not of the line, whose points share them: each distance is its
    expectation plus the mean influence of its subset, so sample i has its influence times the sum
    of N / size x the point's weight in the line's value at 0, over the subsets that it is in.

    Args:
        features: of all samples, `[N, D]`.
        mean: of the reference, `[D]`.
        covariance: of the reference, `[D, D]`.

    Raises:
        ValueError: fewer than 2 points, too few samples for them, or as `frechet_distance`.
    """
    values = checked(features, "features", 2)
    count, width = values.shape
    smallest = max(2 * width, count // 10)
    if points < 2 or count < smallest + points:
        raise ValueError(
            f"{count:,} samples of width {width:,} are too few for {points} sizes from "
            f"{smallest:,} on"
        )
    sizes = np.linspace(smallest, count, points).astype(int)
    at_zero = np.linalg.pinv(np.stack([np.ones(points), 1 / sizes], 1))[0]
    draws = generator(seed, "extrapolation")
    value, share = 0.0, np.zeros(count)
    for size, weight in zip(sizes, at_zero, strict=True):
        chosen = draws.permutation(count)[:size]
        part = moments(values[chosen])
        value += weight * frechet_distance(part.mean, part.covariance, mean, covariance)
        share[chosen] += weight * count / size
    gradient = frechet_gradient(part.mean, part.covariance, mean, covariance)
    return float(value), standard_error(share * frechet_influence(values, gradient))
