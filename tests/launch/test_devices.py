"""Which of a job's GPUs belong to which of the runs packed into it."""

import pytest

from harness.launch.devices import share, visible


@pytest.mark.parametrize(
    ("devices", "gpus", "shares"),
    [
        ("0,1,2,3", 1, [["0"], ["1"], ["2"], ["3"]]),
        ("4,5,6,7", 2, [["4", "5"], ["6", "7"]]),
        ("0", 0.5, [["0"], ["0"]]),
        ("2,3", 0.5, [["2"], ["2"], ["3"], ["3"]]),
        ("0,1", 0.3, [["0"]] * 3 + [["1"]] * 3),
        ("GPU-a,MIG-b", 1, [["GPU-a"], ["MIG-b"]]),
        ("0", 1, [["0"], ["0"]]),  # fewer than asked for: shared
        ("0,1", 1.5, [["0", "1"]]),
        ("0,1", 0, [None, None]),
        ("", 1, [None]),
    ],
)
def test_shares(devices: str, gpus: float, shares: list[list[str] | None]) -> None:
    assert [share(visible(devices), slot, gpus) for slot in range(len(shares))] == shares


def test_ten_runs_of_a_tenth_share_one() -> None:
    assert {tuple(share(["0", "1"], slot, 0.1) or ()) for slot in range(10)} == {("0",)}


def test_nothing_is_visible_where_nothing_is_said() -> None:
    assert visible(None) == visible("") == []
    assert visible("0, 1") == ["0", "1"]
