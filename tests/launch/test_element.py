"""What a job makes of the run folders of its element."""

from pathlib import Path

from harness.allocation import Allocation
from harness.claim import claim, last_attempt
from harness.config import Job
from harness.files import write_json
from harness.launch.batch import write_batch
from harness.launch.element import Element
from harness.launch.processes import Work
from harness.record import RunFolder


def test_another_jobs_attempt_is_not_given_up(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "a")
    write_json(run.spec_file, {})
    work = Work(run.path, ("e",))
    batch = write_batch(
        tmp_path, ablation="x", snapshot=tmp_path, job=Job().model_dump(mode="json"),
        parameters={}, elements=[[work]], at_once=1, profile={}, python=["python"],
    )  # fmt: skip
    element = Element(batch, 0, Allocation("7", 1, "n", ("n",), 0, 1, 0))
    assert element.left(work)
    for job, outcome, cause in (("7", "failed", "error"), ("9", "interrupted", "stopped")):
        held = claim(run, job=job, restart=0)
        assert held is not None
        held.end(outcome, "why", cause)
    assert not element.left(work)
    last = last_attempt(run)
    assert last is not None
    assert last.data["outcome"] == "interrupted"
