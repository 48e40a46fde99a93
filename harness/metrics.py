"""Measures of a set of generated images against real ones, from their features; all in float64.

Pure functions. Their values depend on the number of samples (the Fréchet distance of two samples of
one distribution falls about as 1/n), so only values at equal counts can be compared.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_part

Array = NDArray[np.float64]
Moments = tuple[Array, Array]  # mean [D] and covariance [D, D]

_PRC_ROWS = 1000  # rows of a distance matrix at a time: 80 MB at 10,000 samples


def moments(features: torch.Tensor | Array) -> Moments:
    """Mean `[D]` and covariance `[D, D]` (divided by N - 1, as np.cov) of features `[N, D]`.

    Raises:
        ValueError: fewer than 2 samples, another shape, or values that are not finite.
    """
    values = _checked(features, "features", 2)
    return values.mean(axis=0), np.cov(values, rowvar=False).reshape(values.shape[1], -1)


def frechet_distance(mu1: Array, cov1: Array, mu2: Array, cov2: Array) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, Dowson and Landau 1982:

    |mu1 - mu2|^2 + tr(cov1) + tr(cov2) - 2 tr((cov1 cov2)^(1/2)), from means `[D]` and covariances
    `[D, D]`. This is the value that Heusel et al. 2017 (arXiv:1706.08500) call FID.

    Raises:
        ValueError: shapes that do not match, or values that are not finite.
    """
    dimension = mu1.shape[0]
    shapes = [mu1.shape, cov1.shape, mu2.shape, cov2.shape]
    if shapes != [(dimension,), (dimension, dimension)] * 2:
        raise ValueError(f"the two sets of moments do not match: shapes {shapes}")
    if not all(np.isfinite(part).all() for part in (mu1, cov1, mu2, cov2)):
        raise ValueError("the moments hold values that are not finite")
    # With cov = L L^T the trace is the sum of the singular values of L1^T L2. Unlike the square
    # roots of the eigenvalues of cov1 cov2 this stays exact where a covariance has no full rank.
    cross = _factor(cov1).T @ _factor(cov2)
    trace = np.linalg.svd(cross, compute_uv=False).sum()
    difference = mu1 - mu2
    distance = difference @ difference + np.trace(cov1) + np.trace(cov2) - 2 * trace
    return max(0.0, float(distance))  # a distance of 0 can come out as -1e-13


def fid(moments_a: Moments, moments_b: Moments) -> float:
    """`frechet_distance` of two results of `moments`; symmetric.

    Raises:
        ValueError: the features have different widths, or values that are not finite.
    """
    return frechet_distance(*moments_a, *moments_b)


def inception_score(logits: torch.Tensor | Array, splits: int = 10, seed: int = 2020) -> float:
    """exp(mean KL(p(y|x) || p(y))) of logits `[N, K]`, in 1..K; Salimans et al. 2016.

    torch-fidelity's convention: the samples are shuffled by NumPy's RandomState(`seed`), cut into
    `splits` runs as equal as can be, and the mean of the runs' scores is returned. Their spread is
    left out: it tells of one set of samples, not of other seeds. More splits mean fewer samples in
    each and a lower score; `splits=1` is the score of all samples together, whatever their order.

    Raises:
        ValueError: fewer than 2 samples or than `splits`, another shape, values not finite.
    """
    if splits < 1:
        raise ValueError(f"splits is {splits}, expected at least 1")
    values = _checked(logits, "logits", max(2, splits))
    result = isc_features_to_metric(torch.from_numpy(values), splits=splits, rng_seed=seed)
    score = float(result[KEY_METRIC_ISC_MEAN])
    if not np.isfinite(score):
        raise ValueError("the logits are too far apart: a class has probability 0 in float64")
    return score


def precision_recall(
    generated: torch.Tensor | Array, real: torch.Tensor | Array, k: int = 3
) -> tuple[float, float]:
    """Improved precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991), each in 0..1.

    Precision is the share of generated samples within a ball of some real sample, recall the share
    of real samples within a ball of some generated one. A ball reaches to its centre's `k`-th
    nearest neighbour in its own set. Features `[N, D]` and `[M, D]`.

    Raises:
        ValueError: k below 1, fewer than k + 1 samples on a side, unequal widths, values that are
            not finite.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    a = _checked(generated, "generated features", max(2, k + 1))
    b = _checked(real, "real features", max(2, k + 1))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"generated features have width {a.shape[1]}, real ones {b.shape[1]}")
    precision, recall = calculate_precision_recall_part(
        torch.from_numpy(a), torch.from_numpy(b), neighborhood=k, batch_size=_PRC_ROWS
    )
    return float(precision), float(recall)


def _checked(values: torch.Tensor | Array, what: str, least: int) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    array = np.array(values, dtype=np.float64)  # a copy: torch.from_numpy wants it writable
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{what} have shape {list(array.shape)}, expected [samples, width]")
    if len(array) < least:
        raise ValueError(f"{what} hold {len(array)} samples, at least {least} are needed")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} hold values that are not finite")
    return array


def _factor(covariance: Array) -> Array:
    """L with L L^T = covariance; eigenvalues that rounding made negative count as 0."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    factor: Array = vectors * np.sqrt(eigenvalues.clip(min=0))
    return factor
