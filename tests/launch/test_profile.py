"""A site's profile: what is read, what is refused and how, what is asked of sbatch."""

from pathlib import Path
from typing import Any

import pytest

from harness.config import Job
from harness.errors import UserError
from harness.launch.profile import Profile, parameters, read_profile, runs_at_once
from tests.tiny import ROOT, Write


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({"time": 60} | fields)


def asked(found: Profile, **job: Any) -> dict[str, Any]:
    return parameters(found, Job(**job), name="x-0", snapshot=Path("/code"))


@pytest.mark.parametrize("name", ["example", "mini"])
def test_the_profiles_that_come_with_it_are_read(name: str) -> None:
    assert read_profile(ROOT / "slurm" / "profiles" / f"{name}.yaml").time > 0


def test_the_example_has_every_field() -> None:
    text = (ROOT / "slurm" / "profiles" / "example.yaml").read_text()
    for name in Profile.model_fields:
        assert f"\n{name}:" in text, name


@pytest.mark.parametrize(
    ("text", "minutes"), [("90", 90), ("1:30:00", 90), ("0:00:30", 1), ("2-01:00:00", 2940)]
)
def test_times(write: Write, text: str, minutes: int) -> None:
    assert read_profile(write("p.yaml", f"time: {text}\nwarning: 10\n")).time == minutes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a profile needs at least 'time'"),
        ("partition: gpu", "'time' is missing: time limit of a job"),
        ("time: 60\npartitoin: gpu", ":2: unknown key 'partitoin'; did you mean 'partition'?"),
        ("time: 1:30", "must be minutes, H:MM:SS or D-HH:MM:SS"),
        ("time: soon", "must be minutes"),
        ("time: 1", "before the start"),
        ("time: 60\nmemory: 16", "must say its unit"),
        ("time: 60\nmemory: 16 lots", "must be a number with its unit"),
        ("time: 60\nat_once: 4\nruns_per_job: 2", "runs_per_job: 2 is less than at_once 4"),
        ("time: 60\nmodules: cuda", "must be a list"),
        ('time: 60\npartition: "a\\nb"', "must be printable text on one line"),
        ('time: 60\nmodules: ["a\\u2028b"]', "must be printable text on one line"),
        ("time: 60\npartition: a\\b", "Slurm drops \\"),
        ("time: 60\nenvironment:\n  a-b: c", ":3: environment.a-b: got 'c': a variable's name"),
        ('time: 60\nenvironment: {"a=$(id) b": c}', "a variable's name"),
        ("time: 60\nenvironment: {a: true}", "environment.a: got True"),
        ("time: 60\nsbatch:\n  gpus-per-nod: 1", ":3: sbatch has no option 'gpus-per-nod'; did "
         "you mean 'gpus-per-node'?"),
        ("time: 60\nsbatch: {array: 0-9}", "the launcher says this itself"),
        ("time: 60\nsbatch: {job-name: x}", "the launcher says this itself"),
        ("time: 60\nsbatch: {partition: x}", "is the profile's own field 'partition'"),
        ("time: 60\nsbatch: {gpus-per-node: 1}", "comes from the ablation's 'job.gpus'"),
        ("time: 60\nsbatch: {clusters: far}", "set SLURM_CLUSTERS in the shell"),
        ("time: 60\nsbatch: {exclusive: false}", "leave it out"),
        ("time: 60\nsbatch: [exclusive]", "should be a valid dictionary"),
        ("time: 60\npython: venv/bin/python", "depends on the folder that a job starts in"),
        ("time: 60\nsetup: [rm -rf /]", "unknown key 'setup'"),
    ],
)  # fmt: skip
def test_what_is_refused_and_how(write: Write, text: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        read_profile(write("p.yaml", text))
    assert told in str(refused.value)
    assert "p.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_of_several_ranks_on_one_node_is_one_task() -> None:
    found = asked(profile(memory="8G", gpu="a100"), cpus=8, gpus=2.0, ranks=2)
    assert (found["nodes"], found["ntasks_per_node"], found["cpus_per_task"]) == (1, 1, 8)
    assert (found["gpus_per_node"], found["mem"]) == ("a100:2", "8192M")


def test_a_run_over_nodes_is_a_task_for_each_rank() -> None:
    packed = profile(memory="8G", at_once=4)
    found = asked(packed, cpus=16, gpus=8.0, ranks=8, nodes=2)
    assert (found["nodes"], found["ntasks_per_node"], found["cpus_per_task"]) == (2, 4, 2)
    assert (found["gpus_per_node"], found["mem"]) == (4, "4096M")
    assert {"--kill-on-bad-exit=1", "--cpus-per-task=2"} <= set(found["srun_args"])
    assert runs_at_once(packed, Job(ranks=8, nodes=2)) == 1


def test_runs_that_share_a_job_share_its_gpus() -> None:
    for share, count in ((0.25, 1), (0.5, 2), (0.4, 2), (1 / 3, 2), (1.0, 4)):
        found = asked(profile(at_once=4, memory="2G"), cpus=2, gpus=share)
        assert (found["cpus_per_task"], found["mem"]) == (8, "8192M")
        assert found["gpus_per_node"] == count, share
    assert "gpus_per_node" not in asked(profile())


@pytest.mark.parametrize("job", [{"gpus": 1.5}, {"gpus": 3.0, "nodes": 2, "ranks": 2}])
def test_parts_of_gpus_that_slurm_cannot_give(job: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Slurm gives whole GPUs"):
        asked(profile(), **job)


def test_requeue_nodes_to_avoid_and_further_options() -> None:
    found = parameters(
        profile(requeue=False, warning=300, sbatch={"exclude": "n1", "nice": "5"}, srun=["-v"]),
        Job(), name="x-0", snapshot=Path("/code"), parallel=3, excluded=["n2", "n3"],
    )  # fmt: skip
    assert found["exclude"] == "n1,n2,n3"
    assert found["additional_parameters"] == {"chdir": "/code", "no-requeue": True, "nice": "5"}
    assert (found["signal_delay_s"], found["array_parallelism"]) == (300, 3)
    assert found["srun_args"][-2:] == ["--export=ALL", "-v"]  # whatever sbatch.export says
    assert asked(profile())["additional_parameters"]["requeue"] is True
