"""The inline launcher: one run after the other on this machine, with nothing else needed."""

from collections.abc import Sequence
from pathlib import Path

from harness.config import Job
from harness.launch import processes


def launch(run_dirs: Sequence[Path], job: Job) -> None:
    """Work on every run folder in turn; a run that was lost is started again `job.retries` times.

    How each ended stands in its folder.
    """
    for run_dir in run_dirs:
        for _ in range(job.retries + 1):
            started = processes.start(run_dir, job.ranks, job.cpus)
            if processes.wait(started) not in processes.WORTH_A_RETRY:
                break
