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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import FORMAT, Json, read_json, write_atomic, write_json
from harness.launch.processes import Work

NEEDED = ("batch_id", "name", "ablation", "created", "snapshot", "job", "parameters", "at_once",
          "elements", "profile", "python")  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """What one call of sbatch submitted."""

    folder: Path

    @cached_property
    def facts(self) -> Json:
        """The content of batch.json.

        Raises:
            UserError: it is missing or damaged.
        """
        return read_json(self.folder / "batch.json", needs=NEEDED)

    @property
    def outputs(self) -> Path:
        return self.folder.parent.parent

    @property
    def batch_id(self) -> str:
        """12 hex digits."""
        return str(self.facts["batch_id"])

    @property
    def name(self) -> str:
        """The job's name in the queue; its end is the batch's id."""
        return str(self.facts["name"])

    @property
    def ablation(self) -> str:
        """Name of the ablation's record."""
        return str(self.facts["ablation"])

    @property
    def created(self) -> float:
        """When batch.json was written, seconds since the epoch."""
        return float(self.facts["created"])

    @property
    def snapshot(self) -> Path:
        """The copy of the code that its jobs run."""
        return Path(self.facts["snapshot"])

    @property
    def job(self) -> Json:
        """`config.Job` as JSON."""
        return dict(self.facts["job"])

    @property
    def parameters(self) -> Json:
        """What was asked of sbatch, in submitit's names."""
        return dict(self.facts["parameters"])

    @property
    def profile(self) -> Json:
        """The site's profile that it was submitted with."""
        return dict(self.facts["profile"])

    @property
    def python(self) -> list[str]:
        """The command that starts Python in its jobs."""
        return list(self.facts["python"])

    @property
    def follows(self) -> list[str]:
        """The elements that this batch goes on from, the first one first: Slurm's ids."""
        return list(self.facts.get("follows", []))

    @property
    def at_once(self) -> int:
        """How many works of an element run at a time."""
        return int(self.facts["at_once"])

    @cached_property
    def elements(self) -> list[list[Work]]:
        """The works of each element, in order."""
        return [
            [
                Work(self.outputs / entry["run"], tuple(entry["evaluations"]), entry["until"])
                for entry in element
            ]
            for element in self.facts["elements"]
        ]

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

    def element_of(self, job_id: str, index: int) -> str:
        """The same of a job whose id is known."""
        return f"{job_id}_{index}" if len(self.elements) > 1 else job_id


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
        "at_once": at_once,
        "elements": [[_entry(outputs, work) for work in element] for element in elements],
        "profile": profile,
        "python": list(python),
        "follows": list(follows),
    }
    folder = outputs / "slurm" / batch_id
    write_json(folder / "batch.json", facts)
    return Batch(folder)


def _entry(outputs: Path, work: Work) -> Json:
    return {
        "run": os.path.relpath(work.run_dir, outputs),
        "evaluations": list(work.evaluations),
        "until": work.until,
    }


def batches(outputs: Path) -> list[Batch]:
    """All batches ever submitted from an outputs folder, oldest first.

    Raises:
        UserError: a batch.json is damaged.
    """
    found = [Batch(file.parent) for file in (outputs / "slurm").glob("*/batch.json")]
    for batch in found:
        if batch.folder.name != batch.batch_id:
            raise UserError(f"{batch.folder}: is not the folder of batch {batch.batch_id}; "
                            "give it that name again")  # fmt: skip
    return sorted(found, key=lambda batch: (batch.created, batch.batch_id))
