"""The inline launcher: one run after the other on this machine, with nothing else needed."""

from collections.abc import Sequence

from harness.config import Job
from harness.errors import UserError
from harness.launch import processes
from harness.launch.processes import Work


def launch(works: Sequence[Work], job: Job) -> None:
    """Do every piece of work in turn; a run that was lost is started again `job.retries` times.

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
        for _ in range(job.retries + 1):
            started = processes.start(work, job.ranks, job.cpus)
            if processes.wait(started) not in processes.WORTH_A_RETRY:
                break
