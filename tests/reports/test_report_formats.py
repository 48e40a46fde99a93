"""How numbers are written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.formats import (
    arrow,
    duration,
    extractor,
    figure,
    flop,
    in_order,
    listed,
    noun,
    side_by_side,
    signed,
    significant,
    title,
)


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
    assert signed("fid", -8.94, 2) == "−8.94"
    assert signed("fid", 0.01, 1) == "0.0"
    assert signed("fid", 1.25, 2) == "+1.25"
    assert signed("kid", 0.00125, 1) == "+1.2"
    assert figure("density.dinov2", 1.23456) == "1.235"
    assert figure("kid", 0.0123456) == "12.3"
    assert figure("kid", -0.0002) == "−0.200"
    assert figure("fid-infinity", -0.001, like=5.0) == "0.00"


@pytest.mark.parametrize(
    ("metrics", "text"),
    [(["fid"], "FID"), (["fid.fashion-cnn"], "FID (fashion-cnn)"), (["patch-fid"], "patch FID"),
     (["fid", "patch-fid"], "FID and patch FID"), (["sfid"], "sFID"), (["is"], "IS"),
     (["fid.fashion-cnn", "patch-fid.fashion-cnn"], "FID and patch FID (fashion-cnn)"),
     (["precision.x"], "Precision (x)"), (["kid.x"], "KID ×10³ (x)"), (["density"], "Density"),
     (["coverage"], "Coverage"), (["recall"], "Recall"), (["fid-infinity"], "FID∞"),
     (["patch-fid-infinity.x"], "patch FID∞ (x)"), (["fid.dinov2"], "FD-DINOv2"),
     (["fid.dinov2", "patch-fid.dinov2"], "FD-DINOv2 and patch FD-DINOv2"),
     (["fid-infinity.dinov2"], "FD∞-DINOv2"), (["precision.dinov2"], "Precision (dinov2)")],
)  # fmt: skip
def test_titles_keep_the_extractor(metrics: list[str], text: str) -> None:
    assert title(*metrics) == text


def test_what_a_metric_is_and_which_way_is_better() -> None:
    assert [noun("fid.x"), noun("patch-fid.dinov2"), noun("new.x")] == [
        "FID", "patch FD-DINOv2", "new"
    ]  # fmt: skip
    assert [extractor("fid"), extractor("fid.x")] == ["inception-v3-compat", "x"]
    lower = ("fid", "patch-fid", "sfid", "kid", "fid-infinity", "patch-fid-infinity")
    higher = ("is", "precision", "recall", "density", "coverage")
    assert {arrow(f"{kind}.x") for kind in lower} == {"↓"}
    assert {arrow(kind) for kind in higher} == {"↑"}


def test_fid_and_patch_fid_of_an_extractor_share_a_table() -> None:
    known = ["recall.x", "patch-fid-infinity.x", "patch-fid", "sfid.x", "new.x", "is.x", "fid.x",
             "fid-infinity.x", "patch-fid.x"]  # fmt: skip
    assert in_order(known) == [
        "fid.x", "patch-fid", "patch-fid.x", "sfid.x", "is.x", "recall.x", "fid-infinity.x",
        "patch-fid-infinity.x", "new.x",
    ]  # fmt: skip
    assert side_by_side(known) == [
        ("fid.x", "patch-fid.x"), ("patch-fid",), ("sfid.x",), ("is.x",), ("recall.x",),
        ("fid-infinity.x", "patch-fid-infinity.x"), ("new.x",),
    ]  # fmt: skip


def test_units() -> None:
    assert [duration(s) for s in (3.21, 48, 750, 11520)] == ["3.2 s", "48 s", "12.5 min", "3.20 h"]
    assert [flop(n) for n in (12, 1.5e9, 1.234e15)] == ["12 FLOP", "1.50 GFLOP", "1.23 PFLOP"]
    assert [listed(x) for x in (["a"], ["a", "b"], "abc")] == ["a", "a and b", "a, b and c"]
