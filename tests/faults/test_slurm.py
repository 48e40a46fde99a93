"""What befalls a Slurm cluster, at random moments of a sweep that it was left with.

As tests/faults/test_kills.py, but these take longer: 5 moments of each kind in `make test-faults`,
and one of some kinds in CI, whose others are in tests/launch/test_slurm_job.py at chosen moments.
"""

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.claim import OWNED, attempts
from harness.launch.batch import batches
from harness.retries import cause
from tests.faults import disturbed as d
from tests.slurm_cluster import Cluster
from tests.tiny import command, wait_for
from tests.working import still

pytestmark = pytest.mark.slow

# Warned before its end, in the partition that others take nodes from.
SITE = "partition: low\ntime: {time}\nwarning: 20\nmemory: 2000M\n"

Fault = Callable[[Cluster, Path, str], None]


def a_lost_node(slurm: Cluster, outputs: Path, job: str) -> None:
    (run,) = d.runs(outputs)
    (node,) = attempts(run)[-1].data["nodes"]
    with still(outputs):
        slurm.mini("kill", node, "--down")
        wait_for(lambda: slurm.state(job) != "RUNNING")
        slurm.mini("start", node)


def a_restarted_controller(slurm: Cluster, *_: object) -> None:
    slurm.mini("stop", "slurmctld")
    time.sleep(5)
    slurm.mini("start", "slurmctld")


def a_killed_controller(slurm: Cluster, *_: object) -> None:
    """It has forgotten the last 5 seconds."""
    slurm.mini("kill", "slurmctld")
    time.sleep(5)
    slurm.mini("start", "slurmctld")


def preemption(slurm: Cluster, outputs: Path, job: str) -> None:
    with still(outputs):
        urgent = [slurm.submit("sleep 600", "--exclusive", "--time=5") for _ in range(2)]
        wait_for(lambda: "got SIGUSR2" in said(outputs))
    wait_for(lambda: slurm.state(job) != "RUNNING")
    slurm.run("scancel", *urgent)


def a_time_limit(_: Cluster, outputs: Path, __: str) -> None:
    """Its minute is over before its work is."""
    with still(outputs):
        wait_for(lambda: "got SIGUSR2" in said(outputs))


def requeue(slurm: Cluster, outputs: Path, job: str) -> None:
    with still(outputs):
        slurm.run("scontrol", "requeue", job)


def scancel(slurm: Cluster, outputs: Path, job: str) -> None:
    """By hand, behind the sweep's back."""
    with still(outputs):
        slurm.run("scancel", job)


def the_supervisor_killed(slurm: Cluster, outputs: Path, job: str) -> None:
    """... and srun sees to the rest."""
    with still(outputs):
        supervisors = [p for p in of_job(job) if "submitit.core._submit" in p.cmdline()]
        assert supervisors
        for process in supervisors:
            process.kill()
        wait_for(lambda: slurm.state(job) != "RUNNING")


def the_whole_job_killed(_: Cluster, outputs: Path, job: str) -> None:
    with still(outputs):
        for process in of_job(job):
            with contextlib.suppress(psutil.Error):
                process.kill()


# Why the first attempt ended, as far as its file tells; None: it outlives that.
ENDS: dict[Fault, set[str] | None] = {
    a_lost_node: {"node failure"},
    a_restarted_controller: None,
    a_killed_controller: None,
    preemption: {"preempted"},
    a_time_limit: {"time limit"},
    requeue: {"preempted", "stopped", "node failure"},  # killed with more or less notice
    scancel: {"stopped", "node failure"},
    the_supervisor_killed: {"stopped", "node failure"},
    the_whole_job_killed: {"node failure"},
}

FAULTS = [*ENDS] if d.MOMENTS > 1 else [a_killed_controller, a_time_limit]


def said(outputs: Path) -> str:
    """What the jobs have printed."""
    return "".join(file.read_text() for file in (outputs / "slurm").glob("*/*_log.out"))


def of_job(job: str) -> list[psutil.Process]:
    """The processes of a job, on whatever node of this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
    return found


@pytest.mark.parametrize("moment", range(max(1, d.MOMENTS // 4)))
@pytest.mark.parametrize("fault", FAULTS)
def test_left_with_slurm_and_given_again(
    fault: Fault,
    moment: int,
    ablation: Path,
    undisturbed: d.Outcome,
    tmp_path: Path,
    slurm: Cluster,
) -> None:
    outputs, site = tmp_path / "outputs", tmp_path / "site.yaml"
    profile = SITE.format(time=1 if fault is a_time_limit else 20)
    site.write_text(profile + "sbatch: {hold: true}\n")  # until this command has ended
    options = ("--launcher", "slurm", "--profile", site, "--outputs", outputs)
    left = command("harness.sweep", ablation, *options)
    assert left.returncode == 0, left.stdout + left.stderr
    (batch,) = batches(outputs)
    (run,) = d.runs(outputs)
    site.write_text(profile)
    slurm.run("scontrol", "release", batch.job_id)
    draw = random.Random(f"{d.SEED} {fault.__name__} {moment}")
    d.reach(draw.uniform(0, 0.9), outputs)
    fault(slurm, outputs, str(batch.job_id))
    with contextlib.suppress(AssertionError):  # it is not in the queue again
        slurm.hurry(str(batch.job_id), 10)
    again = command("harness.sweep", ablation, *options, "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    d.quiet(outputs)
    first, *further = attempts(run)
    if (ends := ENDS[fault]) is not None:
        assert cause(first.data) in ends
        assert further
    assert d.result(outputs) == undisturbed.result
    assert d.mirrored(outputs) == undisturbed.mirrored
    if further:
        left = [f for owned in OWNED for f in outputs.glob(f"runs/*/{owned}/**/*.tmp")]
        assert not left, "something half-written was left"
