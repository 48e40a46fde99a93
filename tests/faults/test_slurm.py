"""What befalls a Slurm cluster, at random moments of a sweep that it was left with.

As tests/faults/test_kills.py, but these take longer: 5 moments of each kind in `make test-faults`.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from harness.claim import attempts
from harness.launch.batch import batches
from tests.faults import disturbed as d
from tests.slurm_cluster import Cluster, slurm  # noqa: F401
from tests.tiny import command, wait_for

pytestmark = pytest.mark.slow

# Warned 30 s before its end, in the partition that others take nodes from.
SITE = "partition: low\ntime: 20\nwarning: 30\nmemory: 2000M\n"

Fault = Callable[[Cluster, Path, str], None]


def a_lost_node(slurm: Cluster, outputs: Path, _: str) -> None:  # noqa: F811
    (run,) = d.runs(outputs)
    (node,) = attempts(run)[-1].data["nodes"]
    slurm.mini("kill", node, "--down")
    time.sleep(2)
    slurm.mini("start", node)


def a_restarted_controller(slurm: Cluster, *_: object) -> None:  # noqa: F811
    slurm.mini("stop", "slurmctld")
    time.sleep(5)
    slurm.mini("start", "slurmctld")


def a_killed_controller(slurm: Cluster, *_: object) -> None:  # noqa: F811
    """It has forgotten the last 5 seconds."""
    slurm.mini("kill", "slurmctld")
    time.sleep(5)
    slurm.mini("start", "slurmctld")


def preemption(slurm: Cluster, _: Path, job: str) -> None:  # noqa: F811
    urgent = [slurm.submit("sleep 600", "--exclusive", "--time=5") for _ in range(2)]
    wait_for(lambda: slurm.state(job) != "RUNNING")
    slurm.run("scancel", *urgent)


def a_time_limit(slurm: Cluster, _: Path, job: str) -> None:  # noqa: F811
    """Nearer than it was, so that the test need not wait for it."""
    with contextlib.suppress(AssertionError):  # it has ended
        slurm.run("scontrol", "update", f"jobid={job}", "timelimit=1")
    wait_for(lambda: slurm.state(job) != "RUNNING")
    with contextlib.suppress(AssertionError):
        slurm.run("scontrol", "update", f"jobid={job}", "timelimit=20")


def requeue(slurm: Cluster, _: Path, job: str) -> None:  # noqa: F811
    with contextlib.suppress(AssertionError):
        slurm.run("scontrol", "requeue", job)


def scancel(slurm: Cluster, _: Path, job: str) -> None:  # noqa: F811
    """By hand, behind the sweep's back."""
    slurm.run("scancel", job)


def the_supervisor_killed(slurm: Cluster, _: Path, job: str) -> None:  # noqa: F811
    """... and srun sees to the rest."""
    supervisors = [p for p in of_job(job) if "submitit.core._submit" in p.cmdline()]
    assert supervisors or slurm.state(job) != "RUNNING"
    _kill(supervisors)


def the_whole_job_killed(slurm: Cluster, _: Path, job: str) -> None:  # noqa: F811
    found = of_job(job)
    assert found or slurm.state(job) != "RUNNING"
    _kill(found)


def of_job(job: str) -> list[psutil.Process]:
    """The processes of a job, on whatever node of this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
    return found


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


FAULTS: list[Fault] = [
    a_lost_node, a_restarted_controller, a_killed_controller, preemption, a_time_limit, requeue,
    scancel, the_supervisor_killed, the_whole_job_killed,
]  # fmt: skip


@pytest.mark.parametrize("moment", range(max(1, d.MOMENTS // 4)))
@pytest.mark.parametrize("fault", FAULTS)
def test_left_with_slurm_and_given_again(
    fault: Fault,
    moment: int,
    ablation: Path,
    undisturbed: d.Outcome,
    tmp_path: Path,
    slurm: Cluster,  # noqa: F811
) -> None:
    outputs, site = tmp_path / "outputs", tmp_path / "site.yaml"
    site.write_text(SITE)
    options = ("--launcher", "slurm", "--profile", site, "--outputs", outputs)
    left = command("harness.sweep", ablation, *options)
    assert left.returncode == 0, left.stdout + left.stderr
    (batch,) = batches(outputs)
    (run,) = d.runs(outputs)
    job = str(batch.job_id)
    wait_for(lambda: len(attempts(run)) == 1)
    draw = random.Random(f"{d.SEED} {fault.__name__} {moment}")
    time.sleep(draw.uniform(0.05, 0.9) * undisturbed.seconds)
    fault(slurm, outputs, job)
    with contextlib.suppress(AssertionError):  # it is not in the queue again
        slurm.hurry(job, 10)
    again = command("harness.sweep", ablation, *options, "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    d.quiet(outputs)
    assert d.result(outputs) == undisturbed.result
    assert d.mirrored(outputs) == undisturbed.mirrored
    assert not list(outputs.rglob("*.tmp")), "something half-written was left"
