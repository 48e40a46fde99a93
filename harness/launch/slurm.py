"""The Slurm launcher: what is to be done becomes job arrays, and is left to Slurm.

submitit writes the script and calls sbatch; nothing else of it is used. Where a job stands is
asked of squeue (`harness.launch.squeue`), and how a run ended stands in its folder.

No job is ever twice or unknown, whenever this process is killed: what is to be submitted is
written down before (`batch.json`) under a job name that is unique to it; sbatch runs under a lock
that outlives its caller; and before anything is submitted again, a batch without a job's number is
looked for in the queue by its name, with that lock held.
"""

import contextlib
import fcntl
import io
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from harness.claim import LAUNCHER, PARENT
from harness.config import Job
from harness.errors import UnreachableError, UserError
from harness.facts import data_folder
from harness.launch import squeue
from harness.launch.batch import Batch, batches, job_name, new_batch_id, write_batch
from harness.launch.job_script import PICKLE, pickle_lines, python_words, setup_lines
from harness.launch.processes import Work
from harness.launch.profile import Profile, parameters, runs_at_once
from harness.store_address import VARIABLE

# The last is how a full MaxJobCount is told, after sbatch has tried for two minutes.
LIMITS = ("SubmitJob", "Invalid job array specification", "unable to accept job")


class _LimitError(UserError):
    """More jobs than this user may have."""


class _Executor(SlurmExecutor):
    """submitit's, with sbatch under a lock that is held until it is done, whoever called it."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch.folder, python=shlex.join(batch.python))
        self.asked = batch

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        cleared = [*squeue.foreign(os.environ), PARENT, LAUNCHER, VARIABLE]  # no job asks MLflow
        unset = [word for name in cleared for word in ("-u", name)]
        # Another process may have given the batch up while this one waited for the lock.
        guarded = 'test ! -e "$1" && exec sbatch "$2"'
        words = [str(self.asked.folder / "abandoned"), str(submission_file_path)]
        lock = str(_lock_file(self.asked.outputs, "sbatch"))
        return ["flock", lock, "env", *unset, "sh", "-c", guarded, "sh", *words]


def submit(
    works: Sequence[Work],
    job: Job,
    profile: Profile,
    outputs: Path,
    ablation: str,
    *,
    snapshot: Path,
    excluded: Sequence[str] = (),
) -> list[Batch]:
    """Submit what no job holds yet, as arrays that the cluster takes.

    Where more jobs are needed than may be submitted, a job does several works one after the other;
    works for which there was no room at all are in none of the batches.

    Args:
        ablation: name of its record. snapshot: the folder of the code.
        excluded: nodes that are not to be used.

    Raises:
        UnreachableError: Slurm does not answer, or takes not one job more; what was submitted is
            known to the next call.
        UserError: sbatch refuses the job, or it cannot be asked for.
    """
    for folder in (outputs, snapshot):
        _check_path(folder)
    with _locked(outputs, "submit"):
        _reconcile(outputs)
        held = squeue.queue(outputs)
        wanted = [work for work in works if work.run_dir.name not in held]
        if not wanted:
            return []
        size = squeue.max_array_size()
        free = squeue.room(profile.account, profile.qos)
        caps = [free, profile.max_jobs, profile.parallel and profile.parallel * size]
        most = min([len(wanted), *(cap for cap in caps if cap is not None)])
        setup = setup_lines(profile, snapshot, data_folder())

        def one(elements: list[list[Work]], parallel: int | None) -> Batch:
            batch_id = new_batch_id()
            asked = parameters(profile, job, name=job_name(ablation, batch_id), snapshot=snapshot,
                               setup=setup, parallel=parallel or size,
                               excluded=excluded)  # fmt: skip
            facts: dict[str, Any] = {
                "ablation": ablation, "snapshot": snapshot, "job": job.model_dump(mode="json"),
                "parameters": asked, "elements": elements, "at_once": runs_at_once(profile, job),
                "profile": profile.model_dump(mode="json"),
                "python": python_words(profile, sys.executable),
            }  # fmt: skip
            return _sbatch(write_batch(outputs, batch_id=batch_id, **facts))

        made: list[Batch] = []
        elements = deal(wanted, profile.runs_per_job or profile.at_once, most)
        while elements:
            chunks = -(-len(elements) // size)
            parallel = profile.parallel and max(1, profile.parallel // (len(made) + chunks))
            chunk = elements[:size]
            try:
                made.append(one(chunk, parallel))
            except _LimitError as error:
                if len(chunk) == 1 and not made:
                    raise UnreachableError(f"sbatch takes no job now: {error}") from None
                if len(chunk) == 1:
                    break
                rest = [work for element in elements for work in element]
                elements = deal(rest, 1, len(chunk) // 2)
            else:
                elements = elements[size:]
        return made


def deal(works: Sequence[Work], each: int, most: int) -> list[list[Work]]:
    """Deal works out to at most `most` elements of `each` works, or of more where it must be."""
    count = min(-(-len(works) // each), most)
    return [list(works[index::count]) for index in range(count)]


def succeed(batch: Batch, index: int, excluded: Sequence[str]) -> Batch:
    """Submit a successor of an element, to start when that has ended; called in its job.

    Args:
        excluded: nodes that are not to be used, besides those of the batch.

    Raises:
        UserError: sbatch refuses, or does not answer.
    """
    before = f"afternotok:{batch.element_id(index)}"
    for other in batches(batch.outputs):
        if other.parameters.get("dependency") == before and not other.abandoned:
            return other  # the job was started again since
    works = [w for w in batch.elements[index] if not batch.cancelled(w.run_dir.name)]
    batch_id = new_batch_id()
    nodes = dict.fromkeys([*str(batch.parameters.get("exclude") or "").split(","), *excluded])
    further = batch.parameters.get("additional_parameters", {})
    asked = batch.parameters | {
        "job_name": job_name(batch.ablation, batch_id),
        "dependency": before,
        "exclude": ",".join(filter(None, nodes)) or None,
        # Where the element ends well after all, nothing is left to do.
        "additional_parameters": further | {"kill-on-invalid-dep": "yes"},
    }
    with _locked(batch.outputs, "submit", seconds=30):
        return _sbatch(
            write_batch(
                batch.outputs, batch_id=batch_id, ablation=batch.ablation,
                snapshot=batch.snapshot, job=batch.job, parameters=asked, elements=[works],
                at_once=batch.at_once, profile=batch.profile, python=batch.python,
                follows=[*batch.follows, str(batch.element_id(index))],
            )
        )  # fmt: skip


def _sbatch(batch: Batch) -> Batch:
    """Submit a batch that is written down.

    Raises:
        UnreachableError: whether there is a job will be seen. UserError: there is none.
    """
    from harness.launch import slurm_job

    executor = _Executor(batch)
    setup = [*batch.parameters.get("setup", ()), *pickle_lines(batch.folder)]
    executor.update_parameters(**batch.parameters | {"setup": setup})
    if (count := len(batch.elements)) > 1:
        executor.parameters["map_count"] = count
    for index in range(count):
        called = DelayedSubmission(slurm_job.work, str(batch.folder), index)
        called.set_timeout(batch.parameters["time"], 0)
        called.dump(batch.folder / PICKLE.format(index))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it is in the exception as well
            submitted = executor._submit_command(executor._submitit_command_str)
    except FailedSubmissionError as error:
        raise UnreachableError(f"sbatch: {error}; {squeue.LATER}") from None
    except FailedJobError as error:
        said = " ".join(str(error).replace("sbatch: error: ", "").split())
        if not said:  # a signal may have ended it after the job was taken
            raise UnreachableError(f"sbatch ended without a word; {squeue.LATER}") from None
        full = any(sign in said for sign in LIMITS)
        if not full and any(sign in said for sign in squeue.AWAY):
            raise UnreachableError(f"Slurm does not answer: {said}; {squeue.LATER}") from None
        shutil.rmtree(batch.folder)
        if full:
            raise _LimitError(said) from None
        without = batch.parameters.get("exclude")
        said += f" (without the nodes {without})" if without else ""
        raise UserError(f"sbatch refuses the jobs: {said}; mend the profile or section 'job'"
                        ) from None  # fmt: skip
    batch.set_job_id(submitted.job_id)
    return batch


def reconcile(outputs: Path) -> None:
    """Find the jobs of batches whose submission was cut off, or write down that there are none.

    Raises:
        UnreachableError: Slurm does not answer; nothing is written down.
    """
    if any(batch.job_id is None and not batch.abandoned for batch in batches(outputs)):
        with _locked(outputs, "submit"):  # none is being submitted
            _reconcile(outputs)


def _reconcile(outputs: Path) -> None:
    unknown = [b for b in batches(outputs) if b.job_id is None and not b.abandoned]
    if not unknown:
        return
    with _locked(outputs, "sbatch"):  # an sbatch in flight has ended
        known = {row.name: row.job_id for row in squeue.rows(unknown)}
        if missing := sorted({batch.name for batch in unknown} - set(known)):
            known |= {row.name: row.job_id for row in squeue.accounted(missing)}
        for batch in unknown:
            if batch.name in known:
                batch.set_job_id(known[batch.name])
            else:
                batch.abandon()


def _check_path(folder: Path) -> None:
    """Slurm takes % and \\ in the names of files for more than themselves.

    Raises:
        UserError: the folder has one, or something that cannot stand on one line.
    """
    text = str(folder)
    if "%" in text or "\\" in text or not text.isprintable():
        raise UserError(
            f"{text!r}: Slurm cannot work below a folder with %, \\ or control characters in its "
            "name; choose another --outputs (or another folder for snapshots)"
        )


def _lock_file(outputs: Path, name: str) -> Path:
    return outputs / "slurm" / f"{name}.lock"


@contextlib.contextmanager
def _locked(outputs: Path, name: str, seconds: float | None = None) -> Iterator[None]:
    """Hold one of the two locks, and say so where that means waiting; after so many seconds, go on
    without it."""
    file = _lock_file(outputs, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lock:
        deadline, told = time.monotonic() + (math.inf if seconds is None else seconds), False
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not told:
                print(f"another command is submitting from {outputs}; waiting for it",
                      file=sys.stderr, flush=True)  # fmt: skip
                told = True
            time.sleep(0.1)
        yield
