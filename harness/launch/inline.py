"""The inline launcher: one run after the other on this machine, with nothing else needed."""

from collections.abc import Sequence

from harness.config import Job
from harness.launch import processes
from harness.launch.processes import Work


def launch(works: Sequence[Work], job: Job) -> None:
    """Do every piece of work in turn; a run that was lost is started again `job.retries` times.

    How each ended stands in its folder.
    """
    for work in works:
        for _ in range(job.retries + 1):
            started = processes.start(work, job.ranks, job.cpus)
            if processes.wait(started) not in processes.WORTH_A_RETRY:
                break
