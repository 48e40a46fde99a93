"""Statistics equal independent ones, and have the properties that they must have."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.load import leading
from reports.stats import (
    Summary,
    best,
    floors,
    foremost,
    marked,
    several_seeds,
    spread,
    summaries,
    summary,
    winners,
)
from tests.reports.small_rows import COLUMN, FID, PATCH, row

values = st.lists(st.floats(0.01, 500), min_size=2, max_size=8)


@given(values)
def test_summary_equals_pandas(numbers: list[float]) -> None:
    found, series = summary(numbers), pd.Series(numbers)
    assert found.n == len(numbers)
    assert found.mean == pytest.approx(series.mean())
    assert found.sd == pytest.approx(series.std(), abs=1e-9)


@given(values, st.randoms())
def test_the_order_of_seeds_changes_no_bit(numbers: list[float], random: object) -> None:
    shuffled = list(numbers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summary(shuffled) == summary(numbers)


@given(values, st.floats(-100, 100))
def test_a_shift_of_all_seeds_shifts_the_mean_alone(numbers: list[float], shift: float) -> None:
    before, after = summary(numbers), summary(x + shift for x in numbers)
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-9)
    assert after.sd == pytest.approx(before.sd, abs=1e-9)


def test_texts() -> None:
    assert spread(FID, summary([20.94])) == "20.9"
    assert spread(FID, summary([20.0, 22.0])) == "21.0 ± 1.4"
    assert spread(FID, summary([123.0, 123.2])) == "123 ± 0.1"
    assert spread(FID, summary([123.0, 123.0])) == "123 ± 0"
    assert spread(FID, Summary(1, 6.66, None, 6.21, 7.12)) == "6.66 [6.21, 7.12]"


def test_a_figure_near_zero_has_the_decimals_of_its_spread() -> None:
    kid = "kid.fashion-cnn"  # in thousandths
    assert spread(kid, Summary(1, -1e-6, None, -3.1e-4, 3.08e-4)) == "−0.001 [−0.310, 0.308]"
    assert spread(kid, summary([0.0012, 0.0014])) == "1.30 ± 0.14"
    assert spread(kid, summary([0.1, 0.1000001])) == "100 ± 0.00007"
    assert spread("fid-infinity", summary([-0.4, 0.6])) == "0.100 ± 0.707"


def test_an_interval_is_over_samples_only_where_every_row_has_one_seed() -> None:
    one = [row("RoPE", 20.0, half=2.0), row("PI", 30.0)]
    assert not several_seeds(one)
    assert summaries(one, COLUMN, FID) == {
        "RoPE": Summary(1, 20.0, None, 18.0, 22.0),
        "PI": Summary(1, 30.0, None, None, None),
    }
    more = [*one, row("PI", 32.0, seed=1)]
    assert several_seeds(more)
    assert summaries(more, COLUMN, FID)["RoPE"] == Summary(1, 20.0, None)
    assert not several_seeds([row("RoPE", 20.0), row("RoPE", None, seed=1)])


def test_the_floor_has_an_interval_where_it_is_one_figure() -> None:
    two = [row("RoPE", 20.0), row("PI", 30.0, seed=1)]
    assert list(floors(two, COLUMN, FID).values()) == [Summary(1, 0.7, None, 0.5, 0.9)]
    other = row("NTK", 30.0, floor={FID: 0.9})
    assert list(floors([*two, other], COLUMN, FID).values()) == [Summary(1, 0.8, None)]


def test_best_is_the_lowest_fid_and_the_highest_of_others() -> None:
    assert best({"a": 2.0, "b": 1.0, "c": 1.0}, FID) == ["b", "c"]
    assert best({"a": 2.0, "b": 1.0}, "recall.fashion-cnn") == ["a"]
    assert best({}, FID) == []
    assert best({"a": float("nan")}, FID) == []


def test_a_marked_figure_is_never_the_best() -> None:
    rows = [row("RoPE", 20.0), row("PI", 9.0, marks={FID: "too few"}), row("NTK", 30.0)]
    assert marked(rows, COLUMN, FID) == {"PI": ["too few"]}
    assert winners(rows, COLUMN, FID) == ["RoPE"]
    assert winners([rows[1]], COLUMN, FID) == []
    half = [row("NTK", 1.0), row("NTK", None, seed=1, marks={FID: "not finite"}), rows[0]]
    assert winners(half, COLUMN, FID) == ["RoPE"]  # a mean without the seed that failed


def test_the_text_speaks_of_a_fid_without_marks_if_there_is_one() -> None:
    own = row("RoPE", 20.0)
    both = {"metrics": {"fid": 9.0, "patch-fid": 9.0, FID: 20.0, PATCH: 40.0}}
    assert leading([own]) == (FID, None)
    assert leading([row("RoPE", 20.0, **both)]) == ("fid", "patch-fid")
    assert leading([row("RoPE", 20.0, marks={"fid": "few"}, **both)]) == (FID, PATCH)
    assert leading([row("RoPE", 20.0, marks={FID: "few"})]) == (FID, None)
    assert leading([row("RoPE", None)]) == (None, None)


def test_a_picture_shows_the_best_rows_and_the_baseline() -> None:
    rows = [row("base", 99.0, is_baseline=True), *(row(f"m{i}", 50.0 - i) for i in range(30))]
    rows += [row("m0", 1.0, size=18), row("new", None)]
    assert foremost(rows, FID, 3) == ["base", "m27", "m28", "m29"]
    assert foremost(rows, FID, 40) == ["base", *(f"m{i}" for i in range(30)), "new"]
    assert len(foremost(rows, None, 3)) == 3
    others = [row(f"large {i}", 100.0 - i, size=48) for i in range(5)]
    assert foremost([*rows, *others], FID, 4) == ["base", "m28", "m29", "large 3", "large 4"]
