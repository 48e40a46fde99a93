"""Precision, recall, density and coverage against loops written out, and torch-fidelity."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_prc import prc_features_to_metric

from harness import metrics
from harness.neighbours import prdc
from harness.uncertainty import standard_error

seeds = st.integers(0, 2**32 - 1)
relaxed = settings(max_examples=40, deadline=None)


def values_of(generated: np.ndarray, real: np.ndarray, **options: object) -> dict[str, float]:
    return {kind: value for kind, (value, _) in prdc(generated, real, **options).items()}


def written_out(
    generated: np.ndarray, real: np.ndarray, k_pr: int, k_dc: int, radii_of: np.ndarray
) -> dict[str, float]:
    """By the papers' definitions, one pair at a time; generated balls are those of `radii_of`."""

    def radius(points: np.ndarray, k: int) -> list[float]:
        return [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]  # 0th is itself

    def inside(point: np.ndarray, centre: np.ndarray, reach: float) -> bool:
        return bool(np.linalg.norm(point - centre) <= reach + 1e-9)

    wide, near = radius(real, k_dc), radius(real, k_pr)
    own = dict(zip(map(tuple, radii_of), radius(radii_of, k_pr), strict=True))
    n, m = range(len(generated)), range(len(real))
    g, r = generated, real
    return {
        "precision": np.mean([any(inside(g[i], r[j], near[j]) for j in m) for i in n]),
        "recall": np.mean([any(inside(r[j], g[i], own[tuple(g[i])]) for i in n) for j in m]),
        "density": sum(inside(g[i], r[j], wide[j]) for i in n for j in m) / (k_dc * len(n)),
        "coverage": np.mean([any(inside(g[i], r[j], wide[j]) for i in n) for j in m]),
    }


@relaxed
@given(
    seed=seeds, n=st.integers(6, 16), m=st.integers(6, 16), k_pr=st.integers(1, 5),
    k_dc=st.integers(1, 5), width=st.integers(1, 5), ties=st.booleans(),
)  # fmt: skip
def test_written_out(
    seed: int, n: int, m: int, k_pr: int, k_dc: int, width: int, ties: bool
) -> None:
    draws = np.random.default_rng(seed)
    generated, real = draws.normal(size=(n, width)), draws.normal(0.5, 1.5, size=(m, width))
    if ties:  # many equal distances, and samples that are there twice
        generated, real = np.round(generated), np.round(real)
    found = values_of(generated, real, k_pr=k_pr, k_dc=k_dc)
    assert found == pytest.approx(written_out(generated, real, k_pr, k_dc, generated))


@pytest.mark.parametrize("width", [8, 200])
def test_precision_and_recall_are_torch_fidelitys(width: int) -> None:
    draws = torch.Generator().manual_seed(0)
    generated, real = (torch.randn(n, width, generator=draws) for n in (400, 350))
    expected = prc_features_to_metric(generated, real * 1.1, verbose=False)
    found = prdc(generated, real * 1.1)
    assert 0 < found["precision"][0] < 1 or 0 < found["recall"][0] < 1
    for kind in ("precision", "recall"):
        assert found[kind][0] == pytest.approx(expected[kind], abs=1e-6)


def test_blocks_and_known_radii_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    generated, real = draws.normal(size=(150, 8)), draws.normal(size=(170, 8))
    expected = prdc(generated, real)
    monkeypatch.setattr(metrics, "ROWS", 40)
    known = {k: metrics.radii(real, k) for k in (3, 5)}
    for found in (
        prdc(generated, real),
        prdc(generated, real, real_radii=known),
        prdc(generated, real, real_radii={3: known[3]}),
        prdc(torch.from_numpy(generated), torch.from_numpy(real)),
    ):
        for kind, (value, u) in expected.items():
            assert found[kind][0] == value
            np.testing.assert_allclose(found[kind][1], u, atol=1e-12)


@relaxed
@given(seed=seeds, n=st.integers(6, 20), m=st.integers(6, 20))
def test_orders_and_places_do_not_matter(seed: int, n: int, m: int) -> None:
    draws = np.random.default_rng(seed)
    generated, real = draws.normal(size=(n, 3)), draws.normal(size=(m, 3))
    order = draws.permutation(n)
    expected, moved = prdc(generated, real), prdc(generated[order] + 1e4, real[::-1] + 1e4)
    for kind, (value, u) in expected.items():
        assert moved[kind][0] == pytest.approx(value)
        np.testing.assert_allclose(moved[kind][1], u[order], atol=1e-9)


def test_quality_is_told_from_coverage() -> None:
    draws = np.random.default_rng(0)
    real = np.concatenate([draws.normal(centre, 1, (100, 2)) for centre in (-50, 50)])
    itself = values_of(real, real)
    # A ball holds its centre and, to its edge, k neighbours.
    assert itself == {"precision": 1, "recall": 1, "density": pytest.approx(6 / 5), "coverage": 1}
    assert values_of(real + 1000, real) == dict.fromkeys(itself, 0)
    one_mode = values_of(real[:100] + 0.01 * draws.normal(size=(100, 2)), real)
    assert one_mode["precision"] > 0.95
    assert one_mode["recall"] == pytest.approx(0.5, abs=0.05)
    assert one_mode["coverage"] == pytest.approx(0.5, abs=0.05)
    copies = values_of(np.repeat(real[:1], 50, axis=0), real)  # a generator that knows one image
    assert copies["precision"] == 1
    assert copies["density"] > 0.5
    assert copies["recall"] < 0.05
    assert copies["coverage"] < 0.1


def test_real_samples_that_are_all_the_same() -> None:
    constant = np.ones((10, 4))
    assert values_of(constant, constant) == {
        "precision": 1, "recall": 1, "density": 2, "coverage": 1,  # 10 balls over k = 5
    }  # fmt: skip
    assert values_of(constant + 1, constant) == dict.fromkeys(values_of(constant, constant), 0)


def test_one_sample_far_away_changes_nothing_for_the_others() -> None:
    draws = np.random.default_rng(0)
    generated, real = draws.normal(size=(100, 4)), draws.normal(size=(100, 4))
    far = np.append(generated, np.full((1, 4), 1e7), axis=0)
    expected, found = values_of(generated, real), values_of(far, real)
    assert found["precision"] * 101 == pytest.approx(expected["precision"] * 100)
    assert found["density"] * 101 == pytest.approx(expected["density"] * 100)
    assert found["coverage"] == expected["coverage"]


@relaxed
@given(seed=seeds, n=st.integers(6, 14), m=st.integers(6, 14))
def test_influence_is_what_leaving_a_sample_out_does(seed: int, n: int, m: int) -> None:
    draws = np.random.default_rng(seed)
    generated, real = draws.normal(size=(n, 2)), draws.normal(size=(m, 2))
    found = prdc(generated, real)
    without = [
        written_out(np.delete(generated, i, axis=0), real, 3, 5, generated) for i in range(n)
    ]  # balls held fixed
    for kind, (value, u) in found.items():
        assert u.shape == (n,)
        assert u.sum() == pytest.approx(0, abs=1e-9)
        left = np.array([each[kind] for each in without])
        if kind in ("precision", "density"):  # means: N times the change, exactly
            np.testing.assert_allclose(u, (n - 1) * (value - left), atol=1e-9)
        jackknife = (n - 1) / n * ((left - left.mean()) ** 2).sum()
        scale = (n - 1) / n if kind in ("precision", "density") else 1  # divided by N, not N - 1
        assert standard_error(u) ** 2 == pytest.approx(scale * jackknife, abs=1e-9)


def test_standard_errors_against_the_spread_over_samples() -> None:
    # The same real samples, 80 generated sets: means are right to the noise of a spread (8 %),
    # the jackknife of recall and coverage is not too small and not more than twice too large.
    draws = np.random.default_rng(0)
    real = draws.normal(size=(300, 4))
    results = [prdc(draws.normal(0.3, 0.9, size=(300, 4)), real) for _ in range(80)]
    for kind, low, high in (
        ("precision", 0.75, 1.3), ("density", 0.75, 1.3),
        ("recall", 0.85, 2.2), ("coverage", 0.85, 2.2),
    ):  # fmt: skip
        spread = np.std([found[kind][0] for found in results], ddof=1)
        error = np.mean([standard_error(found[kind][1]) for found in results])
        assert low < error / spread < high, (kind, error / spread)


good = np.random.default_rng(0).normal(size=(8, 2))
hole = np.where(good == good[3, 1], np.nan, good)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prdc(good[:3], good), "generated .* 3 samples, at least 4"),
        (lambda: prdc(good, good[:5]), "real .* 5 samples, at least 6"),
        (lambda: prdc(good, good, k_pr=8, k_dc=1), "generated .* 8 samples, at least 9"),
        (lambda: prdc(good, good[:, :1]), "width 2, real ones 1"),
        (lambda: prdc(hole, good), "generated features hold values"),
        (lambda: prdc(good, hole), "real features hold values"),
        (lambda: prdc(good[0], good), r"shape \[2\], expected"),
        (lambda: prdc(good, good, k_pr=0), "k is 0"),
        (lambda: prdc(good, good, k_dc=-1), "k is -1"),
        (lambda: prdc(good, good, real_radii={3: np.ones(7), 5: np.ones(8)}), "not 8 lengths"),
        (lambda: prdc(good, good, real_radii={3: -np.ones(8), 5: np.ones(8)}), "not 8 lengths"),
        (lambda: prdc(good, good, real_radii={3: hole[:, 1], 5: np.ones(8)}), "not 8 lengths"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
