"""Statistics equal independent ones, and have the properties that they must have."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from reports.load import Column, Row
from reports.stats import Difference, best, foremost, headline, interval, paired, spread, summary

FID = "fid.fashion-cnn"
values = st.lists(st.floats(0.01, 500), min_size=2, max_size=8)


@given(values)
def test_summary_equals_pandas(numbers: list[float]) -> None:
    found, series = summary(numbers), pd.Series(numbers)
    assert found.n == len(numbers)
    assert found.mean == pytest.approx(series.mean())
    assert found.sd == pytest.approx(series.std(), abs=1e-9)


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


@given(values, st.randoms())
def test_the_order_of_seeds_changes_no_bit(numbers: list[float], random: object) -> None:
    shuffled = list(numbers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summary(shuffled) == summary(numbers)
    seeds = list(enumerate(numbers))
    random.shuffle(seeds)  # type: ignore[attr-defined]
    theirs = dict.fromkeys(range(len(numbers)), 1.0)
    assert paired(dict(seeds), theirs) == paired(dict(enumerate(numbers)), theirs)


@given(values, st.floats(-100, 100))
def test_a_shift_of_all_seeds_shifts_the_mean_alone(numbers: list[float], shift: float) -> None:
    before, after = summary(numbers), summary(x + shift for x in numbers)
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-9)
    assert after.sd == pytest.approx(before.sd, abs=1e-9)


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


def test_texts() -> None:
    assert spread(FID, summary([20.94])) == "20.9"
    assert spread(FID, summary([20.0, 22.0])) == "21.0 ± 1.4"
    assert spread(FID, summary([123.0, 123.2])) == "123 ± 0.1"
    assert spread(FID, summary([123.0, 123.0])) == "123 ± 0"
    assert interval(FID, Difference(3, -8.94, -10.8, -7.08), 20.9) == "−8.9 [−10.8, −7.1]"
    assert interval(FID, Difference(1, 8.94, None, None), 9.94) == "+8.94 (n = 1, no interval)"


def test_best_is_the_lowest_fid_and_the_highest_of_others() -> None:
    assert best({"a": 2.0, "b": 1.0, "c": 1.0}, FID) == ["b", "c"]
    assert best({"a": 2.0, "b": 1.0}, "recall.fashion-cnn") == ["a"]
    assert best({}, FID) == []
    assert best({"a": float("nan")}, FID) == []


def row(method: str, fid: float | None, size: int = 24, seed: int = 0, **more: object) -> Row:
    metrics = {} if fid is None else {FID: fid}
    column = Column((size, size), (), f"{size / 12:g}×")
    return Row(method, method, column, seed, f"run-{method}-{seed}", f"e{size}", metrics=metrics,
               floor={FID: 0.7}, **more)  # type: ignore[arg-type] # fmt: skip


def test_headline_of_one_seed() -> None:
    rows = [
        row("RoPE", 38.12, is_baseline=True),
        row("RPE-2D ×2 (RoPE)", 20.94),
        row("bicubic", 21.6),
        row("bicubic", 5.0, size=18),
    ]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×), 1 seed: best is RPE-2D ×2 (RoPE) 20.9",
        "baseline: RoPE 38.1; difference of the best −17.2 (n = 1, no interval)",
        "then bicubic 21.6 | real images: 0.700",
    ]


def test_headline_of_several_seeds() -> None:
    rows = [row("RoPE", 38.0 + s, seed=s, is_baseline=True) for s in range(3)]
    rows += [row("PI", v, seed=s) for s, v in enumerate((28.0, 30.0, 29.0))]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×), 3 seeds: best is PI 29.0 ± 1.0",
        "baseline: RoPE 39.0 ± 1.0; difference of the best −10.0 [−12.5, −7.5] over 3 seeds",
        "real images: 0.700",
    ]


def test_headline_where_the_baseline_is_best_or_nothing_is_there() -> None:
    rows = [row("RoPE", 20.0, is_baseline=True), row("PI", 30.0)]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×), 1 seed: best is RoPE 20.0 (the baseline)",
        "then PI 30.0 | real images: 0.700",
    ]
    assert headline([row("RoPE", None)]) == ["no evaluation is finished yet"]
    assert headline([]) == ["no evaluation is finished yet"]


def test_a_picture_shows_the_best_rows_and_the_baseline() -> None:
    rows = [row("base", 99.0, is_baseline=True), *(row(f"m{i}", 50.0 - i) for i in range(30))]
    rows += [row("m0", 1.0, size=18), row("new", None)]
    assert foremost(rows, FID, 3) == ["base", "m27", "m28", "m29"]
    assert foremost(rows, FID, 40) == ["base", *(f"m{i}" for i in range(30)), "new"]
    assert len(foremost(rows, None, 3)) == 3


def test_headline_compares_no_two_protocols() -> None:
    rows = [
        row("RoPE", 20.0, protocol={"samples": 500}),
        row("PI", 9.0, protocol={"samples": 5000}),
    ]
    assert headline(rows) == [
        "FID (fashion-cnn) at 24×24 (2×): measured by more than one protocol, so rows are not "
        "compared"
    ]
