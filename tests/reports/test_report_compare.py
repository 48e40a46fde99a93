"""Differences equal independent computations, over seeds and over samples."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy import stats as scipy_stats

from reports.compare import Difference, difference, influence, interval, paired
from reports.load import Row
from tests.reports.small_rows import FID, row

values = st.lists(st.floats(0.01, 500), min_size=2, max_size=8)


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 500)), min_size=2, max_size=8))
def test_paired_interval_equals_scipy(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    found = paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    differences = [a - b for a, b in pairs]
    spread = pd.Series(differences).std()  # scipy warns where it is only rounding
    expected = scipy_stats.ttest_1samp(differences, 0.0) if spread > 1e-6 else None
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    if expected is not None:
        low, high = expected.confidence_interval(0.95)
        assert (found.low, found.high) == (
            pytest.approx(low, abs=1e-6),
            pytest.approx(high, abs=1e-6),
        )
    assert found.mean == pytest.approx(pd.Series(differences).mean(), abs=1e-9)


@given(values, st.floats(-100, 100))
def test_a_seed_s_own_noise_cancels_in_a_paired_difference(
    numbers: list[float], shift: float
) -> None:
    ours = dict(enumerate(numbers))
    found = paired({seed: value + shift for seed, value in ours.items()}, ours)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((shift,) * 3, abs=1e-6)


def test_paired_takes_the_seeds_that_both_have() -> None:
    assert paired({0: 5.0, 1: 9.0, 3: 1.0}, {1: 4.0, 2: 7.0}) == Difference(1, 5.0, None, None)
    assert paired({0: 5.0}, {1: 4.0}) is None


def test_one_seed_never_excludes_zero() -> None:
    assert not Difference(1, -100.0, None, None).excludes_zero
    assert Difference(3, -2.0, -3.0, -1.0).excludes_zero
    assert not Difference(3, -2.0, -5.0, 1.0).excludes_zero


@given(values, st.randoms())
def test_the_order_of_seeds_changes_no_bit(numbers: list[float], random: object) -> None:
    seeds = list(enumerate(numbers))
    random.shuffle(seeds)  # type: ignore[attr-defined]
    theirs = dict.fromkeys(range(len(numbers)), 1.0)
    assert paired(dict(seeds), theirs) == paired(dict(enumerate(numbers)), theirs)


def test_texts() -> None:
    assert interval(FID, Difference(3, -8.94, -10.8, -7.08), 20.9) == "−8.9 [−10.8, −7.1]"
    assert interval(FID, Difference(1, 8.94, None, None), 9.94) == "+8.94 (n = 1, no interval)"
    assert interval(FID, Difference(1, 8.94, 8.0, 9.9, "samples"), 9.94) == "+8.94 [+8.00, +9.90]"
    assert interval(FID, Difference(2, 5.0, 5.0, 5.0), 20.9) == "+5.0 [+5.0, +5.0]"  # no width
    assert interval(FID, Difference(2, 0.1, -0.02, 0.22), 20.9) == "+0.10 [−0.02, +0.22]"
    assert interval("kid", Difference(2, 1e-4, -1e-4, 3e-4), 0.01) == "+0.10 [−0.10, +0.30]"


def test_small_differences_are_not_rounded_to_nothing() -> None:
    two = paired({0: 14.0, 1: 14.5}, {0: 14.00895, 1: 14.50866})
    assert two is not None
    assert two.excludes_zero
    assert interval(FID, two, 14.0) == "−0.0088 [−0.0106, −0.0070]"
    assert interval(FID, Difference(1, -0.00895, None, None), 14.0) == (
        "−0.009 (n = 1, no interval)"
    )
    assert interval(FID, Difference(2, 1.004, 0.004, 2.004), 14.0) == "+1.004 [+0.004, +2.004]"


@given(st.floats(-50, 50), st.floats(0, 50), st.floats(1, 500))
def test_an_interval_that_excludes_zero_is_written_without_a_zero(
    mean: float, half: float, like: float
) -> None:
    found = Difference(3, mean, mean - half, mean + half)
    text = interval(FID, found, like).replace("−", "-").replace("+", "")
    ends = [float(end) for end in text.partition("[")[2].rstrip("]").split(", ")]
    if found.excludes_zero:
        assert ends[0] * ends[1] > 0 or abs(mean) < 1e-100  # its square is 0


def kept(tmp_path: Path, name: str, fid: float, u: np.ndarray, **more: object) -> dict[int, Row]:
    """Seed 0 of a row whose influence values are on disk."""
    save_file({FID: u.astype(np.float32)}, tmp_path / name)
    return {0: row(name, fid, influence=tmp_path / name, **more)}


def test_one_seed_has_the_interval_of_a_difference_of_paired_means(tmp_path: Path) -> None:
    """For a mean, u_i = x_i - mean: the interval is that of the mean of paired differences."""
    draws = np.random.default_rng(0)
    shared = draws.normal(size=400)
    x = 5 + shared + 0.3 * draws.normal(size=400)
    y = 4 + shared + 0.3 * draws.normal(size=400)
    ours = kept(tmp_path, "ours", x.mean(), x - x.mean())
    theirs = kept(tmp_path, "theirs", y.mean(), y - y.mean())
    found = difference(ours, theirs, FID, over_samples=True)
    assert found is not None
    error = scipy_stats.sem(x - y) * np.sqrt(399 / 400)  # the jackknife divides by N
    low, high = scipy_stats.norm.interval(0.95, (x - y).mean(), error)
    assert (found.n, found.over, found.mean) == (1, "samples", pytest.approx((x - y).mean()))
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-5), pytest.approx(high, rel=1e-5))
    assert found.excludes_zero
    alone = scipy_stats.sem(x) * 1.96
    assert found.high - found.low < alone  # what both share cancels  # type: ignore[operator]


def test_where_samples_are_not_paired_there_is_no_interval(tmp_path: Path) -> None:
    u = np.ones(8)
    ours = kept(tmp_path, "ours", 5.0, u)
    bare = Difference(1, 1.0, None, None)
    assert difference(ours, {0: row("x", 4.0)}, FID, True) == bare
    assert difference(ours, {0: row("x", 4.0, influence=tmp_path / "lost")}, FID, True) == bare
    (tmp_path / "damaged").write_bytes(b"{")
    assert difference(ours, {0: row("x", 4.0, influence=tmp_path / "damaged")}, FID, True) == bare
    assert difference(ours, kept(tmp_path, "few", 4.0, u[:7]), FID, True) == bare
    other = kept(tmp_path, "other", 4.0, u, protocol={"samples": 8})
    assert difference(ours, other, FID, True) == bare
    assert difference(ours, kept(tmp_path, "nan", 4.0, u * np.nan), FID, True) == bare
    assert difference(ours, {1: row("x", 4.0, seed=1)}, FID, True) is None
    still = kept(tmp_path, "still", 4.0, 0 * u)  # no sample has any influence
    assert difference(ours, still, FID, True) == bare
    alike = kept(tmp_path, "alike", 4.0, u)
    assert difference(ours, alike, FID, True) == Difference(1, 1.0, 1.0, 1.0, "samples")
    assert difference(ours, alike, FID, over_samples=False) == bare


def test_several_seeds_take_the_interval_over_seeds(tmp_path: Path) -> None:
    u = np.ones(8)
    ours = kept(tmp_path, "ours", 5.0, u) | {1: row("ours", 7.0, seed=1)}
    theirs = kept(tmp_path, "theirs", 4.0, u) | {1: row("theirs", 4.0, seed=1)}
    found = difference(ours, theirs, FID, over_samples=False)
    assert found == paired({0: 5.0, 1: 7.0}, {0: 4.0, 1: 4.0})
    assert found is not None
    assert found.over == "seeds"


def test_what_is_wrong_with_a_file_of_influence_values_is_said(tmp_path: Path) -> None:
    (whole,) = kept(tmp_path, "whole", 5.0, np.ones(8)).values()
    assert influence(whole, "fid-infinity") == (None, "")  # it has none
    assert influence(row("x", 4.0), FID) == (None, "")
    assert influence(row("x", 4.0, influence=tmp_path / "lost"), FID) == (None, "missing")
    data = (tmp_path / "whole").read_bytes()
    for name, damaged in (("empty", b""), ("short", data[:-1]), ("text", b"{")):
        (tmp_path / name).write_bytes(damaged)
        assert influence(row("x", 4.0, influence=tmp_path / name), FID) == (None, "damaged")
    (nan,) = kept(tmp_path, "nan", 5.0, np.full(8, np.nan)).values()
    assert influence(nan, FID) == (None, "damaged")
    (few,) = kept(tmp_path, "few", 5.0, np.ones(7), protocol={"samples": 8}).values()
    assert influence(few, FID) == (None, "damaged")
