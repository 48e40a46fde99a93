"""What runs inside a Slurm job: every task of it is one call of `work`.

A job with one task works on several runs at once and starts all ranks of each; of a job with
several tasks each is one rank, and task 0 leads. SIGUSR2 (the time limit is near, or the job is
preempted) and SIGTERM are handed on to the runs, which write their checkpoints; then what is left
is put into the queue again. How the runs fare stands in their folders, and nowhere else.
"""

import os
import sys
import time
from pathlib import Path

from harness.allocation import JOB_ENDS, JOB_WARNING, allocation
from harness.claim import LAUNCHER
from harness.errors import UserError
from harness.launch import packed, scontrol, spread
from harness.launch.batch import read_batch
from harness.launch.children import Signals
from harness.launch.element import Element
from harness.launch.processes import BAD_INPUT, DONE
from harness.retries import SLURM_JOB


def work(batch_folder: str, index: int) -> None:
    """Do the works of element `index` of a batch, as one of its job's tasks.

    It returns when all is done, else it ends the process: with 1 where something has failed, 2
    where the batch or the job is not what it should be, 75 where the job goes on later.
    """
    signals = Signals()
    try:
        element = _element(Path(batch_folder), index)
        _prepare(element)
        if element.here.tasks == 1:
            status = packed.work(element, signals)
        elif element.here.rank == 0:
            status = spread.lead(element, signals)
        else:
            status = spread.follow(element, signals)
    except (UserError, OSError) as error:
        print(error, flush=True)
        status = BAD_INPUT
    if status != DONE:
        sys.stdout.flush()
        sys.exit(status)


def _element(folder: Path, index: int) -> Element:
    batch, here = read_batch(folder), allocation()
    if here is None:
        raise UserError(f"{folder}: is worked on inside a Slurm job only; use harness.sweep")
    if not 0 <= index < len(batch.elements):
        raise UserError(f"{folder}: has {len(batch.elements)} elements, and no number {index}")
    return Element(batch, index, here)


def _prepare(element: Element) -> None:
    """Write down the job's id where sbatch's caller could not, and set what the runs inherit."""
    here, batch = element.here, element.batch
    print(f"batch {batch.batch_id}, element {element.index}, start {here.restart} of job "
         f"{here.job}, task {here.rank} of {here.tasks} on {here.node}", flush=True)  # fmt: skip
    os.environ[LAUNCHER] = f"{SLURM_JOB} {here.job}"
    os.environ[JOB_WARNING] = str(element.warning)
    os.environ.pop(JOB_ENDS, None)
    if here.rank > 0:
        return
    if (seconds := scontrol.seconds_left(here.job)) is not None:
        os.environ[JOB_ENDS] = str(time.time() + seconds)
    if batch.job_id is None:
        try:
            batch.set_job_id(here.job.partition("_")[0])
        except OSError as error:
            print(f"the job's id could not be written down: {error}", flush=True)
