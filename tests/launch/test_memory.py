"""Kills for want of memory, as control groups count them."""

from pathlib import Path

from harness.launch.memory import kills


def test_version_two_counts_in_the_step_or_below(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/system/job_1/step_0/task_0\n")
    step = tmp_path / "system" / "job_1" / "step_0"
    (step / "task_0").mkdir(parents=True)
    (step / "task_0" / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert kills(tmp_path, own) == 0
    (step / "memory.events").write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    assert kills(tmp_path, own) == 3


def test_version_one(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("12:cpu,cpuacct:/x\n7:memory:/slurm/job_1\n0::/\n")
    group = tmp_path / "memory" / "slurm" / "job_1"
    group.mkdir(parents=True)
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert kills(tmp_path, own) == 2


def test_without_control_groups_none(tmp_path: Path) -> None:
    assert kills(tmp_path, tmp_path / "missing") == 0
    assert kills() >= 0
