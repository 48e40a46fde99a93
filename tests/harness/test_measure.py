"""Figures from shards of features: in blocks or whole, with and without what a metric needs."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from harness.measure import Measured, Read, measure
from harness.reference_file import Reference

N, M, D = 400, 500, 8


def drawn(count: int, width: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal((count, width)) + shift
    return torch.from_numpy(values.astype(np.float32))


def reference(manifold: torch.Tensor | None, views: tuple[str, ...]) -> Reference:
    real = {view: drawn(2000, D, seed).double().numpy() for seed, view in enumerate(views)}
    return Reference(
        extractor="fashion-cnn",
        facts={},
        mean={view: x.mean(0) for view, x in real.items()},
        covariance={view: np.cov(x, rowvar=False) for view, x in real.items()},
        counts=dict.fromkeys(views, 2000),
        manifold=manifold,
    )


def reading(arrays: dict[str, torch.Tensor], block: int) -> Read:
    def read(view: str) -> Iterator[torch.Tensor]:
        if view in arrays:
            yield from arrays[view].split(block)

    return read


SAMPLES = {
    "features": drawn(N, D, 100, shift=0.5),
    "patch": drawn(N, D, 11),
    "spatial": drawn(N, D, 12),
    "logits": drawn(N, 3, 13),
}
VIEWS = ("features", "patch", "spatial")


def test_blocks_do_not_matter() -> None:
    real = reference(drawn(M, D, 20), VIEWS)
    whole, parts = (measure(reading(SAMPLES, block), real) for block in (N, 7))
    assert list(whole.metrics) == [
        f"{kind}.fashion-cnn"
        for kind in ("fid", "patch-fid", "sfid", "is", "precision", "recall", "kid", "density",
                     "coverage")
    ]  # fmt: skip
    assert whole.metrics == pytest.approx(parts.metrics, abs=1e-10)
    for name, influence in whole.influence.items():
        assert influence == pytest.approx(parts.influence[name], abs=1e-8)
        assert influence.shape == (N,)
        assert abs(influence.mean()) < influence.std() / N


def test_the_distance_is_the_shift() -> None:
    found = measure(reading(SAMPLES, 100), reference(None, VIEWS), infinity=True)
    expected = D * 0.5**2
    bias = D * (D + 5) / (4 * N)  # of the mean D / N, of the covariance D (D + 1) / 4N
    low, high = found.intervals["fid.fashion-cnn"]
    assert low < expected + bias < high
    assert abs(found.metrics["fid-infinity.fashion-cnn"] - expected) < 0.3
    assert found.metrics["patch-fid.fashion-cnn"] < 0.2
    assert "sfid-infinity.fashion-cnn" not in found.metrics


def test_what_the_reference_lacks_is_not_measured() -> None:
    found = measure(reading(SAMPLES, 100), reference(None, ("features",)))
    assert set(found.metrics) == {"fid.fashion-cnn", "is.fashion-cnn"}
    without_logits = {view: SAMPLES[view] for view in VIEWS}
    found = measure(reading(without_logits, 100), reference(None, ("patch",)))
    assert set(found.metrics) == {"patch-fid.fashion-cnn"}


def test_too_few_samples_are_marked_and_the_rest_stands() -> None:
    few = {view: values[:3] for view, values in SAMPLES.items()}
    found = measure(reading(few, 100), reference(drawn(M, D, 20), VIEWS), infinity=True)
    assert {"fid.fashion-cnn", "kid.fashion-cnn", "is.fashion-cnn"} <= set(found.metrics)
    assert "at least 100" in found.marks["kid.fashion-cnn"]
    assert "at least 9" in found.marks["fid.fashion-cnn"]
    for kind in ("precision", "recall", "density", "coverage", "fid-infinity"):
        assert f"{kind}.fashion-cnn" not in found.metrics
        assert "3 samples" in found.marks[f"{kind}.fashion-cnn"]


def test_a_small_reference_is_marked() -> None:
    real = reference(None, VIEWS)
    real = Reference(real.extractor, {}, real.mean, real.covariance, dict.fromkeys(VIEWS, D), None)
    assert (
        "the reference has 8 samples"
        in measure(reading(SAMPLES, 99), real).marks["fid.fashion-cnn"]
    )


def test_values_that_are_not_finite_are_refused() -> None:
    broken = {**SAMPLES, "features": torch.full((N, D), torch.nan)}
    with pytest.raises(ValueError, match="not finite"):
        measure(reading(broken, 100), reference(None, VIEWS))


def test_measurements_of_extractors_join() -> None:
    one, two = Measured({"a": 1.0}), Measured({"b": 2.0}, marks={"b": "why"})
    assert (one | two).metrics == {"a": 1.0, "b": 2.0}
    assert (one | two).marks == {"b": "why"}


def test_samples_that_do_not_vary_have_no_interval() -> None:
    same = {view: values[:1].expand(N, -1) for view, values in SAMPLES.items()}
    found = measure(reading(same, 100), reference(drawn(M, D, 20), VIEWS))
    assert found.metrics["fid.fashion-cnn"] > 1
    assert "fid.fashion-cnn" not in found.intervals
    low, high = found.intervals["recall.fashion-cnn"]
    assert low == found.metrics["recall.fashion-cnn"] == 0
    assert high > 0
