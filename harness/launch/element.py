"""What is left of an array element's works, by their run folders alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from harness import retries
from harness.allocation import Allocation
from harness.claim import attempts, last_attempt, reached
from harness.config import Job
from harness.files import Json
from harness.launch import memory
from harness.launch.batch import Batch
from harness.launch.processes import Work
from harness.record import RunFolder

PATIENCE = 90.0  # seconds that a run is waited for which somebody else seems to be at work on


@dataclass(frozen=True)
class Element:
    """One element of a batch, as the job that works on it sees it."""

    batch: Batch
    index: int
    here: Allocation

    @cached_property
    def works(self) -> list[Work]:
        return self.batch.elements[self.index]

    @cached_property
    def job(self) -> Job:
        return Job(**self.batch.job)

    @cached_property
    def warning(self) -> float:
        """Seconds before its end at which the job is warned."""
        return float(self.batch.parameters.get("signal_delay_s", 90))

    def attempts(self, run: RunFolder) -> list[Json]:
        """Those that this submission made at a run, the current start of the job included."""
        jobs = {self.here.job, *self.batch.follows}
        return [one.data for one in attempts(run) if one.data.get("job") in jobs]

    def left(self, work: Work) -> bool:
        """Whether a work is still to be done; what cannot be done is given up, in its folder."""
        run = RunFolder(work.run_dir)
        if not run.exists() or self.batch.cancelled(run.run_id) or finished(run, work):
            return False
        made = self.attempts(run)
        if made and retries.cause(made[-1]) == "":  # all was tried; an evaluation has failed
            return False
        reason = retries.give_up(made, reached(run), self.job.retries)
        last = last_attempt(run)
        if reason and last is not None and last.data.get("outcome") != "failed":
            theirs = last.data.get("job") not in (self.here.job, *self.batch.follows)
            if theirs or (last.alive and not last.outlived(self.here.__dict__)):
                return False
            last.close("failed", reason, retries.cause(last.data))
            print(f"{run.run_id}: {reason}", flush=True)
        return not reason

    def bad_nodes(self) -> list[str]:
        """Nodes that this submission's runs were lost with again and again."""
        runs = (RunFolder(work.run_dir) for work in self.works)
        gone = (self._gone(run) for run in runs if run.exists())
        return retries.bad_nodes(gone)

    def _gone(self, run: RunFolder) -> list[Json]:
        now = (self.here.job, self.here.restart)
        return [a for a in self.attempts(run) if (a.get("job"), a.get("restart")) != now]

    def why(self, work: Work, stopping: str, killed: int) -> str:
        """Why a run's process is gone, if it did not say so itself.

        Args:
            stopping: why all are stopped, if they are.
            killed: `memory.kills` when it was started.
        """
        if stopping or self.batch.cancelled(work.run_dir.name):
            return stopping or retries.STOPPED
        return retries.OUT_OF_MEMORY if memory.kills() > killed else retries.LOST

    def wait_until_free(self, work: Work, deadline: float, stopping: Callable[[], bool]) -> None:
        """Until nobody else seems to be at work on it; its owner may be gone, unknown to all.

        Args:
            deadline: on the monotonic clock.
        """
        while time.monotonic() < deadline and not stopping():
            last = last_attempt(RunFolder(work.run_dir))
            if last is None or not last.alive:
                return
            time.sleep(1)


def finished(run: RunFolder, work: Work) -> bool:
    """The training and every wanted evaluation are there."""
    wanted = work.evaluations or run.requests()
    return run.done() is not None and all(run.result_file(e).exists() for e in wanted)
