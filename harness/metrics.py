"""Measures of a set of generated images against real ones, from their features.

Pure functions; statistics in float64. Moments are streamed: those of shards merge into those of the
whole. A value depends on the number of samples (the Fréchet distance of two samples of one
distribution falls about as 1/n), so only values at equal counts can be compared. Precision, recall,
density and coverage are in `harness.neighbours`, standard errors in `harness.uncertainty`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.lapack import dpstrf
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

Array = NDArray[np.float64]

ROWS = 250  # of a matrix of kernels or distances at a time: they stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and scatter of `count` samples; those of shards add up by `merged`."""

    count: int
    mean: Array  # [D]
    scatter: Array  # [D, D]: sum over the samples of the outer products of x - mean

    @property
    def covariance(self) -> Array:
        """`[D, D]`, divided by count - 1 as np.cov does.

        Raises:
            ValueError: a single sample.
        """
        if self.count < 2:
            raise ValueError(f"{self.count} sample has no covariance, at least 2 are needed")
        return self.scatter / (self.count - 1)


def moments(features: Tensor | Array) -> Moments:
    """Moments of features `[N, D]`, N at least 1.

    Raises:
        ValueError: no samples, another shape, or values that are not finite.
    """
    values = checked(features, "features", 1).cpu().double().numpy()
    mean = values.mean(axis=0)
    centred = values - mean
    return Moments(len(values), mean, centred.T @ centred)


def merged(a: Moments, b: Moments) -> Moments:
    """Moments of two sets together: Chan, Golub and LeVeque 1979, equations 2.1.

    Commutes exactly; any cutting into shards gives the moments of the whole up to rounding.

    Raises:
        ValueError: the two have different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"moments of widths {a.mean.size} and {b.mean.size} cannot be merged")
    count = a.count + b.count
    shift = a.mean - b.mean
    scatter = np.outer(shift, shift)
    scatter *= a.count * b.count / count
    scatter += a.scatter + b.scatter
    return Moments(count, (a.count * a.mean + b.count * b.mean) / count, scatter)


def frechet_distance(mu1: Array, cov1: Array, mu2: Array, cov2: Array) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, Dowson and Landau 1982:

    |mu1 - mu2|^2 + tr(cov1) + tr(cov2) - 2 tr((cov1 cov2)^(1/2)), from means `[D]` and covariances
    `[D, D]`. This is the value that Heusel et al. 2017 (arXiv:1706.08500) call FID.

    Raises:
        ValueError: shapes that do not match, values that are not finite, or a matrix that is no
            covariance.
    """
    check_gaussians(mu1, cov1, mu2, cov2)
    # With cov = L L^T the trace is the sum of the singular values of L1^T L2. Unlike the square
    # roots of the eigenvalues of cov1 cov2 this stays exact where a covariance has no full rank.
    cross = factor(cov1).T @ factor(cov2)
    trace = np.linalg.svd(cross, compute_uv=False).sum() if cross.size else 0.0
    difference = mu1 - mu2
    distance = difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * trace
    return max(0.0, float(distance))  # a distance of 0 can come out as -1e-13


def check_gaussians(mu1: Array, cov1: Array, mu2: Array, cov2: Array) -> None:
    """Refuse moments whose shapes do not match or that are not finite.

    Raises:
        ValueError: which it is.
    """
    dimension = mu1.shape[0]
    shapes = [mu1.shape, cov1.shape, mu2.shape, cov2.shape]
    if shapes != [(dimension,), (dimension, dimension)] * 2:
        raise ValueError(f"the two sets of moments do not match: shapes {shapes}")
    if not all(np.isfinite(part).all() for part in (mu1, cov1, mu2, cov2)):
        raise ValueError("the moments hold values that are not finite")


def factor(covariance: Array) -> Array:
    """L `[D, rank]` with L L^T = covariance `[D, D]`, by Cholesky with pivots.

    What is left when the pivots reach rounding error counts as 0, so a sample smaller than its
    width gives its true rank. Eight times as fast as eigenvectors at 2,048 dimensions.

    Raises:
        ValueError: the matrix is not symmetric, or has negative eigenvalues.
    """
    scale = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-6 * scale:
        raise ValueError("a covariance is not symmetric: the statistics are damaged")
    packed, pivots, rank, _ = dpstrf(covariance, lower=1)
    lower = np.empty((len(covariance), rank))
    lower[pivots - 1] = np.tril(packed)[:, :rank]
    # A covariance kept in float32 has negative eigenvalues of that rounding: let those pass. What
    # L leaves out is seen in the product with any vector, here one of random signs.
    signs = np.random.RandomState(0).choice([-1.0, 1.0], len(covariance))
    left_out = np.abs(covariance @ signs - lower @ (lower.T @ signs)).max(initial=0)
    if left_out > 1e-5 * len(covariance) * scale:
        raise ValueError("a covariance has negative eigenvalues: the statistics are damaged")
    return lower


def splits_of(count: int) -> int:
    """How many parts ADM's evaluator cuts `count` samples into for the inception score: 5,000 each.

    `inception_score(logits, splits_of(N), shuffle=False)` is then ADM's where N is a multiple of
    5,000; otherwise the parts here are equal, and ADM's last one is smaller.
    """
    return max(1, -(-count // 5000))


def inception_score(
    logits: Tensor | Array, splits: int = 10, shuffle: bool = True, seed: int = 2020
) -> float:
    """exp(mean KL(p(y|x) || p(y))) of logits `[N, K]`, in 1..K; Salimans et al. 2016.

    Computed by torch-fidelity: the samples are shuffled by NumPy's RandomState(`seed`) (or, with
    `shuffle=False`, stay in file order as in ADM's evaluator), cut into `splits` runs as equal as
    can be, and the mean of the runs' scores is returned. Their spread is left out: it tells of one
    set of samples, not of other seeds. More splits mean fewer samples in each and a lower score;
    `splits=1` is the score of all samples together, whatever their order.

    Raises:
        ValueError: fewer than 2 samples or than `splits`, another shape, values not finite.
    """
    if splits < 1:
        raise ValueError(f"splits is {splits}, expected at least 1")
    values = checked(logits, "logits", max(2, splits)).cpu().double()
    result = isc_features_to_metric(values, splits=splits, shuffle=shuffle, rng_seed=seed)
    score = float(result[KEY_METRIC_ISC_MEAN])
    if not np.isfinite(score):
        raise ValueError("the logits are too far apart: a class has probability 0 in float64")
    return score


def kid(
    generated: Tensor | Array,
    real: Tensor | Array,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> float:
    """Kernel inception distance, Bińkowski et al. 2018 (arXiv:1801.01401), of `[N, D]`, `[M, D]`.

    The mean over random subsets of the unbiased squared maximum mean discrepancy with the kernel
    (x.y / D + 1)^3; near 0, and sometimes below it, for two samples of one distribution. Subsets
    are torch-fidelity's: NumPy's RandomState(`seed`), without replacement, generated before real.
    With fewer samples than `subset_size` on a side, every subset has as many as the smaller side.

    Raises:
        ValueError: fewer than 2 samples on a side, no subsets, subsets of fewer than 2 samples,
            unequal widths, values that are not finite.
    """
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"{subsets} subsets of {subset_size}, expected at least 1 of 2 samples")
    x, y = (values.cpu().numpy() for values in checked_pair(generated, real))
    size = min(subset_size, len(x), len(y))
    draws = np.random.RandomState(seed)
    total = 0.0
    for _ in range(subsets):
        a = x[draws.choice(len(x), size, replace=False)]
        b = y[draws.choice(len(y), size, replace=False)]
        within = sum(kernel_sums(part, part).sum() - kernel_diagonal(part).sum() for part in (a, b))
        total += within / (size * (size - 1)) - 2 * kernel_sums(a, b).sum() / size**2
    return float(total) / subsets


def kernel_sums(x: NDArray, y: NDArray) -> Array:
    """Sum over j of k(x_i, y_j) = (x_i.y_j / D + 1)^3 for each i: `[N]`, of `[N, D]` and `[M, D]`.

    Products in the features' own precision, everything after them in float64: the rounding of
    float32 products averages out (to 1e-11 in a KID), and they take half the time. NumPy computes
    x @ x.T at half the cost of another product.
    """
    products = x @ y.T
    sums = np.empty(len(x))
    for start in range(0, len(x), ROWS):
        base = products[start : start + ROWS].astype(np.float64)
        base /= x.shape[1]
        base += 1
        np.einsum("nm,nm->n", base * base, base, out=sums[start : start + ROWS])
    return sums


def kernel_diagonal(x: NDArray) -> Array:
    """k(x_i, x_i) of `kernel_sums`: `[N]`."""
    squares = np.einsum("nd,nd->n", x, x, dtype=np.float64)
    diagonal: Array = (squares / x.shape[1] + 1) ** 3
    return diagonal


def radii(features: Tensor | Array, k: int, device: torch.device | str | None = None) -> Array:
    """Distance of each sample to its `k`-th nearest other: float64 `[N]` of features `[N, D]`.

    Raises:
        ValueError: k below 1, fewer than k + 1 samples, another shape, values that are not finite.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    values = checked(features, "features", k + 1).to(device or "cpu").double()
    values = values - values.mean(0)
    return nearest(values, k)[:, -1].cpu().numpy()


def nearest(x: Tensor, k: int) -> Tensor:
    """Distances of samples float64 `[N, D]` to their 1st to `k`-th nearest others: `[N, k]`."""
    parts = []
    for start, distances in squared_distances(x, x):
        distances.diagonal(start).fill_(torch.inf)  # a sample is no neighbour of itself
        parts.append(distances.topk(k, largest=False).values)
    return torch.cat(parts).clamp_(min=0).sqrt_()


def squared_distances(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The matrix `[N, M]` of |x_i - y_j|^2 by blocks of rows, each with its first i.

    A block is overwritten by the next. One product of (-2x, |x|^2, 1) and (y, 1, |y|^2), so a
    distance of 0 is one only within about 1e-15 (|x|^2 + |y|^2), and may be negative: float64, and
    features that are centred.
    """
    right = torch.cat([y, torch.ones_like(y[:, :1]), y.square().sum(1, keepdim=True)], 1)
    block = torch.empty(min(ROWS, len(x)), len(y), dtype=x.dtype, device=x.device)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        left = [-2 * rows, rows.square().sum(1, keepdim=True), torch.ones_like(rows[:, :1])]
        yield start, torch.mm(torch.cat(left, 1), right.T, out=block[: len(rows)])


def checked(values: Tensor | Array, what: str, least: int) -> Tensor:
    """`values` as a tensor `[N, width]`, float32 or float64.

    Raises:
        ValueError: another shape, fewer than `least` samples, or values that are not finite.
    """
    if not isinstance(values, Tensor):
        values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    values = values.detach()
    if values.dtype != torch.float32:
        values = values.double()
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{what} have shape {list(values.shape)}, expected [samples, width]")
    if len(values) < least:
        raise ValueError(f"{what} hold {len(values)} samples, at least {least} are needed")
    if not values.isfinite().all():
        raise ValueError(f"{what} hold values that are not finite")
    return values


def checked_pair(
    generated: Tensor | Array, real: Tensor | Array, least: int = 2, least_real: int = 2
) -> tuple[Tensor, Tensor]:
    """Both as `checked`, of one precision.

    Raises:
        ValueError: as `checked`, or their widths differ.
    """
    x = checked(generated, "generated features", least)
    y = checked(real, "real features", least_real)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"generated features have width {x.shape[1]}, real ones {y.shape[1]}")
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)
