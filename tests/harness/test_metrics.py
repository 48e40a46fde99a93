"""The measures against closed forms, scipy, NumPy written out, and torch-fidelity."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

from harness import metrics

seeds = st.integers(0, 2**32 - 1)
relaxed = settings(max_examples=40, deadline=None)


def sample(seed: int, count: int, width: int) -> np.ndarray:
    """Correlated samples off the origin."""
    draws = np.random.default_rng(seed)
    return draws.normal(size=(count, width)) @ draws.normal(size=(width, width)) + draws.normal()


@relaxed
@given(seed=seeds, width=st.integers(1, 12))
def test_frechet_is_scipys_square_root(seed: int, width: int) -> None:
    mu1, cov1 = metrics.moments(sample(seed, 3 * width + 2, width))
    mu2, cov2 = metrics.moments(sample(seed + 1, 3 * width + 2, width))
    root = scipy.linalg.sqrtm(cov1 @ cov2).real
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root)
    ours = metrics.frechet_distance(mu1, cov1, mu2, cov2)
    assert ours == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.trace(cov1 + cov2))


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
    # A deviation of 0 comes back as the root of a rounding error.
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-5)


@relaxed
@given(seed=seeds, count=st.integers(2, 30), width=st.integers(1, 10))
def test_fid_is_a_distance(seed: int, count: int, width: int) -> None:
    values, others = sample(seed, count, width), sample(seed + 1, count, width)
    a, b = metrics.moments(values), metrics.moments(others)
    scale = np.trace(a[1]) + np.trace(b[1])
    assert metrics.fid(a, b) >= 0
    assert metrics.fid(a, b) == pytest.approx(metrics.fid(b, a), rel=1e-9, abs=1e-9 * scale)
    # Also where there are fewer samples than dimensions, and so no full rank:
    assert metrics.fid(a, a) == pytest.approx(0, abs=1e-9 * scale)
    moved = metrics.moments(values + 3.0)
    assert metrics.fid(a, moved) == pytest.approx(9 * width, rel=1e-6, abs=1e-9 * scale)
    doubled = metrics.fid(metrics.moments(2 * values), metrics.moments(2 * others))
    assert doubled == pytest.approx(4 * metrics.fid(a, b), rel=1e-6, abs=1e-8 * scale)


def test_fid_is_torch_fidelitys() -> None:
    a, b = sample(0, 500, 16), sample(1, 500, 16)
    statistics = [fid_features_to_statistics(torch.from_numpy(values)) for values in (a, b)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert metrics.fid(metrics.moments(a), metrics.moments(b)) == pytest.approx(expected, rel=1e-9)


@relaxed
@given(seed=seeds, count=st.integers(2, 20), width=st.integers(1, 6))
def test_moments_written_out(seed: int, count: int, width: int) -> None:
    values = sample(seed, count, width)
    mu, cov = metrics.moments(values)
    centred = values - values.sum(0) / count
    np.testing.assert_allclose(mu, values.sum(0) / count)
    np.testing.assert_allclose(cov, centred.T @ centred / (count - 1), atol=1e-12)


def test_moments_of_a_tensor_are_float64() -> None:
    # At an offset of 10^4, float32 arithmetic would lose the variance.
    values = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) + 1e4
    mu, cov = metrics.moments(values)
    assert mu.dtype == cov.dtype == np.float64
    np.testing.assert_allclose(cov, np.cov(values.double().numpy(), rowvar=False))


@relaxed
@given(seed=seeds, count=st.integers(2, 60), splits=st.integers(1, 6))
def test_inception_score_written_out(seed: int, count: int, splits: int) -> None:
    count = max(count, splits)
    logits = sample(seed, count, 5)
    shuffled = logits[np.random.RandomState(2020).permutation(count)]  # theirs
    scores = []
    for part in range(splits):
        chunk = shuffled[part * count // splits : (part + 1) * count // splits]
        p = scipy.special.softmax(chunk, axis=1)
        entropy = scipy.special.entr(p).sum(1).mean()
        scores.append(math.exp(scipy.special.entr(p.mean(0)).sum() - entropy))
    ours = metrics.inception_score(logits, splits)
    assert ours == pytest.approx(np.mean(scores), rel=1e-9)
    assert 1 - 1e-9 <= ours <= 5 + 1e-9


def test_inception_score_at_its_ends() -> None:
    sure = 50 * torch.eye(4).repeat(25, 1)
    assert metrics.inception_score(sure, splits=1) == pytest.approx(4)
    assert metrics.inception_score(torch.zeros(20, 4), splits=2) == pytest.approx(1)
    assert metrics.inception_score(sure[:1].repeat(20, 1), splits=2) == pytest.approx(1)


def test_inception_score_is_torch_fidelitys() -> None:
    logits = torch.from_numpy(sample(0, 100, 10))
    expected = isc_features_to_metric(logits)["inception_score_mean"]
    assert metrics.inception_score(logits) == expected
    assert metrics.inception_score(logits, seed=1) != expected


def test_inception_score_of_one_split_ignores_the_order() -> None:
    logits = sample(0, 100, 10)
    backwards = metrics.inception_score(logits[::-1], splits=1)
    assert metrics.inception_score(logits, splits=1) == pytest.approx(backwards, rel=1e-12)


@relaxed
@given(
    seed=seeds, a=st.integers(5, 40), b=st.integers(5, 40), k=st.integers(1, 4), d=st.integers(1, 6)
)
def test_precision_recall_written_out(seed: int, a: int, b: int, k: int, d: int) -> None:
    draws = np.random.default_rng(seed)
    generated, real = draws.normal(size=(a, d)), draws.normal(0.5, 1.5, size=(b, d))

    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        """Share of points within a ball; a sample is its own 0th neighbour."""
        own = np.sort(np.linalg.norm(centres[:, None] - centres, axis=2), axis=1)[:, k]
        return float((np.linalg.norm(points[:, None] - centres, axis=2) <= own).any(1).mean())

    precision, recall = metrics.precision_recall(generated, real, k)
    assert precision == pytest.approx(covered(generated, real))
    assert recall == pytest.approx(covered(real, generated))


def test_precision_recall_is_torch_fidelitys_and_needs_no_full_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = torch.from_numpy(sample(0, 150, 8)), torch.from_numpy(sample(1, 170, 8))
    expected = calculate_precision_recall_full(a, b, neighborhood=3)
    assert metrics.precision_recall(a, b) == pytest.approx(expected)
    monkeypatch.setattr(metrics, "_PRC_ROWS", 40)
    assert metrics.precision_recall(a, b) == pytest.approx(expected)


def test_precision_recall_tells_quality_from_coverage() -> None:
    draws = np.random.default_rng(0)
    real = np.concatenate([draws.normal(centre, 1, (100, 2)) for centre in (-50, 50)])
    assert metrics.precision_recall(real, real) == (1, 1)
    assert metrics.precision_recall(real + 1000, real) == (0, 0)
    one_mode = real[:100] + 0.01 * draws.normal(size=(100, 2))
    precision, recall = metrics.precision_recall(one_mode, real)
    assert precision > 0.95
    assert recall == pytest.approx(0.5, abs=0.05)


nan = np.array([[0.0, 1.0], [math.nan, 1.0], [0.0, 2.0], [3.0, 1.0]])
good = np.arange(8.0).reshape(4, 2) ** 2
unit = (np.zeros(2), np.eye(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.moments(good[:1]), "hold 1 samples, at least 2"),
        (lambda: metrics.moments(good[0]), r"shape \[2\], expected"),
        (lambda: metrics.moments(good[:, :0]), r"shape \[4, 0\], expected"),
        (lambda: metrics.moments(nan), "features hold values that are not finite"),
        (lambda: metrics.fid(unit, (np.zeros(3), np.eye(3))), "do not match"),
        (lambda: metrics.fid(unit, (np.zeros(2), np.eye(3))), "do not match"),
        (lambda: metrics.fid(unit, (np.full(2, np.inf), np.eye(2))), "not finite"),
        (lambda: metrics.fid(unit, (np.zeros(2), np.full((2, 2), np.nan))), "not finite"),
        (lambda: metrics.inception_score(good), "logits hold 4 samples, at least 10"),
        (lambda: metrics.inception_score(good[:1], splits=1), "hold 1 samples, at least 2"),
        (lambda: metrics.inception_score(good, splits=0), "splits is 0"),
        (lambda: metrics.inception_score(nan, splits=1), "logits hold values that are not"),
        (lambda: metrics.inception_score(1e3 * np.eye(2)[[0, 0]], splits=1), "too far apart"),
        (lambda: metrics.precision_recall(good[:3], good), "generated .* 3 samples, at least 4"),
        (lambda: metrics.precision_recall(good, good[:3]), "real .* 3 samples, at least 4"),
        (lambda: metrics.precision_recall(good, good[:, :1]), "width 2, real ones 1"),
        (lambda: metrics.precision_recall(nan, good), "generated features hold values"),
        (lambda: metrics.precision_recall(good, nan), "real features hold values"),
        (lambda: metrics.precision_recall(good, good, k=0), "k is 0"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
