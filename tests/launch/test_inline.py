"""Runs killed under the inline launcher: started again while they get on, else given up."""

import threading
from pathlib import Path

import pytest

from harness.claim import attempts, last_attempt, reached
from harness.config import Job
from harness.errors import UserError
from harness.launch.inline import launch
from harness.launch.processes import Work
from harness.record import RunFolder
from tests.tiny import prepared, wait_for
from tests.working import working


def ends(run: RunFolder) -> list[tuple[object, object]]:
    return [(one.data.get("outcome"), one.data.get("cause")) for one in attempts(run)]


def kill(run: RunFolder) -> None:
    """Kill the process at work on a run, and wait until it is known to be gone."""
    (process,) = working(run.path)
    process.kill()
    wait_for(lambda: not process.is_running())


@pytest.mark.slow
def test_a_run_that_gets_on_may_be_lost_more_often_than_there_are_retries(
    tiny: Path, tmp_path: Path
) -> None:
    run = prepared(tmp_path, tiny, "train.images=32000", "job.checkpoint_every=20")
    launcher = threading.Thread(target=launch, args=([Work(run.path)], Job(retries=0)))
    launcher.start()
    for count in (1, 2):
        wait_for(lambda count=count: len(attempts(run)) == count)  # type: ignore[misc]
        before = attempts(run)[-1].data["reached"]
        wait_for(lambda before=before: reached(run) > before)  # type: ignore[misc]
        kill(run)
    launcher.join()
    assert ends(run) == [("interrupted", "lost"), ("interrupted", "lost"), ("done", "")]
    assert run.done() is not None


@pytest.mark.slow
def test_a_run_that_does_not_get_on_is_given_up_and_the_next_one_begins(
    tiny: Path, tmp_path: Path
) -> None:
    """Killed before it has claimed its folder, which counts as well."""
    run, other = (prepared(tmp_path, tiny, cell=cell) for cell in (0, 2))
    works = [Work(run.path), Work(other.path)]
    launcher = threading.Thread(target=launch, args=(works, Job(retries=1)))
    launcher.start()
    for count in (1, 2):
        wait_for(lambda: len(working(run.path)) == 1)
        kill(run)
        wait_for(lambda count=count: len(attempts(run)) == count)  # type: ignore[misc]
    launcher.join()
    last = last_attempt(run)
    assert last is not None
    assert last.data["outcome"] == "failed"
    assert last.data["error"] == (
        "gave up after 2 attempts in a row without progress at step 0 (lost 2 times)"
    )
    assert other.done() is not None


def test_a_run_over_several_machines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set job\.nodes=1, or choose --launcher ray or slurm"):
        launch([Work(tmp_path)], Job(nodes=2, ranks=2, cpus=2))
