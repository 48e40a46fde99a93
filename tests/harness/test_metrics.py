"""The measures against closed forms, scipy, NumPy written out, and torch-fidelity."""

import math
from functools import reduce

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from harness import metrics

seeds = st.integers(0, 2**32 - 1)
relaxed = settings(max_examples=40, deadline=None)


def sample(seed: int, count: int, width: int) -> np.ndarray:
    """Correlated samples off the origin."""
    draws = np.random.default_rng(seed)
    return draws.normal(size=(count, width)) @ draws.normal(size=(width, width)) + draws.normal()


def gaussian(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = metrics.moments(features)
    return found.mean, found.covariance


def fid(a: np.ndarray, b: np.ndarray) -> float:
    return metrics.frechet_distance(*gaussian(a), *gaussian(b))


# Moments


@relaxed
@given(seed=seeds, count=st.integers(2, 20), width=st.integers(1, 6))
def test_moments_written_out(seed: int, count: int, width: int) -> None:
    values = sample(seed, count, width)
    found = metrics.moments(values)
    centred = values - values.sum(0) / count
    assert found.count == count
    np.testing.assert_allclose(found.mean, values.sum(0) / count)
    np.testing.assert_allclose(found.scatter, centred.T @ centred, atol=1e-12)
    np.testing.assert_allclose(found.covariance, centred.T @ centred / (count - 1), atol=1e-12)


@relaxed
@given(
    seed=seeds, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), width=st.integers(1, 5)
)
def test_shards_add_up_in_any_cutting_and_order(seed: int, sizes: list[int], width: int) -> None:
    values = sample(seed, sum(sizes), width)
    whole = metrics.moments(values)
    shards = [metrics.moments(part) for part in np.split(values, np.cumsum(sizes)[:-1])]
    draws = np.random.default_rng(seed)
    for order in (shards, [shards[i] for i in draws.permutation(len(shards))]):
        together = reduce(metrics.merged, order)
        assert together.count == whole.count
        np.testing.assert_allclose(together.mean, whole.mean, rtol=1e-12, atol=1e-12)
        scale = np.abs(whole.scatter).max() + 1
        np.testing.assert_allclose(together.scatter, whole.scatter, atol=1e-12 * scale)
    one, other = metrics.merged(shards[0], shards[-1]), metrics.merged(shards[-1], shards[0])
    assert np.array_equal(one.mean, other.mean)  # to the last bit
    assert np.array_equal(one.scatter, other.scatter)


def test_moments_of_a_tensor_are_float64() -> None:
    # At an offset of 10^4, float32 arithmetic would lose the variance.
    values = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) + 1e4
    found = reduce(metrics.merged, (metrics.moments(part) for part in values.split(64)))
    assert found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.covariance, np.cov(values.double().numpy(), rowvar=False))


def test_moments_take_views_read_only_arrays_and_whole_numbers() -> None:
    values = sample(0, 20, 3)
    expected = metrics.moments(values)
    frozen = values.copy()
    frozen.flags.writeable = False
    for view in (frozen, np.asfortranarray(values), values[::-1][::-1]):
        assert np.array_equal(metrics.moments(view).mean, expected.mean)
    assert metrics.moments(np.arange(6).reshape(3, 2)).mean.tolist() == [2, 3]


# The Fréchet distance


@relaxed
@given(seed=seeds, width=st.integers(1, 12))
def test_frechet_is_scipys_square_root(seed: int, width: int) -> None:
    (mu1, cov1), (mu2, cov2) = (gaussian(sample(seed + i, 3 * width + 2, width)) for i in (0, 1))
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root)
    ours = metrics.frechet_distance(mu1, cov1, mu2, cov2)
    assert ours == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.trace(cov1 + cov2))


def test_frechet_is_scipys_square_root_at_many_dimensions() -> None:
    (mu1, cov1), (mu2, cov2) = (gaussian(sample(i, 900, 256)) for i in (0, 1))
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root)
    assert metrics.frechet_distance(mu1, cov1, mu2, cov2) == pytest.approx(expected, rel=1e-9)


@relaxed
@given(
    parts=st.lists(
        st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 9), st.floats(0, 9)),
        min_size=1,
        max_size=8,
    ),
    seed=seeds,
)
def test_frechet_of_aligned_gaussians(parts: list[tuple[float, ...]], seed: int) -> None:
    # With common axes: the squared distance of the means plus that of the standard deviations.
    mu1, mu2, deviation1, deviation2 = np.array(parts).T
    expected = ((mu1 - mu2) ** 2).sum() + ((deviation1 - deviation2) ** 2).sum()
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(parts), len(parts))))
    ours = metrics.frechet_distance(
        turn @ mu1,
        turn @ np.diag(deviation1**2) @ turn.T,
        turn @ mu2,
        turn @ np.diag(deviation2**2) @ turn.T,
    )
    # A deviation below 1e-8 of the largest is lost in the rounding of its square.
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-5)


@relaxed
@given(seed=seeds, count=st.integers(2, 30), width=st.integers(1, 10))
def test_frechet_is_a_distance(seed: int, count: int, width: int) -> None:
    values, others = sample(seed, count, width), sample(seed + 1, count, width)
    scale = values.var(0).sum() + others.var(0).sum()
    there, back = fid(values, others), fid(others, values)
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-9, abs=1e-9 * scale)
    # Also where there are fewer samples than dimensions, and so no full rank:
    assert fid(values, values) == pytest.approx(0, abs=1e-9 * scale)
    assert fid(values, values + 3.0) == pytest.approx(9 * width, rel=1e-6, abs=1e-9 * scale)
    assert fid(2 * values, 2 * others) == pytest.approx(4 * there, rel=1e-6, abs=1e-8 * scale)
    shuffled = np.random.default_rng(seed).permutation(values)
    assert fid(shuffled, others) == pytest.approx(there, rel=1e-9, abs=1e-9 * scale)


def test_frechet_where_a_covariance_is_singular() -> None:
    # 2 samples a side in 50 dimensions, on one line: (3 - 1)^2 of the deviations.
    line = np.random.default_rng(0).normal(size=50)
    line *= 2**-0.5 / np.linalg.norm(line)
    assert fid(np.stack([line, -line]), np.stack([3 * line, -3 * line])) == pytest.approx(4)
    constant = np.ones((5, 50))
    assert fid(constant, constant) == 0
    assert fid(constant, constant + 1) == 50
    values = sample(0, 20, 50)
    assert fid(constant, values) == pytest.approx(
        ((values.mean(0) - 1) ** 2).sum() + values.var(0, ddof=1).sum()
    )
    dead = values.copy()
    dead[:, 7] = 0  # a feature that never fires
    assert fid(dead, dead) == pytest.approx(0, abs=1e-9)


def test_fid_is_torch_fidelitys() -> None:
    a, b = sample(0, 500, 16), sample(1, 500, 16)
    statistics = [fid_features_to_statistics(torch.from_numpy(values)) for values in (a, b)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fid(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_covariance_kept_in_float32_is_still_one() -> None:
    mean, covariance = gaussian(sample(0, 20, 50))  # singular: rounding makes eigenvalues negative
    rounded = covariance.astype(np.float32).astype(float)
    assert np.linalg.eigvalsh(rounded)[0] < 0
    distance = metrics.frechet_distance(mean, covariance, mean, rounded)
    assert distance == pytest.approx(0, abs=1e-2 * np.trace(covariance))


# The inception score


@relaxed
@given(seed=seeds, count=st.integers(2, 60), splits=st.integers(1, 6), shuffle=st.booleans())
def test_inception_score_written_out(seed: int, count: int, splits: int, shuffle: bool) -> None:
    count = max(count, splits)
    logits = sample(seed, count, 5)
    order = np.random.RandomState(2020).permutation(count) if shuffle else np.arange(count)
    scores = []
    for part in range(splits):
        chunk = logits[order][part * count // splits : (part + 1) * count // splits]
        p = scipy.special.softmax(chunk, axis=1)
        entropy = scipy.special.entr(p).sum(1).mean()
        scores.append(math.exp(scipy.special.entr(p.mean(0)).sum() - entropy))
    ours = metrics.inception_score(logits, splits, shuffle)
    assert ours == pytest.approx(np.mean(scores), rel=1e-9)
    assert 1 - 1e-9 <= ours <= 5 + 1e-9


def test_inception_score_at_its_ends() -> None:
    sure = 50 * torch.eye(4).repeat(25, 1)
    assert metrics.inception_score(sure, splits=1) == pytest.approx(4)
    assert metrics.inception_score(torch.zeros(20, 4), splits=2) == pytest.approx(1)
    assert metrics.inception_score(sure[:1].repeat(20, 1), splits=2) == pytest.approx(1)


def test_inception_score_is_torch_fidelitys() -> None:
    logits = torch.from_numpy(sample(0, 100, 10))
    for shuffle in (True, False):
        expected = isc_features_to_metric(logits, shuffle=shuffle)["inception_score_mean"]
        assert metrics.inception_score(logits, shuffle=shuffle) == expected
    assert metrics.inception_score(logits, seed=1) != metrics.inception_score(logits)


def test_inception_score_of_one_split_ignores_the_order() -> None:
    logits = sample(0, 100, 10)
    backwards = metrics.inception_score(logits[::-1], splits=1)
    assert metrics.inception_score(logits, splits=1) == pytest.approx(backwards, rel=1e-12)


@pytest.mark.parametrize(
    ("count", "splits"), [(1, 1), (5000, 1), (5001, 2), (10_000, 2), (50_000, 10), (50_001, 11)]
)
def test_adm_cuts_the_score_into_splits_of_5000(count: int, splits: int) -> None:
    assert metrics.splits_of(count) == splits == len(range(0, count, 5000))


def test_class_sorted_samples_in_file_order_corrupt_adms_score() -> None:
    # The trap that the shuffle is for: each split then holds one class.
    logits = torch.from_numpy(np.repeat(50 * np.eye(4), 25, axis=0))
    assert metrics.inception_score(logits, splits=4, shuffle=False) == pytest.approx(1)
    assert metrics.inception_score(logits, splits=4) > 3


# The kernel inception distance


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return (float(x @ y) / len(x) + 1) ** 3


@relaxed
@given(seed=seeds, count=st.integers(2, 12), width=st.integers(1, 5))
def test_kid_of_all_samples_written_out(seed: int, count: int, width: int) -> None:
    x, y = sample(seed, count, width), sample(seed + 1, count, width)
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs) / len(pairs)
    across = np.mean([kernel(a, b) for a in x for b in y])
    found = metrics.kid(x, y, subsets=1)  # fewer samples than a subset has: all of them
    assert found == pytest.approx(within - 2 * across, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("width", [64, 2048])
def test_kid_is_torch_fidelitys(width: int) -> None:
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.rand(n, width, generator=draws).mul(3) for n in (300, 260))
    expected = kid_features_to_metric(
        x, y * 1.1, kid_subsets=20, kid_subset_size=200, verbose=False
    )["kernel_inception_distance_mean"]
    found = metrics.kid(x, y * 1.1, subsets=20, subset_size=200)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    exact = metrics.kid(x.double(), y.double() * 1.1, subsets=20, subset_size=200)
    assert found == pytest.approx(exact, rel=1e-6, abs=1e-9)
    another = metrics.kid(x, y * 1.1, subsets=20, subset_size=200, seed=1)
    assert another != found


def test_kid_keeps_to_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample(0, 50, 3), sample(1, 40, 3)
    expected = metrics.kid(x, y, subsets=3, subset_size=30)
    monkeypatch.setattr(metrics, "ROWS", 7)
    assert metrics.kid(x, y, subsets=3, subset_size=30) == pytest.approx(expected, rel=1e-12)


def test_kid_with_too_few_samples_takes_the_smaller_side() -> None:
    x, y = sample(0, 50, 3), sample(1, 40, 3)
    assert metrics.kid(x, y, subset_size=999) == metrics.kid(x, y, subset_size=40)


def test_kid_of_one_distribution_is_about_0() -> None:
    draws = np.random.default_rng(0)
    x, y, other = (draws.normal(loc, 1, (2000, 8)) for loc in (0, 0, 0.5))
    assert abs(metrics.kid(x, y)) < 3e-3
    assert metrics.kid(x, other) > 0.03


# Radii


@relaxed
@given(seed=seeds, count=st.integers(5, 30), k=st.integers(1, 4), width=st.integers(1, 6))
def test_radii_written_out(seed: int, count: int, k: int, width: int) -> None:
    values = sample(seed, count, width)
    distances = np.linalg.norm(values[:, None] - values, axis=2)
    expected = np.sort(distances, axis=1)[:, k]  # a sample is its own 0th neighbour
    np.testing.assert_allclose(metrics.radii(values, k), expected, rtol=1e-6, atol=1e-9)


def test_radii_of_samples_that_are_there_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.repeat(sample(0, 10, 4), 2, axis=0) + 1e3
    np.testing.assert_allclose(metrics.radii(values, 1), 0, atol=1e-5)
    assert (metrics.radii(values, 2) > 1e-2).all()
    expected = metrics.radii(values, 2)
    monkeypatch.setattr(metrics, "ROWS", 3)
    np.testing.assert_allclose(metrics.radii(values, 2), expected, rtol=1e-9)


# Hostile input

nan = np.array([[0.0, 1.0], [math.nan, 1.0], [0.0, 2.0], [3.0, 1.0]])
infinite = np.array([[0.0, 1.0], [math.inf, 1.0], [0.0, 2.0], [3.0, 1.0]])
good = np.arange(8.0).reshape(4, 2) ** 2
unit = (np.zeros(2), np.eye(2))
one, three = metrics.moments(good[:1]), metrics.moments(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.moments(good[:0]), "hold 0 samples, at least 1"),
        (lambda: metrics.moments(good[0]), r"shape \[2\], expected"),
        (lambda: metrics.moments(good[:, :0]), r"shape \[4, 0\], expected"),
        (lambda: metrics.moments(nan), "features hold values that are not finite"),
        (lambda: metrics.moments(infinite), "features hold values that are not finite"),
        (lambda: one.covariance, "1 sample has no covariance"),
        (lambda: metrics.merged(one, three), "widths 2 and 3 cannot"),
        (lambda: metrics.frechet_distance(*unit, np.zeros(3), np.eye(3)), "do not match"),
        (lambda: metrics.frechet_distance(*unit, np.zeros(2), np.eye(3)), "do not match"),
        (lambda: metrics.frechet_distance(*unit, np.full(2, np.inf), np.eye(2)), "not finite"),
        (lambda: metrics.frechet_distance(*unit, unit[0], nan[:2]), "not finite"),
        (lambda: metrics.frechet_distance(*unit, unit[0], good[:2]), "not symmetric"),
        (lambda: metrics.frechet_distance(*unit, unit[0], np.diag([1.0, -1])), "negative eigenv"),
        (lambda: metrics.frechet_distance(*unit, unit[0], -np.eye(2)), "negative eigenv"),
        (lambda: metrics.inception_score(good), "logits hold 4 samples, at least 10"),
        (lambda: metrics.inception_score(good[:1], splits=1), "hold 1 samples, at least 2"),
        (lambda: metrics.inception_score(good, splits=0), "splits is 0"),
        (lambda: metrics.inception_score(nan, splits=1), "logits hold values that are not"),
        (lambda: metrics.inception_score(1e3 * np.eye(2)[[0, 0]], splits=1), "too far apart"),
        (lambda: metrics.kid(good[:1], good), "generated features hold 1 samples, at least 2"),
        (lambda: metrics.kid(good, good[:1]), "real features hold 1 samples, at least 2"),
        (lambda: metrics.kid(good, good[:, :1]), "width 2, real ones 1"),
        (lambda: metrics.kid(good, nan), "real features hold values"),
        (lambda: metrics.kid(good, good, subsets=0), "0 subsets"),
        (lambda: metrics.kid(good, good, subset_size=1), "subsets of 1"),
        (lambda: metrics.radii(good, 0), "k is 0"),
        (lambda: metrics.radii(good, 4), "hold 4 samples, at least 5"),
        (lambda: metrics.radii(nan, 1), "not finite"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_matrix_that_is_no_covariance_is_refused() -> None:
    swap, mean = np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros(2)
    for matrix in (swap, np.diag([1.0, -0.5])):
        with pytest.raises(ValueError, match="negative eigenvalues"):
            metrics.frechet_distance(mean, matrix, mean, np.eye(2))
