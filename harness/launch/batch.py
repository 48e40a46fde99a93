"""One submission to Slurm and what it stands for, as files: which works each of its elements does.

    <outputs>/slurm/<batch_id>/
        batch.json          what was submitted, frozen before sbatch is called
        job_id              Slurm's id of the job, written after sbatch or by the job's first start
        abandoned           sbatch is known not to have taken place
        cancelled/<run_id>  this run was taken out: it is not to be started (again)

A batch is one call of sbatch: an array of several elements, or a plain job where there is one. The
id is in the job's name, so that a job whose id was never written down is still known as ours.
"""

import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import FORMAT, Json, read_json, write_atomic, write_json
from harness.launch.processes import Work


@dataclass(frozen=True)
class Batch:
    """What one call of sbatch submitted."""

    folder: Path
    name: str  # of the job in the queue; its end is the batch's id
    ablation: str  # name of the ablation's record
    created: float  # when batch.json was written, seconds since the epoch
    snapshot: Path  # the copy of the code that its jobs run
    job: Json  # `config.Job`
    parameters: Json  # what is asked of sbatch, in submitit's names
    profile: Json  # the site's, that it was submitted with
    python: list[str]  # the command that starts Python in its jobs
    at_once: int  # how many works of an element run at a time
    elements: list[list[Work]]  # the works of each, in order
    follows: list[str]  # the elements that it goes on from, the first one first: Slurm's ids

    @property
    def batch_id(self) -> str:
        """12 hex digits."""
        return self.folder.name

    @property
    def outputs(self) -> Path:
        return self.folder.parent.parent

    @property
    def job_id(self) -> str | None:
        """Slurm's id of the job, None while nobody has written it down."""
        try:
            return (self.folder / "job_id").read_text().strip() or None
        except OSError:
            return None

    def set_job_id(self, job_id: str) -> None:
        """Write down Slurm's id of the job."""
        write_atomic(self.folder / "job_id", f"{job_id}\n")

    @property
    def abandoned(self) -> bool:
        """Its sbatch is known not to have taken place."""
        return (self.folder / "abandoned").exists()

    def abandon(self) -> None:
        """Write down that its sbatch has not taken place."""
        write_atomic(self.folder / "abandoned", "")

    def cancelled(self, run_id: str) -> bool:
        """This run was taken out of the batch."""
        return (self.folder / "cancelled" / run_id).exists()

    def cancel(self, run_id: str) -> None:
        """Take a run out of the batch: no element starts it from now on."""
        write_atomic(self.folder / "cancelled" / run_id, "")

    def element_id(self, index: int) -> str | None:
        """Slurm's id of an element, `123_4`, or `123` of a plain job; None while it is unknown."""
        job_id = self.job_id
        return job_id and self.element_of(job_id, index)

    def log(self, element_id: str) -> Path:
        """What an element's first task prints, as submitit names it; there once it has started."""
        return self.folder / f"{element_id}_0_log.out"

    def element_of(self, job_id: str, index: int) -> str:
        """The same of a job whose id is known."""
        return f"{job_id}_{index}" if len(self.elements) > 1 else job_id


_FIELDS = [field.name for field in fields(Batch) if field.name != "folder"]


def new_batch_id() -> str:
    """12 hex digits, never given out before."""
    return secrets.token_hex(6)


def job_name(ablation: str, batch_id: str) -> str:
    """`<20 characters of the ablation's name>-<batch id>`, safe in a shell and in squeue."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", ablation)[:20].strip("-") or "resolute"
    return f"{stem}-{batch_id}"


def write_batch(
    outputs: Path,
    *,
    ablation: str,
    snapshot: Path,
    job: Json,
    parameters: Json,
    elements: Sequence[Sequence[Work]],
    at_once: int,
    profile: Json,
    python: Sequence[str],
    batch_id: str | None = None,
    follows: Sequence[str] = (),
) -> Batch:
    """Freeze a batch; call it before sbatch, so that no job is ever without its batch.

    Args:
        job: `config.Job` as JSON. parameters: what is asked of sbatch, in submitit's names.
        python: the command that starts Python in the job.
        batch_id: of `new_batch_id`; None: a new one.
        follows: of a successor, the elements whose work it goes on with: those that the one
            before followed, and that one itself (`[*batch.follows, batch.element_id(index)]`).
            Attempts without progress are counted over all of them.
    """
    batch_id = batch_id or new_batch_id()
    facts: dict[str, Any] = {
        "format": FORMAT,
        "batch_id": batch_id,
        "name": job_name(ablation, batch_id),
        "ablation": ablation,
        "created": time.time(),
        "snapshot": str(snapshot),
        "job": job,
        "parameters": parameters,
        "profile": profile,
        "python": list(python),
        "at_once": at_once,
        "elements": [[_entry(outputs, work) for work in element] for element in elements],
        "follows": list(follows),
    }
    folder = outputs / "slurm" / batch_id
    write_json(folder / "batch.json", facts)
    return read_batch(folder)


def read_batch(folder: Path) -> Batch:
    """The batch that was written into a folder.

    Raises:
        UserError: its batch.json is missing or damaged, or is of another folder.
    """
    facts = read_json(folder / "batch.json", needs=("batch_id", *_FIELDS))
    if facts["batch_id"] != folder.name:
        raise UserError(
            f"{folder}: is not the folder of batch {facts['batch_id']}; give it that name again"
        )
    outputs = folder.parent.parent
    read = {
        "snapshot": Path(facts["snapshot"]),
        "elements": [[_work(outputs, entry) for entry in one] for one in facts["elements"]],
    }
    return Batch(folder, **{name: facts[name] for name in _FIELDS} | read)


def _entry(outputs: Path, work: Work) -> Json:
    return {
        "run": os.path.relpath(work.run_dir, outputs),
        "evaluations": list(work.evaluations),
        "until": work.until,
    }


def _work(outputs: Path, entry: Json) -> Work:
    return Work(outputs / entry["run"], tuple(entry["evaluations"]), entry["until"])


def batches(outputs: Path) -> list[Batch]:
    """All batches ever submitted from an outputs folder, oldest first.

    Raises:
        UserError: a batch.json is damaged.
    """
    found = []
    for file in (outputs / "slurm").glob("*/batch.json"):
        try:
            found.append(read_batch(file.parent))
        except UserError:
            if file.exists():  # else sbatch has refused it meanwhile
                raise
    return sorted(found, key=lambda batch: (batch.created, batch.batch_id))
