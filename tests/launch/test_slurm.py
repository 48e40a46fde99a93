"""Submission: chunks, limits, and no job twice or unknown however it is cut off."""

import fcntl
import io
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.claim import claim
from harness.config import Job
from harness.errors import UnreachableError, UserError
from harness.files import write_json
from harness.launch import slurm, squeue
from harness.launch.batch import Batch, batches, read_batch
from harness.launch.processes import Work
from harness.launch.profile import Profile
from harness.record import RunFolder
from tests.launch.fake_slurm import FakeSlurm
from tests.tiny import ROOT, wait_for


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def works(outputs: Path, count: int) -> list[Work]:
    found = [Work(outputs / "runs" / f"{number:016x}", ("e",)) for number in range(count)]
    for work in found:
        (work.run_dir / "attempts").mkdir(parents=True, exist_ok=True)
        write_json(work.run_dir / "spec.json", {})
    return found


def submit(outputs: Path, todo: Sequence[Work], **profile: Any) -> list[Batch]:
    site = Profile.model_validate({"time": 60} | profile)
    return slurm.submit(todo, Job(), site, outputs, "an ablation", snapshot=Path("/code"))


def runs(found: Sequence[Batch]) -> list[str]:
    return [w.run_dir.name for batch in found for element in batch.elements for w in element]


def submit_and_be_killed(fake: FakeSlurm, outputs: Path, how: str) -> None:
    """A process submits three runs and is killed when sbatch has begun."""
    fake.how(how)
    code = (
        "import sys; from pathlib import Path; from tests.launch.test_slurm import submit, works\n"
        "outputs = Path(sys.argv[1]); submit(outputs, works(outputs, 3))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(outputs)], cwd=ROOT)
    wait_for(fake.arrived)
    process.kill()
    process.wait()


def test_works_are_dealt_out(outputs: Path) -> None:
    todo = works(outputs, 7)
    assert [len(e) for e in slurm.deal(todo, 1, 100)] == [1] * 7
    assert [len(e) for e in slurm.deal(todo, 3, 100)] == [3, 2, 2]
    assert [len(e) for e in slurm.deal(todo, 1, 2)] == [4, 3]
    assert [e[0] for e in slurm.deal(todo, 1, 2)] == todo[:2]  # the first ones first
    assert slurm.deal(todo, 1, 0) == []
    assert sorted(w.run_dir for e in slurm.deal(todo, 2, 3) for w in e) == [w.run_dir for w in todo]


def test_arrays_are_cut_at_the_clusters_size(fake: FakeSlurm, outputs: Path) -> None:
    fake.size(3)
    found = submit(outputs, works(outputs, 8), parallel=6)
    assert [len(batch.elements) for batch in found] == [3, 3, 2]
    assert [batch.parameters["array_parallelism"] for batch in found] == [2, 2, 2]
    assert [batch.job_id for batch in found] == ["100", "101", "102"]
    assert len({batch.name for batch in found}) == 3
    assert found[0].element_id(2) == "100_2"
    held = squeue.queue(outputs)
    assert sorted(held) == sorted(runs(found))
    assert str(held[runs(found)[0]]) == "job 100_0 is pending (Priority)"
    assert submit(outputs, works(outputs, 8)) == []  # nothing is submitted twice
    assert len(fake.jobs()) == 8


def test_fewer_at_a_time_than_arrays_makes_longer_jobs(fake: FakeSlurm, outputs: Path) -> None:
    fake.size(3)
    found = submit(outputs, works(outputs, 8), parallel=1)
    assert [[len(e) for e in batch.elements] for batch in found] == [[3, 3, 2]]


def test_all_is_submitted_where_few_jobs_may_be(fake: FakeSlurm, outputs: Path) -> None:
    fake.how("limit5")
    found = submit(outputs, works(outputs, 30))
    assert sorted(runs(found)) == [work.run_dir.name for work in works(outputs, 30)]
    assert len(fake.jobs()) <= 5
    assert len(list((outputs / "slurm").glob("*/batch.json"))) == len(found)
    fake.how("limit0")
    with pytest.raises(UnreachableError, match="takes no job now: QOSMaxSubmitJob"):
        submit(outputs, works(outputs, 31))
    fake.how("full")
    with pytest.raises(UnreachableError, match="takes no job now: Slurm temporarily unable"):
        submit(outputs, works(outputs, 31))
    fake.how("policy")
    with pytest.raises(UserError, match=r"refuses the jobs: .*time limits") as refused:
        submit(outputs, works(outputs, 31))  # more room would not help
    assert not isinstance(refused.value, UnreachableError)
    fake.how("")
    assert len(runs(submit(outputs, works(outputs, 31), max_jobs=1))) == 1


def test_a_job_whose_sbatch_was_killed_is_found(fake: FakeSlurm, outputs: Path) -> None:
    fake.how("killed")
    with pytest.raises(UnreachableError, match="ended without a word"):
        submit(outputs, works(outputs, 2))
    fake.how("")
    assert submit(outputs, works(outputs, 2)) == []
    assert [batch.job_id for batch in batches(outputs)] == ["100"]


def test_waiting_for_another_submission_is_said(
    fake: FakeSlurm, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", said := io.StringIO())
    (outputs / "slurm").mkdir(parents=True)
    with (outputs / "slurm" / "submit.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        second = threading.Thread(target=submit, args=(outputs, works(outputs, 1)))
        second.start()
        wait_for(lambda: "another command is submitting" in said.getvalue())
        assert second.is_alive()
    second.join()
    assert len(fake.jobs()) == 1


def test_a_plain_job_where_there_is_one_element(fake: FakeSlurm, outputs: Path) -> None:
    (batch,) = submit(outputs, works(outputs, 4), runs_per_job=4, at_once=2)
    assert (batch.element_id(0), batch.at_once, len(batch.elements[0])) == ("100", 2, 4)
    script = (batch.folder / "100_submission.sh").read_text()
    assert "--array" not in script
    assert "SBATCH --cpus-per-task=2\n" in script


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wait-before", "wait-after"])
def test_killed_in_sbatch_no_job_is_twice_or_unknown(
    fake: FakeSlurm, outputs: Path, how: str
) -> None:
    submit_and_be_killed(fake, outputs, how)
    (batch,) = batches(outputs)
    assert batch.job_id is None
    again: list[list[Batch]] = []
    second = threading.Thread(target=lambda: again.append(submit(outputs, works(outputs, 4))))
    fake.how("")
    second.start()
    second.join(0.5)
    assert second.is_alive()  # it waits for the sbatch that is in flight
    assert not batch.abandoned
    fake.go()
    second.join()
    assert batch.job_id == "100"
    assert [runs(found) for found in again] == [["0000000000000003"]]
    assert [number for number, _, _ in fake.jobs()] == ["100"] * 3 + ["101"]
    assert sorted(squeue.queue(outputs)) == [work.run_dir.name for work in works(outputs, 4)]


def test_killed_before_sbatch_the_batch_is_given_up(fake: FakeSlurm, outputs: Path) -> None:
    (first,) = submit(outputs, works(outputs, 2))
    (fake.folder / "jobs").write_text("")
    (first.folder / "job_id").unlink()  # as if sbatch had never been reached
    fake.how("away")
    with pytest.raises(UnreachableError, match="give the same command again"):
        submit(outputs, works(outputs, 2))
    assert not first.abandoned  # nobody could know
    fake.how("")
    (second,) = submit(outputs, works(outputs, 2))
    assert first.abandoned
    assert second.job_id == "100"
    (second.folder / "job_id").unlink()
    slurm.reconcile(outputs)
    assert second.job_id == "100"
    with pytest.raises(UserError):  # one that waited for the lock meanwhile does not submit it
        slurm._sbatch(read_batch(first.folder))
    assert len(fake.jobs()) == 2


def test_an_element_lets_go_of_what_it_has_done(fake: FakeSlurm, outputs: Path) -> None:
    todo = works(outputs, 3)
    (batch,) = submit(outputs, todo, runs_per_job=3)
    held = claim(RunFolder(todo[0].run_dir), job=batch.element_id(0), restart=0, nodes=[])
    assert held is not None
    assert len(squeue.queue(outputs)) == 3
    held.end("failed", "no")
    assert todo[0].run_dir.name not in squeue.queue(outputs)
    later = claim(RunFolder(todo[0].run_dir), job="7")
    assert later is not None
    later.end("interrupted")  # which is no word of the first job's
    assert todo[0].run_dir.name not in squeue.queue(outputs)
    batch.cancel(todo[1].run_dir.name)
    assert list(squeue.queue(outputs)) == [todo[2].run_dir.name]
    (more,) = submit(outputs, todo)  # the failed and the cancelled one
    assert len(more.elements) == 2


def test_without_slurm_the_message_says_so(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="is not on PATH: --launcher slurm needs"):
        submit(outputs, works(outputs, 1))


@pytest.mark.parametrize("name", ["50%", "a\\b", "a\nb"])
def test_folders_that_slurm_would_misread(fake: FakeSlurm, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="choose another --outputs"):
        submit(tmp_path / name, works(tmp_path / name, 1))
    assert fake.jobs() == []
