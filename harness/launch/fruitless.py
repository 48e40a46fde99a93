"""Jobs that ended before they began with any run: a module that is missing, a wrong python.

Such a job leaves no attempt in any run folder, so `harness.retries` knows nothing of it. That it
was started at all is known by the file that it prints into.
"""

from collections.abc import Collection
from pathlib import Path

from harness.claim import attempts
from harness.launch.batch import batches
from harness.record import RunFolder


def given_up(outputs: Path, run_ids: Collection[str], retries: int) -> dict[str, str]:
    """Run id -> why it is not to be submitted again: too many such jobs in a row.

    Args:
        run_ids: those in question; no job holds one of them.
        retries: `job.retries`; so many such jobs are forgiven.
    """
    logs: dict[str, list[Path]] = {}
    for batch in batches(outputs):
        for index, element in enumerate(batch.elements):
            asked = {work.run_dir.name for work in element} & {*run_ids}
            element_id = batch.element_id(index)
            log = batch.log(str(element_id))
            if not asked or not log.exists():
                continue
            made = {w.run_dir.name: attempts(RunFolder(w.run_dir)) for w in element}
            began = any(a.data.get("job") == element_id for all_ in made.values() for a in all_)
            for run_id in asked:
                since = any(a.data.get("started", 0) >= batch.created for a in made[run_id])
                if not (began or since or batch.cancelled(run_id)):
                    logs.setdefault(run_id, []).append(log)
    return {
        run_id: f"{len(found)} jobs in a row ended before they began with it; see {found[-1]}"
        for run_id, found in logs.items()
        if len(found) > retries
    }
