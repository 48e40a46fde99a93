"""What is done with runs that Slurm holds: take them out of the queue, find their logs."""

from collections.abc import Sequence
from pathlib import Path

from harness.launch import squeue
from harness.launch.batch import batches
from harness.record import RunFolder


def cancel(outputs: Path, run_ids: Sequence[str]) -> list[str]:
    """Take runs out of their jobs; a job with nothing else to do is ended.

    Returns:
        The ids of the runs that a job held.

    Raises:
        UnreachableError: Slurm does not answer; what it was to end, it still holds.
    """
    chosen, ending, found = set(run_ids), [], []
    known = {batch.name: batch for batch in batches(outputs) if batch.job_id or not batch.abandoned}
    for row in squeue.rows(known.values()) if known else []:
        batch = known[row.name]
        element_id = batch.element_of(row.job_id, row.index)
        left = [w for w in batch.elements[row.index] if not squeue.is_over(w, element_id)]
        hit = [work for work in left if work.run_dir.name in chosen]
        if not row.active or not hit:
            continue
        found += [work.run_dir.name for work in hit]
        for work in hit:
            batch.cancel(work.run_dir.name)
        if all(batch.cancelled(work.run_dir.name) for work in left):
            ending.append(element_id)  # else the job itself stops what is cancelled
    squeue.scancel(ending)
    return sorted(set(found))


def logs(outputs: Path, run_id: str) -> list[Path]:
    """Where the newest job of a run and the run itself print, as far as there is anything."""
    found: list[Path] = []
    for batch in batches(outputs):
        for index, element in enumerate(batch.elements):
            if run_id in (work.run_dir.name for work in element) and batch.job_id:
                found = sorted(batch.folder.glob(f"{batch.element_id(index)}_*_log.out"))
    own = RunFolder(outputs / "runs" / run_id).log_file
    return [file for file in (*found, own) if file.exists()]
