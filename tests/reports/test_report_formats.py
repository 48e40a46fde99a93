"""How numbers are written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.formats import duration, figure, flop, in_order, listed, signed, significant, title


@pytest.mark.parametrize(
    ("value", "text"),
    [(20.94, "20.9"), (0.7, "0.700"), (123.4, "123"), (1234.5, "1234"), (9.996, "10.0"),
     (99.96, "100"), (0.0, "0.00"), (0.01234, "0.0123"), (float("nan"), "nan")],
)  # fmt: skip
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@given(st.floats(1e-3, 1e5))
def test_significant_digits_lose_less_than_half_of_the_last(value: float) -> None:
    digits = 10 ** (math.floor(math.log10(value)) - 2)
    assert abs(float(significant(value)) - value) <= 0.51 * max(digits, 1 if value >= 1000 else 0)


def test_each_metric_has_its_decimals() -> None:
    assert figure("fid.fashion-cnn", 20.94) == "20.9"
    assert figure("is.fashion-cnn", 9.245) == "9.24"
    assert figure("precision.fashion-cnn", 0.61249) == "0.612"
    assert figure("fid", 0.4321, like=20.9) == "0.4"
    assert signed("fid", -8.94) == "−8.94"
    assert signed("fid", 0.01, like=20.9) == "0.0"


def test_titles_keep_the_extractor() -> None:
    assert title("fid.fashion-cnn") == "FID (fashion-cnn)"
    assert title("fid") == "FID"
    assert in_order(["recall.x", "is.x", "kid.x", "fid.x"]) == [
        "fid.x",
        "is.x",
        "recall.x",
        "kid.x",
    ]


def test_units() -> None:
    assert [duration(s) for s in (3.21, 48, 750, 11520)] == ["3.2 s", "48 s", "12.5 min", "3.20 h"]
    assert [flop(n) for n in (12, 1.5e9, 1.234e15)] == ["12 FLOP", "1.50 GFLOP", "1.23 PFLOP"]
    assert [listed(x) for x in (["a"], ["a", "b"], "abc")] == ["a", "a and b", "a, b and c"]
