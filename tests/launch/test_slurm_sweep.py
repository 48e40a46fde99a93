"""The sweep's command on a real Slurm: submit and leave, look, cancel, watch, the same results."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.launch.batch import batches
from harness.record import RunFolder, run_folder
from tests.slurm_cluster import Cluster
from tests.tiny import ROOT, Write, command, figures, losses, wait_for, weights

pytestmark = pytest.mark.slow


def sweep(*arguments: object) -> subprocess.CompletedProcess[str]:
    return command("harness.sweep", *arguments)


def runs(outputs: Path) -> list[RunFolder]:
    return [run_folder(outputs, path.name) for path in sorted((outputs / "runs").iterdir())]


def queue(slurm: Cluster) -> list[str]:
    return slurm.run("squeue", "--noheader", "--array", "--format=%i").split()


@pytest.fixture
def small_arrays(slurm: Cluster) -> Iterator[Cluster]:
    """The cluster with arrays of two elements at most."""
    before = slurm.conf.read_text()
    try:
        restart(slurm, before + "MaxArraySize=2\n")
        yield slurm
    finally:
        slurm.settle()
        restart(slurm, before)


def restart(slurm: Cluster, conf: str) -> None:
    slurm.mini("stop", "slurmctld")
    slurm.conf.write_text(conf)
    slurm.mini("start", "slurmctld")


def test_all_is_submitted_once_in_chunks_seen_and_cancelled(
    tiny: Path, tmp_path: Path, write: Write, small_arrays: Cluster
) -> None:
    outputs = tmp_path / "outputs"
    site = write("site.yaml", 'time: 30\nsbatch: {hold: true, comment: "its $(a) \\"test\\" #"}\n')
    options = (tiny, "--launcher", "slurm", "--outputs", outputs, "--seeds", 3)
    first = sweep(*options, "--profile", site, "--no-track")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "submitted 6 runs as 6 jobs" in first.stdout
    assert "left to Slurm: 6 queued" in first.stdout
    assert (outputs / "reports").exists()
    assert [len(batch.elements) for batch in batches(outputs)] == [2, 2, 2]
    assert len(queue(small_arrays)) == 6
    said = small_arrays.run("squeue", "--noheader", "--format=%k").splitlines()
    assert set(said) == {'its $(a) "test" #'}

    again = sweep(*options, "--profile", site, "--no-track")
    assert again.returncode == 0, again.stdout + again.stderr
    assert " code " not in again.stdout  # nothing was submitted
    assert len(queue(small_arrays)) == 6
    shown = sweep(*options, "--dry-run")
    assert shown.stdout.count("is pending (JobHeldUser)") == 6

    cancelled = sweep(*options, "--cancel", "positions.sampler")
    assert "took 3 of 3 matching runs out of the queue" in cancelled.stdout
    assert len(queue(small_arrays)) == 3
    status = sweep(*options, "--status")
    assert status.returncode == 1
    assert status.stdout.count("not yet trained (cancelled)") == 3
    assert status.stdout.count("  queued  ") == 3
    wrong = sweep(*options, "--cancel", "positions.smapler=randomized")
    assert wrong.returncode == 2
    assert "matches none of the 6 runs" in wrong.stderr

    more = sweep(*options, "--profile", site, "--no-track")
    assert "submitted 3 runs as 3 jobs" in more.stdout
    small_arrays.mini("stop", "slurmctld")
    away = sweep(*options, "--profile", site, "--no-track")
    small_arrays.mini("start", "slurmctld")
    assert away.returncode == 1
    assert "Slurm does not answer: slurm_load_jobs error: Unable to contact" in away.stderr
    assert "nothing is lost" in away.stderr
    assert "Traceback" not in away.stderr
    assert not any(batch.abandoned for batch in batches(outputs))
    assert len(queue(small_arrays)) == 6


def test_submit_and_leave_then_watch_gives_what_the_inline_launcher_gives(
    tiny: Path,
    tmp_path: Path,
    write: Write,
    slurm: Cluster,
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    one = (tiny, "--only", "randomized")
    inline = sweep(*one, "--launcher", "inline", "--no-track", "--outputs", here)
    assert inline.returncode == 0, inline.stdout + inline.stderr

    site = write("site.yaml", "time: 30\nat_once: 2\nsbatch: {hold: true}\n")
    options = (*one, "--launcher", "slurm", "--outputs", there)
    left = sweep(*options, "--profile", site, "--no-track")
    assert "submitted 1 run as 1 job" in left.stdout, left.stdout + left.stderr
    (batch,) = batches(there)
    slurm.run("scontrol", "release", batch.job_id)
    watched = sweep(*options, "--profile", site, "--no-track", "--wait")
    assert watched.returncode == 0, watched.stdout + watched.stderr
    assert "watched for" in watched.stdout
    (run,), (other,) = runs(here), runs(there)
    assert figures(run) == figures(other)
    assert losses(run) == losses(other)
    assert weights(run) == weights(other)
    (report,) = (there / "reports").glob("*/report.md")
    assert "Does the tiny one run?" in report.read_text()

    logs = sweep(*options, "--logs", "randomized")
    assert logs.returncode == 0
    assert f"batch {batch.batch_id}" in logs.stdout
    assert logs.stdout.count("== ") == 1
    done = sweep(*options, "--profile", site)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 training (1 done)" in done.stdout
    assert "left to Slurm" not in done.stdout
    assert (there / "mlflow.db").exists()


def test_a_pending_element_that_is_cancelled_under_the_watch_is_not_submitted_again(
    tiny: Path, tmp_path: Path, write: Write, slurm: Cluster
) -> None:
    """squeue has no row of one that never began."""
    outputs = tmp_path / "outputs"
    site = write("site.yaml", "time: 30\nsbatch: {hold: true}\n")
    words = (tiny, "--launcher", "slurm", "--profile", site, "--outputs", outputs, "--no-track")
    with (tmp_path / "said").open("w") as said:
        watch = subprocess.Popen(
            [sys.executable, "-m", "harness.sweep", *map(str, words), "--wait"],
            stdout=said, stderr=said, cwd="/", env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        wait_for(lambda: "is pending (JobHeldUser)" in (tmp_path / "said").read_text())
        first, second = queue(slurm)
        slurm.run("scancel", first)
        assert queue(slurm) == [second]
        slurm.run("scancel", second)
        assert watch.wait(60) == 1
    finally:
        watch.kill()
    assert queue(slurm) == []
    assert len(batches(outputs)) == 1
