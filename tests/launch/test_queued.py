"""The sweep's side of Slurm, with commands named as Slurm's: what is submitted again, and when."""

import io
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness import queued
from harness.ablation import read_ablation
from harness.claim import attempts, claim, reached, this_host
from harness.config import Job
from harness.errors import UserError
from harness.files import write_json
from harness.grid import expand
from harness.launch.batch import batches
from harness.launch.profile import read_profile
from harness.options import parse
from harness.plan import Plan
from harness.record import RunFolder, prepare
from harness.retries import cause
from tests.launch.fake_slurm import FakeSlurm
from tests.tiny import Write, wait_for


class Sweep:
    """The steps of the command over the tiny ablation."""

    def __init__(self, tiny: Path, profile: Path, outputs: Path, *changes: str) -> None:
        words = [tiny, "--launcher", "slurm", "--profile", profile, "--outputs", outputs, *changes]
        self.options = parse([str(word) for word in words], None)
        self.profile, self.outputs = read_profile(profile), outputs
        self.grid = expand(read_ablation(tiny, tuple(self.options.changes)))
        self.said = io.StringIO()
        self.console = Console(file=self.said, width=500)

    def plan(self) -> Plan:
        return queued.plan_with_queue(self.grid, self.outputs)

    def submit(self) -> int:
        """How many runs were submitted."""
        plan = self.plan()
        return len(queued._submit(plan.startable(False), plan, self.options, self.profile,
                                  self.console)[0])  # fmt: skip


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def sweep(tiny: Path, tmp_path: Path, write: Write) -> Sweep:
    return Sweep(tiny, write("site.yaml", "time: 60\n"), tmp_path / "outputs", "job.retries=1")


@pytest.mark.parametrize("option", ["--logs", "--cancel", "--only"])
def test_an_empty_pattern_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["x.yaml", "--launcher", "slurm", "--profile", "p.yaml", option, ""], None)
    assert f"{option} '': needs a pattern" in capsys.readouterr().err


def test_jobs_that_never_begin_with_a_run_are_submitted_so_many_times(
    fake: FakeSlurm, sweep: Sweep
) -> None:
    for _ in range(2):
        assert sweep.submit() == 2
        for index in range(2):
            newest = batches(sweep.outputs)[-1]
            (newest.folder / f"{newest.element_id(index)}_0_log.out").touch()
        assert [run.state for run in sweep.plan().runs] == ["queued", "queued"]
        fake.forget()
    assert [run.state for run in sweep.plan().runs] == ["failed", "failed"]
    run = sweep.plan().runs[0]
    assert "2 jobs in a row ended before they began with it; see" in run.reason
    assert len(sweep.plan().startable(retry_failed=True)) == 2
    later = {"host": "h", "pid": 1, "started": time.time(), "outcome": "interrupted"}
    write_json(run.folder.path / "attempts" / "0001.json", later)
    assert sweep.plan().runs[0].state == "new"  # somebody has begun with it since


def test_what_a_job_will_not_do_is_said(fake: FakeSlurm, sweep: Sweep) -> None:
    plan = sweep.plan()
    asked = plan.runs[0].evaluations
    asked.pop(next(iter(asked)))  # submitted before the ablation asked for it
    plan.runs[0].evaluation_states.pop(next(iter(plan.runs[0].evaluation_states)))
    queued._submit(plan.runs, plan, sweep.options, sweep.profile, sweep.console)
    assert [run.reason for run in sweep.plan().runs] == [
        "job 100_0 is pending (Priority); 1 more evaluation when it has ended",
        "job 100_1 is pending (Priority)",
    ]


def lost(folder: RunFolder, node: str, started: float) -> None:
    """Two starts of a job that a node took with it."""
    for number in (1, 2):
        data = {"host": "h", "pid": 1, "job": "7", "restart": number, "nodes": [node]}
        file = folder.path / "attempts" / f"{number:04d}.json"
        write_json(file, data | {"started": started})


def test_bad_nodes_are_avoided_for_a_day_and_where_there_are_others(
    fake: FakeSlurm, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.claim.SILENCE", -1.0)  # nobody else is at work
    first, second = (run.folder for run in sweep.plan().runs)
    lost(first, "n1", time.time() - 2 * 86_400)
    lost(second, "n2", time.time())
    assert sweep.submit() == 2
    (batch,) = batches(sweep.outputs)
    assert batch.parameters["exclude"] == "n2"
    fake.forget()
    fake.how("few-nodes")
    assert sweep.submit() == 2
    assert "exclude" not in batches(sweep.outputs)[-1].parameters
    assert "with these nodes, then" in sweep.said.getvalue()


def test_a_job_that_slurm_killed_for_memory_says_nothing_of_its_node(
    fake: FakeSlurm, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor was killed as well: only slurmstepd has said why."""
    monkeypatch.setattr("harness.claim.SILENCE", -1.0)  # nobody else is at work
    for number in (1, 2):
        assert sweep.submit() == 2
        batch = batches(sweep.outputs)[-1]
        for index, run in enumerate(sweep.plan().runs):
            job = str(batch.element_id(index))
            data = {"host": "h", "pid": 1, "job": job, "restart": 0, "nodes": ["n1"],
                    "launcher": f"slurm job {job}", "started": time.time()}  # fmt: skip
            write_json(run.folder.path / "attempts" / f"{number:04d}.json", data)
            batch.log(job).write_text(f"slurmstepd: error: StepId={job} exceeded memory limit\n")
        fake.forget()
    plan = sweep.plan()
    assert "took more memory than it had asked for" in plan.runs[0].reason
    assert {cause(one.data) for run in plan.runs for one in attempts(run.folder)} == {
        "out of memory"
    }
    queued._submit(plan.runs, plan, sweep.options, sweep.profile, sweep.console)
    assert "exclude" not in batches(sweep.outputs)[-1].parameters


def test_what_is_left_of_an_array_is_none_of_its_elements(fake: FakeSlurm, sweep: Sweep) -> None:
    """A row without an index, where its elements were cancelled one by one."""
    assert sweep.submit() == 2
    (batch,) = batches(sweep.outputs)
    (fake.folder / "jobs").write_text(f"100 {batch.name} N/A\n")
    assert [run.state for run in sweep.plan().runs] == ["new", "new"]


def test_a_node_with_jobs_at_work_is_not_a_bad_one(fake: FakeSlurm, sweep: Sweep) -> None:
    for number, run in enumerate(sweep.plan().runs):
        prepare(run.folder, run.training, run.group_id, run.seed, Job(), run.evaluations)
        place = {"host": this_host(), "pid": os.getpid(), "nodes": ["n1"], "job": f"9_{number}"}
        held = claim(run.folder)
        assert held is not None
        held.data |= place
        write_json(held.file, held.data)
    queued._submit(sweep.plan().runs, sweep.plan(), sweep.options, sweep.profile, sweep.console)
    assert "without" not in sweep.said.getvalue()
    assert all("exclude" not in batch.parameters for batch in batches(sweep.outputs))


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a watch slept; to it, each takes no time."""
    passed: list[float] = []
    clock = SimpleNamespace(
        time=time.time,
        monotonic=lambda: sum(passed),
        sleep=lambda seconds: (time.sleep(0.05), passed.append(seconds)),
    )
    monkeypatch.setattr(queued, "time", clock)
    return passed


def watching(sweep: Sweep) -> threading.Thread:
    watch = threading.Thread(
        target=queued._watch, args=(sweep.plan(), sweep.options, sweep.profile, sweep.console)
    )
    watch.start()
    return watch


@pytest.mark.parametrize("watched", [True, False])
def test_what_is_cancelled_under_the_watch_stays_so_and_what_was_before_is_submitted(
    watched: bool, fake: FakeSlurm, sweep: Sweep, passed: list[float]
) -> None:
    """Of a job that was cancelled a moment ago, the run still seems to be at work."""
    assert sweep.submit() == 2
    runs = [run.folder for run in sweep.plan().runs]
    files = [run.path / "attempts" / "0001.json" for run in runs]
    for file in files:
        write_json(file, {"host": "another", "pid": 1})

    def cancel() -> None:
        for batch in batches(sweep.outputs):
            for run in runs:
                batch.cancel(run.run_id)
        fake.forget()

    if not watched:
        cancel()
    watch = watching(sweep)
    wait_for(lambda: len(passed) > 2)
    if watched:
        cancel()
    for file in files:  # silent for long
        os.utime(file, (0, 0))
    wait_for(lambda: not watch.is_alive() or bool(fake.jobs()))
    assert watch.is_alive() is not watched
    for run in runs:
        write_json(run.path / "attempts" / "0002.json",
                   {"host": "h", "pid": 1, "outcome": "failed", "error": "no"})  # fmt: skip
    fake.forget()
    watch.join(60)
    assert not watch.is_alive()


def test_what_gets_on_is_submitted_again_however_often(
    fake: FakeSlurm, sweep: Sweep, passed: list[float]
) -> None:
    """... where two jobs that do not are enough."""
    watch = watching(sweep)
    runs = [run.folder for run in sweep.plan().runs]
    ended = {"host": "h", "pid": 1, "outcome": "interrupted", "cause": "lost"}
    for number in range(1, 7):
        wait_for(
            lambda number=number: (
                sweep.said.getvalue().count("submitted 2 runs") == number or not watch.is_alive()
            )
        )
        if not watch.is_alive():
            break
        for index, run in enumerate(runs):
            batch = batches(sweep.outputs)[-1]
            batch.log(str(batch.element_id(index))).touch()
            data = ended | {"job": batch.element_id(index), "reached": reached(run)}
            write_json(run.path / "attempts" / f"{number:04d}.json", data)
            if number <= 3:
                (run.path / "checkpoints" / f"step-{number:08d}").mkdir(parents=True)
        fake.forget()
    watch.join(60)
    assert not watch.is_alive()
    assert len(batches(sweep.outputs)) == 5  # three that got on, and two that did not


def test_watching_outlasts_a_full_queue(fake: FakeSlurm, sweep: Sweep, passed: list[float]) -> None:
    fake.limit(1)
    fake.foreign()
    watch = watching(sweep)
    wait_for(lambda: len(passed) > 3 or not watch.is_alive())
    assert watch.is_alive()
    assert sweep.said.getvalue().count("there is no room") == 1  # it is not tried all the time
    fake.forget()
    wait_for(lambda: "submitted 2 runs as 1 job" in sweep.said.getvalue())
    for run in sweep.plan().runs:  # its job does both
        write_json(run.folder.path / "attempts" / "0001.json",
                   {"host": "h", "pid": 1, "outcome": "failed", "error": "no"})  # fmt: skip
    fake.forget()
    watch.join(60)
    assert not watch.is_alive()


def test_a_job_that_has_ended_has_logs_and_is_not_cancelled(fake: FakeSlurm, sweep: Sweep) -> None:
    assert sweep.submit() == 2
    chosen = [run.run_id for run in queued._matching(sweep.plan(), "100_1", "--cancel",
                                                      sweep.outputs)]  # fmt: skip
    assert len(chosen) == 1
    fake.forget()
    found = queued._matching(sweep.plan(), "100_1", "--logs", sweep.outputs)
    assert [run.run_id for run in found] == chosen
    assert len(queued._matching(sweep.plan(), "100", "--logs", sweep.outputs)) == 2
    with pytest.raises(UserError, match="--cancel '100' matches none"):
        queued._matching(sweep.plan(), "100", "--cancel", sweep.outputs)
