"""What a process knows of the Slurm job around it."""

import pytest

from harness.allocation import allocation, expand_nodes, seconds_of, warns_of_the_end


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("a", ["a"]),
        ("a[01-03,7],b", ["a01", "a02", "a03", "a7", "b"]),
        ("r[1-2]n[8-10]", ["r1n8", "r1n9", "r1n10", "r2n8", "r2n9", "r2n10"]),
        ("gpu-a[1,3]-x", ["gpu-a1-x", "gpu-a3-x"]),
    ],
)
def test_names_of_nodes(written: str, names: list[str]) -> None:
    assert expand_nodes(written) == names


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("5:07", 307), ("1-02:03:04", 93784), ("02:00:00", 7200), ("59", 59), ("UNLIMITED", None),
     ("NOT_SET", None), ("", None)],
)  # fmt: skip
def test_durations(written: str, seconds: float | None) -> None:
    assert seconds_of(written) == seconds


def test_a_task_of_an_array_over_nodes() -> None:
    found = allocation(
        {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2",
         "SLURM_RESTART_COUNT": "3", "SLURMD_NODENAME": "n2", "SLURM_JOB_NODELIST": "n[1-2]",
         "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}
    )  # fmt: skip
    assert found is not None
    assert (found.job, found.restart, found.node, found.nodes) == ("7_2", 3, "n2", ("n1", "n2"))
    assert (found.rank, found.tasks, found.local_rank) == (3, 4, 1)


def test_outside_slurm_there_is_none() -> None:
    assert allocation({"SLURM_CONF": "/etc/slurm.conf"}) is None


@pytest.mark.parametrize(("left", "end"), [(30, True), (149, True), (200, False)])
def test_a_warning_near_the_end_is_that_of_the_time_limit(left: float, end: bool) -> None:
    env = {"RESOLUTE_JOB_ENDS": "1000", "RESOLUTE_JOB_WARNING": "60"}
    assert warns_of_the_end(1000 - left, env) is end
    assert warns_of_the_end(1000 - left, {}) is False
