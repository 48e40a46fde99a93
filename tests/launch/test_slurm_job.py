"""What runs inside a Slurm job, in a real Slurm: packed, over nodes, stopped, requeued, lost."""

import json
import re
import sys
from pathlib import Path

import pytest

from harness.claim import attempts
from harness.config import Job
from harness.files import write_json
from harness.launch import processes
from harness.launch import slurm as slurm_launcher
from harness.launch.batch import Batch, batches, write_batch
from harness.launch.processes import DONE, Work
from harness.launch.profile import Profile
from harness.record import RunFolder
from harness.snapshot import snapshot
from tests.slurm_cluster import Cluster
from tests.tiny import BASE, ROOT, figures, losses, prepared, wait_for, weights
from tests.working import still, working

pytestmark = pytest.mark.slow

ONE = """\
question: Does it go on?
base: base.yaml
set: {train.images: 9600, job.checkpoint_every: 100}
axes: {model.encoding: [rope, sincos]}
seeds: [0]
evaluate: {resolution: [8]}
baseline: {model.encoding: rope}
"""
MIDDLE = 20  # lines of metrics.jsonl, of 150


def run_of(folder: Path, cell: int = 0, *changes: str) -> RunFolder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(BASE)
    (folder / "one.yaml").write_text(ONE)
    return prepared(folder / "outputs", folder / "one.yaml", *changes, cell=cell)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of 300 steps that nothing happened to, inline."""
    run = run_of(tmp_path_factory.mktemp("undisturbed"))
    assert processes.wait(processes.start(Work(run.path), 1, 1)) == DONE, run.log_tail(30)
    return run


def submit(slurm: Cluster, runs: list[RunFolder], *options: str, **facts: object) -> Batch:
    """A batch of one element with these runs, as a job whose tasks each call `work`."""
    outputs = runs[0].path.parent.parent
    given: dict[str, object] = {"job": Job().model_dump(mode="json"), "at_once": 1}
    batch = write_batch(
        outputs,
        ablation="one",
        snapshot=ROOT,
        parameters={"signal_delay_s": 30},
        elements=[[Work(run.path) for run in runs]],
        profile={},
        python=["python"],
        **given | facts,  # type: ignore[arg-type]
    )
    python = ROOT / ".venv" / "bin" / "python"
    call = f"from harness.launch.slurm_job import work; work({str(batch.folder)!r}, 0)"
    script = f'cd {ROOT} && srun --unbuffered --kill-on-bad-exit=1 {python} -c "{call}"'
    log = ("--open-mode=append", f"--output={batch.folder}/%j.log", f"--job-name={batch.name}")
    batch.set_job_id(slurm.submit(script, "--time=20", "--mem=2000", *log, *options))
    return batch


def done(slurm: Cluster, batch: Batch) -> bool:
    state = slurm.state(str(batch.job_id))
    assert state in ("PENDING", "RUNNING", "COMPLETING", "COMPLETED"), said(batch)
    return state == "COMPLETED"


def said(batch: Batch) -> str:
    files = [*batch.folder.glob("*.log"), *batch.folder.glob("*_log.out")]
    return "\n".join(file.read_text() for file in files)


def wait_till_done(slurm: Cluster, batch: Batch) -> None:
    wait_for(lambda: done(slurm, batch), 200)


def ends(run: RunFolder) -> list[tuple[object, object, object]]:
    """(outcome, cause, restart of the job) of every attempt."""
    keys = ("outcome", "cause", "restart")
    return [tuple(one.data.get(key) for key in keys) for one in attempts(run)]  # type: ignore[misc]


def goes_on_where_it_stopped(run: RunFolder) -> None:
    """The second attempt began at the very step at which the first was stopped."""
    first, second = attempts(run)
    stopped = re.search(r"stopped at step (\d+)", first.data["error"])
    assert stopped is not None
    assert second.data["reached"][0] == int(stopped[1]) > 0


def test_packed_runs_are_warned_requeued_and_end_the_same(
    slurm: Cluster,
    tmp_path: Path,
    undisturbed: RunFolder,
) -> None:
    runs = [run_of(tmp_path), run_of(tmp_path, 1)]
    batch = submit(slurm, runs, "--cpus-per-task=2", at_once=2)
    job = str(batch.job_id)
    wait_for(lambda: all(len(list(run.metrics())) > MIDDLE for run in runs))
    with still(*(run.path for run in runs)):
        slurm.run("scancel", "--signal=USR2", job)
        wait_for(lambda: "got SIGUSR2" in said(batch))
    slurm.hurry(job)
    for run in runs:
        assert run.checkpoints()[-1].name < "step-00000300"
        (attempt,) = attempts(run)
        assert attempt.data["outcome"] == "interrupted"
        assert attempt.data["cause"] == "preempted"
        assert (attempt.data["job"], attempt.data["restart"]) == (job, 0)
        assert attempt.data["nodes"] in (["node1"], ["node2"])
        assert attempt.data["reached"] == [0, 0, 0]
    wait_till_done(slurm, batch)
    for run in runs:
        assert [end[::2] for end in ends(run)] == [("interrupted", 0), ("done", 1)]
        goes_on_where_it_stopped(run)
    assert losses(runs[0]) == losses(undisturbed)
    assert weights(runs[0]) == weights(undisturbed)
    assert figures(runs[0]) == figures(undisturbed)


def test_a_run_on_two_nodes_is_warned_requeued_and_ends_as_on_one(
    slurm: Cluster, tmp_path: Path
) -> None:
    if not slurm.isolated:
        pytest.skip("nodes of mini-slurm find each other only with namespaces (root)")
    sharded = ("train.zero_stage=2", "job.ranks=2", "job.cpus=2")
    run = run_of(tmp_path, 0, *sharded, "job.nodes=2", "job.checkpoint_every=1000")
    job = Job(ranks=2, nodes=2, cpus=2).model_dump(mode="json")
    batch = submit(slurm, [run], "--nodes=2", "--ntasks-per-node=1", job=job)
    wait_for(lambda: len(list(run.metrics())) > MIDDLE)
    with still(run.path):
        slurm.run("scancel", "--signal=USR2", batch.job_id)
        wait_for(lambda: said(batch).count("got SIGUSR2") == 2)  # both tasks hear of it
    slurm.hurry(str(batch.job_id))
    wait_till_done(slurm, batch)
    assert attempts(run)[0].data["nodes"] == ["node1", "node2"]
    assert [end[0] for end in ends(run)] == ["interrupted", "done"]
    goes_on_where_it_stopped(run)  # from what both ranks wrote on the signal: there is no other
    alone = run_of(tmp_path / "alone", 0, *sharded)
    assert processes.wait(processes.start(Work(alone.path), 2, 2)) == DONE, alone.log_tail(30)
    assert losses(run) == losses(alone)
    assert weights(run) == weights(alone)
    assert figures(run) == figures(alone)


def test_a_lost_node_and_a_preemption_lose_nothing(
    slurm: Cluster,
    tmp_path: Path,
    undisturbed: RunFolder,
) -> None:
    run = run_of(tmp_path)
    batch = submit(slurm, [run], "--partition=low", "--cpus-per-task=8", "--signal=USR2@30")
    job = str(batch.job_id)
    wait_for(lambda: bool(run.checkpoints()))
    (lost,) = attempts(run)[-1].data["nodes"]
    slurm.mini("kill", lost, "--down")
    slurm.hurry(job)
    wait_for(lambda: len(attempts(run)) == 2)
    second = attempts(run)[1].data
    assert second["nodes"] != [lost]
    assert second["reached"][0] >= 100
    step = len(list(run.metrics()))
    wait_for(lambda: len(list(run.metrics())) > step + MIDDLE)
    with still(run.path):
        slurm.mini("start", lost)
        urgent = [slurm.submit("sleep 600", "--exclusive", "--time=5") for _ in range(2)]
        wait_for(lambda: "got SIGUSR2" in said(batch))
    wait_for(lambda: slurm.state(job) == "PENDING")
    slurm.run("scancel", *urgent)
    slurm.hurry(job)
    wait_till_done(slurm, batch)
    first, *preempted, last = ends(run)  # by chance again, until the urgent jobs are gone
    assert first == (None, None, 0)
    assert {end[:2] for end in preempted} == {("interrupted", "preempted")}
    assert last == ("done", "", len(preempted) + 1)
    assert losses(run) == losses(undisturbed)
    assert weights(run) == weights(undisturbed)
    assert figures(run) == figures(undisturbed)


def tell_of(run: RunFolder, batch: Batch, how: dict[str, object]) -> None:
    """Two attempts that earlier starts of the batch's job made in vain."""
    place = {"host": "elsewhere", "pid": 1, "job": batch.job_id, "reached": [0, 0, 0]}
    for number in (1, 2):
        file = run.path / "attempts" / f"{number:04d}.json"
        write_json(file, place | {"restart": number - 3} | how)


def test_where_requeuing_is_forbidden_a_successor_goes_on(
    slurm: Cluster, tmp_path: Path, undisturbed: RunFolder
) -> None:
    run = run_of(tmp_path)
    site = Profile(time=20, warning=30, requeue=False)
    outputs, code = run.path.parent.parent, snapshot(tmp_path / "code")
    (batch,) = slurm_launcher.submit([Work(run.path)], Job(), site, outputs, "one", snapshot=code)
    wait_for(lambda: len(list(run.metrics())) > MIDDLE)
    with still(run.path):
        slurm.run("scancel", "--signal=USR2", batch.job_id)
        wait_for(lambda: "got SIGUSR2" in said(batch))
    wait_for(lambda: len(batches(outputs)) == 2)
    successor = batches(outputs)[1]
    assert successor.follows == [batch.job_id]
    wait_for(lambda: successor.job_id is not None)
    wait_for(lambda: slurm.state(str(successor.job_id)) == "COMPLETED")
    assert slurm.state(str(batch.job_id)) == "FAILED"  # with 75, for the one that waits for that
    first, second = attempts(run)
    assert (first.data["job"], second.data["job"]) == (batch.job_id, successor.job_id)
    assert weights(run) == weights(undisturbed)
    assert figures(run) == figures(undisturbed)


def test_requeues_without_progress_are_given_up(slurm: Cluster, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    job = Job(retries=1).model_dump(mode="json")
    batch = submit(slurm, [run], "--hold", job=job)
    tell_of(run, batch, {"outcome": "interrupted", "cause": "preempted"})
    slurm.run("scontrol", "release", batch.job_id)
    wait_for(lambda: slurm.state(str(batch.job_id)) == "FAILED")
    assert [end[0] for end in ends(run)] == ["interrupted", "failed"]
    error = attempts(run)[-1].data["error"]
    assert error.startswith("gave up after 2 attempts in a row without progress at step 0 (pre")
    assert error in said(batch)


def test_a_killed_run_is_started_again_in_its_place_and_a_stopped_one_later(
    slurm: Cluster, tmp_path: Path
) -> None:
    run = run_of(tmp_path)
    batch = submit(slurm, [run])
    wait_for(lambda: len(list(run.metrics())) > 2)
    (process,) = working(run.path)
    process.kill()
    wait_for(lambda: len(attempts(run)) == 2 and len(list(run.metrics())) > MIDDLE)
    with still(run.path):
        slurm.run("scancel", "--signal=TERM", batch.job_id)  # as before some preemptions
        wait_for(lambda: "got SIGTERM" in said(batch))
    slurm.hurry(str(batch.job_id))
    wait_till_done(slurm, batch)
    assert [end[:2] for end in ends(run)] == [
        ("interrupted", "lost"), ("interrupted", "stopped"), ("done", ""),
    ]  # fmt: skip


def test_a_job_leaves_a_node_that_its_run_was_lost_with_twice(
    slurm: Cluster, tmp_path: Path
) -> None:
    run = run_of(tmp_path)
    site = Profile(time=20, warning=30, sbatch={"hold": True})
    outputs, code = run.path.parent.parent, snapshot(tmp_path / "code")
    works, job = [Work(run.path)], Job(retries=9)
    (batch,) = slurm_launcher.submit(works, job, site, outputs, "one", snapshot=code)
    tell_of(run, batch, {"nodes": ["node1"]})  # never ended, twice: a bad node
    slurm.run("scontrol", "release", batch.job_id)
    wait_for(lambda: "start 0 of job" in said(batch))
    if "on node1" in said(batch):
        wait_for(lambda: len(batches(outputs)) == 2 and batches(outputs)[1].job_id is not None)
        successor = str(batches(outputs)[1].job_id)
        slurm.run("scontrol", "release", successor)
        wait_for(lambda: slurm.state(successor) == "COMPLETED")
        assert attempts(run)[-1].data["job"] == successor
    else:
        wait_for(lambda: slurm.state(str(batch.job_id)) == "COMPLETED")
    assert attempts(run)[-1].data["nodes"] == ["node2"]
    assert ends(run)[-1][0] == "done"


def test_where_every_node_is_bad_a_job_goes_on_where_it_is(slurm: Cluster, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    outputs, code = run.path.parent.parent, snapshot(tmp_path / "code")
    slurm.run("scontrol", "update", "partition=main", "state=down")
    site = Profile(time=20, warning=30)
    works, job = [Work(run.path)], Job(retries=9)
    (batch,) = slurm_launcher.submit(works, job, site, outputs, "one", snapshot=code)
    place = {"host": "elsewhere", "pid": 1, "job": batch.job_id, "reached": [0, 0, 0]}
    for number in (1, 2, 3, 4):  # never ended, twice on each
        lost = place | {"restart": number - 5, "nodes": [f"node{number % 2 + 1}"]}
        write_json(run.path / "attempts" / f"{number:04d}.json", lost)
    slurm.run("scontrol", "update", "partition=main", "state=up")
    wait_for(lambda: slurm.state(str(batch.job_id)) == "COMPLETED")
    assert "no successor could be submitted: sbatch refuses the jobs" in said(batch)
    assert "it goes on here" in said(batch)
    assert len(batches(outputs)) == 1
    assert ends(run)[-1][0] == "done"


def test_run_sbatch_starts_one_run_by_hand(
    slurm: Cluster, tmp_path: Path, undisturbed: RunFolder
) -> None:
    run, log = run_of(tmp_path), tmp_path / "by-hand.log"
    words = ("sbatch", "--parsable", "--mem=2G", "--cpus-per-task=1", f"--output={log}")
    start = ("env", "--chdir", ROOT, f"PYTHON={sys.executable}", *words, "slurm/run.sbatch")
    job = slurm.run(*start, run.path)
    wait_for(lambda: len(list(run.metrics())) > MIDDLE)
    with still(run.path):
        slurm.run("scancel", "--signal=USR2", job)  # as before its end
    slurm.hurry(job)
    wait_for(lambda: slurm.state(job) == "COMPLETED")
    goes_on_where_it_stopped(run)
    assert weights(run) == weights(undisturbed)
    assert figures(run) == figures(undisturbed)


def test_a_batch_that_is_gone_is_said(slurm: Cluster, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    batch = submit(slurm, [run], "--hold")
    log = tmp_path / "gone.log"
    slurm.run("scontrol", "update", f"jobid={batch.job_id}", f"stdout={log}")
    (batch.folder / "batch.json").unlink()
    slurm.run("scontrol", "release", batch.job_id)
    wait_for(lambda: slurm.state(str(batch.job_id)) == "FAILED")
    assert "batch.json: cannot be read" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not attempts(run)
    assert json.loads((run.path / "job.json").read_text())
