"""Standard errors against derivatives, the plain bootstrap, and the spread over fresh samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness import uncertainty
from harness.metrics import frechet_distance, inception_score, kid, moments
from harness.uncertainty import (
    extrapolated,
    frechet_gradient,
    frechet_influence,
    interval,
    kid_influence,
    score_influence,
    shortfall,
    standard_error,
)

seeds = st.integers(0, 2**32 - 1)
relaxed = settings(max_examples=30, deadline=None)

Gaussian = tuple[np.ndarray, np.ndarray]


def reference(width: int, turn: int = 0) -> Gaussian:
    """A Gaussian with deviations from 1 to 0.2, on turned axes."""
    axes, _ = np.linalg.qr(np.random.default_rng(turn).normal(size=(width, width)))
    return np.zeros(width), axes @ np.diag(np.geomspace(1, 0.04, width)) @ axes.T


def fid(features: np.ndarray, real: Gaussian) -> float:
    found = moments(features)
    return frechet_distance(found.mean, found.covariance, *real)


def fid_influence(features: np.ndarray, real: Gaussian) -> np.ndarray:
    found = moments(features)
    gradient = frechet_gradient(found.mean, found.covariance, *real)
    return frechet_influence(features, gradient)


def drawn(draws: np.random.Generator, count: int, real: Gaussian, scale: float, shift: float):
    """Samples of the reference's distribution, scaled and moved."""
    mean, covariance = real
    return scale * draws.multivariate_normal(mean, covariance, count) + shift / math.sqrt(len(mean))


# The Fréchet distance


@relaxed
@given(seed=seeds, width=st.integers(1, 8), count=st.integers(3, 20))
def test_frechet_influence_is_the_derivative_by_a_samples_weight(
    seed: int, width: int, count: int
) -> None:
    # Also with fewer samples than dimensions: the pseudo-inverse is the derivative within the span.
    draws = np.random.default_rng(seed)
    features, real = draws.normal(size=(count, width)), reference(width, seed)

    def weighted(weights: np.ndarray) -> Gaussian:
        mean = weights @ features
        return mean, (features - mean).T * weights @ (features - mean)

    equal = np.full(count, 1 / count)
    gradient = frechet_gradient(*weighted(equal), *real)
    found = frechet_influence(features, gradient)
    for i in range(count):
        step = 1e-4 * (np.eye(count)[i] - equal)
        ends = [frechet_distance(*weighted(equal + sign * step), *real) for sign in (1, -1)]
        numeric = (ends[0] - ends[1]) / 2e-4
        assert found[i] == pytest.approx(numeric, rel=1e-3, abs=1e-3 * (1 + abs(found).max()))
    assert found.mean() == pytest.approx(0, abs=1e-9 * (1 + abs(found).max()))


def test_frechet_error_against_the_plain_bootstrap() -> None:
    # Whole recomputation on resampled rows, B = 400: its own noise is 3.5 %. The bootstrap's mean
    # is not compared: with fewer distinct samples it lies too high.
    draws, real = np.random.default_rng(0), reference(6)
    features = drawn(draws, 600, real, 1.2, 0.5)
    resampled = [fid(features[draws.integers(600, size=600)], real) for _ in range(400)]
    error = standard_error(fid_influence(features, real))
    assert error == pytest.approx(np.std(resampled, ddof=1), rel=0.1)


@pytest.mark.parametrize(
    ("width", "count", "scale", "shift", "low", "high"),
    [
        (8, 400, 1.2, 0.5, 0.85, 1.2),  # many samples a dimension: right to the noise of a spread
        (8, 400, 1.0, 2.0, 0.85, 1.2),
        (32, 160, 1.2, 0.5, 0.85, 1.45),
        # The two ends of it: one distribution, where the derivative is 0 and only noise is left,
        # and fewer samples than dimensions. Too large, not too small.
        (8, 400, 1.0, 0.0, 1.0, 1.8),
        (32, 24, 1.2, 0.5, 1.0, 1.8),
        (32, 24, 1.0, 0.0, 1.0, 1.8),
    ],
)
def test_frechet_error_against_the_spread_over_fresh_samples(
    width: int, count: int, scale: float, shift: float, low: float, high: float
) -> None:
    draws, real = np.random.default_rng(0), reference(width)
    sets = [drawn(draws, count, real, scale, shift) for _ in range(150)]
    values = np.array([fid(features, real) for features in sets])
    errors = np.array([standard_error(fid_influence(features, real)) for features in sets])
    assert low < errors.mean() / values.std(ddof=1) < high
    found = np.array([ends("fid", *pair) for pair in zip(values, errors, strict=True)])
    held = (found[:, 0] <= values.mean()) & (values.mean() <= found[:, 1])
    assert held.mean() > 0.9  # of intervals of 95 %, around the expectation at this count


def test_frechet_influence_streams() -> None:
    real = reference(5)
    features = torch.from_numpy(drawn(np.random.default_rng(0), 40, real, 1.1, 1)).float()
    found = moments(features)
    gradient = frechet_gradient(found.mean, found.covariance, *real)
    blocks = [frechet_influence(block, gradient) for block in features.split(7)]
    np.testing.assert_allclose(np.concatenate(blocks), frechet_influence(features, gradient))


def test_frechet_influence_where_nothing_varies() -> None:
    constant, real = np.ones((5, 3)), reference(3)
    assert np.array_equal(fid_influence(constant, real), np.zeros(5))
    assert np.array_equal(fid_influence(constant, (np.zeros(3), np.zeros((3, 3)))), np.zeros(5))
    features = np.random.default_rng(0).normal(size=(20, 3))
    at_a_point = fid_influence(
        features, (np.zeros(3), np.zeros((3, 3)))
    )  # FID = mean |x|^2, nearly
    squares = (features**2).sum(1)
    np.testing.assert_allclose(at_a_point, squares - squares.mean(), atol=0.2)


# The inception score


@relaxed
@given(seed=seeds, count=st.integers(6, 30), splits=st.integers(1, 3), shuffle=st.booleans())
def test_score_influence_is_the_derivative(
    seed: int, count: int, splits: int, shuffle: bool
) -> None:
    logits = np.random.default_rng(seed).normal(size=(count, 4)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    order = np.random.RandomState(2020).permutation(count) if shuffle else np.arange(count)
    parts = [order[s * count // splits : (s + 1) * count // splits] for s in range(splits)]

    def score(weights: np.ndarray) -> float:
        """With a weight for each sample, those of a part scaled to 1."""
        scores = []
        for part in parts:
            w = weights[part] / weights[part].sum()
            scores.append(np.exp(w @ (p[part] * np.log(p[part] / (w @ p[part]))).sum(1)))
        return float(np.mean(scores))

    equal = np.full(count, 1 / count)
    assert score(equal) == pytest.approx(inception_score(logits, splits, shuffle))
    found = score_influence(logits, splits, shuffle)
    for i in range(count):
        # The weight of one sample alone: within a part, adding it lowers the others' share.
        ends = [score(equal + step * np.eye(count)[i]) for step in (1e-6, -1e-6)]
        numeric = (ends[0] - ends[1]) / 2e-6
        assert found[i] == pytest.approx(numeric, rel=1e-4, abs=1e-5)
    assert found.sum() == pytest.approx(0, abs=1e-9)


def test_score_error_against_the_spread_over_fresh_samples() -> None:
    draws = np.random.default_rng(0)
    sets = [2 * draws.normal(size=(500, 6)) for _ in range(150)]
    for splits in (1, 5):
        spread = np.std([inception_score(logits, splits) for logits in sets], ddof=1)
        errors = [standard_error(score_influence(logits, splits)) for logits in sets]
        assert np.mean(errors) == pytest.approx(spread, rel=0.2)


# The kernel inception distance


@relaxed
@given(seed=seeds, n=st.integers(3, 12), m=st.integers(2, 12), width=st.integers(1, 4))
def test_kid_influence_is_what_leaving_a_sample_out_does(
    seed: int, n: int, m: int, width: int
) -> None:
    draws = np.random.default_rng(seed)
    x, y = draws.normal(size=(n, width)), draws.normal(size=(m, width))

    def within(x: np.ndarray) -> float:
        kernels = (x @ x.T / width + 1) ** 3
        return (kernels.sum() - np.trace(kernels)) / (len(x) * (len(x) - 1))

    def across(x: np.ndarray) -> float:
        return float(((x @ y.T / width + 1) ** 3).mean())

    def change(of, factor: float) -> np.ndarray:
        """Pseudo-values: N - 1 times what leaving each out does, less the mean."""
        left = np.array([of(np.delete(x, i, axis=0)) for i in range(n)])
        return factor * (left.mean() - left)

    # For pairs the derivative by a weight is (n - 2) / (n - 1) of leaving out.
    expected = change(within, n - 2) - 2 * change(across, n - 1)
    np.testing.assert_allclose(kid_influence(x, y), expected, atol=1e-9 * (1 + abs(expected).max()))


@pytest.mark.slow
def test_kid_error_against_the_spread_over_fresh_samples() -> None:
    draws = np.random.default_rng(0)
    real = draws.normal(size=(400, 4))
    sets = [draws.normal(0.4, 1, size=(400, 4)) for _ in range(100)]
    spread = np.std([kid(x, real, subset_size=200) for x in sets], ddof=1)
    errors = [standard_error(kid_influence(x, real)) for x in sets]
    assert np.mean(errors) == pytest.approx(spread, rel=0.25)


def test_kid_influence_of_some_partners_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(0.4, 1, size=(2000, 4)).astype(np.float32), draws.normal(size=(1500, 4))
    everything = kid_influence(x, y)
    some = kid_influence(x, y, partners=500)
    assert standard_error(some) == pytest.approx(standard_error(everything), rel=0.2)
    assert np.corrcoef(some, everything)[0, 1] > 0.95
    monkeypatch.setattr(uncertainty, "ROWS", 77)
    np.testing.assert_allclose(kid_influence(x, y), everything, rtol=1e-6, atol=1e-6)


# From influence values to intervals


def ends(
    kind: str, value: float, error: float, count: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    found = interval(kind, value, error, count, level)
    assert found is not None
    return found


def test_the_error_of_a_mean_is_the_known_one() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    error = standard_error(values - values.mean())
    assert error == pytest.approx(values.std() / math.sqrt(1000))
    low, high = ends("kid", values.mean(), error)
    assert high - low == pytest.approx(2 * 1.959964 * error)
    assert (low + high) / 2 == pytest.approx(values.mean())
    narrow = ends("kid", values.mean(), error, level=0.5)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("fid", 1.0, (0.0, 20.6)),
        ("patch-fid", 1.0, (0.0, 20.6)),
        ("is", 1.5, (1.0, 21.1)),
        ("density", 1.5, (0.0, 21.1)),
        ("kid", 0.5, (-19.1, 20.1)),
        ("fid-infinity", -0.5, (-20.1, 19.1)),
    ],
)
def test_intervals_end_where_the_metric_does(
    kind: str, value: float, expected: tuple[float, float]
) -> None:
    assert ends(kind, value, 10.0) == pytest.approx(expected, abs=0.01)


def test_samples_that_do_not_vary_have_no_interval() -> None:
    assert interval("fid", 72.8, 0.0, 100) is None
    assert interval("is", 1.0, 0.0, 100) is None


@pytest.mark.parametrize(("share", "count"), [(0.98, 40), (0.5, 40), (0.02, 200), (1.0, 30)])
def test_intervals_of_shares_hold_the_truth(share: float, count: int) -> None:
    """Where the normal interval holds 0.98 of 40 in 56 of 100 cases."""
    draws = np.random.default_rng(0).binomial(count, share, 2000)
    held = 0
    for hits in draws:
        value = hits / count
        error = math.sqrt(value * (1 - value) / count)
        low, high = ends("precision", value, error, count)
        assert 0 <= low <= value <= high <= 1
        assert low < high
        held += low <= share <= high
    assert held / len(draws) > 0.92
    if 0 < hits < count:  # as scipy has it
        wilson = binomtest(int(hits), count).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)


def test_differences_of_the_same_noise_are_paired() -> None:
    draws, real = np.random.default_rng(0), reference(4)
    noise = drawn(draws, 500, real, 1, 0)
    ours, theirs = 1.2 * noise, 1.25 * noise
    value_a, value_b = fid(ours, real), fid(theirs, real)
    u_a, u_b = fid_influence(ours, real), fid_influence(theirs, real)
    paired = standard_error(u_a - u_b)
    assert value_a - value_b + 1.96 * paired < 0  # told apart
    assert paired < 0.6 * math.hypot(standard_error(u_a), standard_error(u_b))


@pytest.mark.parametrize(
    ("kind", "count", "width", "expected"),
    [
        ("fid", 40, 64, "40 samples for 64 dimensions: the covariance needs at least 65"),
        ("patch-fid", 64, 64, "64 samples for 64 dimensions: the covariance needs at least 65"),
        ("sfid", 2000, 2023, "2,000 samples for 2,023 dimensions: the covariance needs at least "
                             "2,024"),
        ("fid", 65, 64, None),
        ("is", 40, 64, None),
        ("kid", 40, 64, "40 samples: a kernel distance needs at least 100"),
        ("kid", 100, 64, None),
        ("precision", 40, 64, None),
    ],
)  # fmt: skip
def test_shortfall(kind: str, count: int, width: int, expected: str | None) -> None:
    assert shortfall(kind, count, width) == expected


# Infinitely many samples


@pytest.mark.parametrize(("scale", "shift"), [(1.2, 0.5), (1.0, 0.0)])
def test_extrapolation_takes_most_of_the_bias_away(scale: float, shift: float) -> None:
    draws, real = np.random.default_rng(0), reference(16)
    deviations = np.sqrt(np.geomspace(1, 0.04, 16))
    true = shift**2 + ((scale - 1) ** 2) * (deviations**2).sum()
    sets = [drawn(draws, 320, real, scale, shift) for _ in range(40)]
    bias = np.mean([fid(features, real) for features in sets]) - true
    found = np.array([extrapolated(features, *real, seed=i) for i, features in enumerate(sets)])
    assert abs(found[:, 0].mean() - true) < bias / 3
    # The error speaks of the extrapolated value, which varies more than the distance itself.
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.4)


def test_extrapolation_is_a_function_of_its_seed() -> None:
    real = reference(4)
    features = drawn(np.random.default_rng(0), 200, real, 1.2, 0.5)
    assert extrapolated(features, *real) == extrapolated(torch.from_numpy(features), *real)
    assert extrapolated(features, *real, seed=1) != extrapolated(features, *real)
    value, error = extrapolated(features, *real, points=5)
    assert isinstance(value, float)
    assert error > 0


# Hostile input

good = np.random.default_rng(0).normal(size=(8, 2))
hole = np.where(good == good[3, 1], np.nan, good)
unit = (np.zeros(2), np.eye(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_gradient(*unit, np.zeros(3), np.eye(3)), "do not match"),
        (lambda: frechet_gradient(*unit, *hole.T[:, 2:4]), "do not match"),
        (lambda: frechet_gradient(*unit, unit[0], np.diag([1.0, -1])), "negative eigenvalues"),
        (lambda: fid_influence(good[:1], unit), "1 sample has no covariance"),
        (lambda: frechet_influence(good[:, :1], frechet_gradient(*unit, *unit)), "width 1, not 2"),
        (lambda: frechet_influence(hole, frechet_gradient(*unit, *unit)), "not finite"),
        (lambda: score_influence(good), "logits hold 8 samples, at least 10"),
        (lambda: score_influence(hole, 1), "not finite"),
        (lambda: kid_influence(good[:1], good), "hold 1 samples, at least 2"),
        (lambda: score_influence(1e3 * np.eye(2)[[0, 0]], splits=1), "too far apart"),
        (lambda: kid_influence(good, good, partners=1), "partners is 1"),
        (lambda: kid_influence(good, hole), "real features hold values"),
        (lambda: extrapolated(good, *unit), "8 samples of width 2 are too few for 15 sizes from 4"),
        (lambda: extrapolated(good, *unit, points=1), "too few for 1 sizes"),
        (lambda: extrapolated(hole, *unit), "not finite"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
