"""The inline launcher: one run after the other on this machine, with nothing else needed."""

from collections.abc import Sequence

from harness import retries
from harness.claim import last_attempt
from harness.config import Job
from harness.errors import UserError
from harness.launch import memory, processes
from harness.launch.processes import Work
from harness.launch.settle import given_up, number_of, settle
from harness.record import RunFolder


def launch(works: Sequence[Work], job: Job) -> None:
    """Do every piece of work in turn; a run that was lost is started again (`harness.retries`).

    How each ended stands in its folder.

    Raises:
        UserError: a run is to be spread over machines.
    """
    if job.nodes > 1:
        raise UserError(
            f"--launcher inline works on this machine alone, and job.nodes is {job.nodes}; set "
            "job.nodes=1, or choose --launcher ray or slurm"
        )
    for work in works:
        run = RunFolder(work.run_dir)
        first = number_of(last_attempt(run))
        while _lost(work, job) and not given_up(run, first, job.retries):
            pass


def _lost(work: Work, job: Job) -> bool:
    """One start of a run, to its end: whether it ended before its time, by no fault of its own."""
    before, killed = number_of(last_attempt(RunFolder(work.run_dir))), memory.kills()
    status = processes.wait(processes.start(work, job.ranks, job.cpus))
    unsaid = retries.OUT_OF_MEMORY if memory.kills() > killed else retries.LOST
    try:
        cause = settle(work, job.ranks, before, status, unsaid)
    except OSError as error:  # the disk is full
        print(f"{work.run_dir.name}: {error}", flush=True)
        return False
    return status in processes.WORTH_A_RETRY or cause == retries.OUT_OF_MEMORY
