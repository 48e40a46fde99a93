"""The signals that a job gets, and the runs at work in it that they are handed on to."""

import os
import signal
import threading
import time
from collections.abc import Callable

from harness import retries
from harness.allocation import JOB_ENDS, warns_of_the_end
from harness.launch.processes import GRACE, Started

TO_SPARE = 15.0  # seconds before its end by which a job must have put itself into the queue
LOOK = 0.2  # seconds between looks at what the runs do
LOOK_FOR_CANCELLED = 2.0


class Signals:
    """What Slurm has told this task; takes the place of submitit's handlers."""

    def __init__(self) -> None:
        self.came: list[int] = []
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        signal.signal(signal.SIGCONT, signal.SIG_DFL)

    def _note(self, number: int, _: object) -> None:
        self.came.append(number)

    @property
    def first(self) -> int:
        """The first that came, 0 for none."""
        return self.came[0] if self.came else 0

    @property
    def warned(self) -> bool:
        """Slurm has said that the job's time is nearly over, and has not ended the job."""
        return signal.SIGUSR2 in self.came

    def cause(self) -> str:
        """Why the runs are stopped."""
        if not self.warned:
            return retries.STOPPED
        return retries.TIME_LIMIT if warns_of_the_end(time.time()) else retries.PREEMPTED

    def patience(self, warning: float) -> float:
        """Seconds that the runs have for their checkpoints, from when the first came.

        Args:
            warning: seconds before its end at which the job is warned.
        """
        if not self.warned:
            return GRACE
        if self.cause() == retries.TIME_LIMIT:
            return max(5.0, float(os.environ[JOB_ENDS]) - time.time() - TO_SPARE)
        return max(30.0, warning)

    def wait_for_another(self, seconds: float) -> None:
        """Until one more comes, or it is enough."""
        deadline, before = time.monotonic() + seconds, len(self.came)
        while time.monotonic() < deadline and len(self.came) == before:
            time.sleep(LOOK)


class Children:
    """The runs at work here, so that a signal reaches each of them, and none starts after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Started] = {}
        self.why_stopping = ""

    def start(self, run_id: str, begin: Callable[[], Started]) -> Started | None:
        """Start a run; None where all are stopping."""
        with self._lock:
            if self.why_stopping:
                return None
            self._running[run_id] = begin()
            return self._running[run_id]

    def ended(self, run_id: str) -> None:
        with self._lock:
            del self._running[run_id]

    def stop(self, number: int, why: str) -> None:
        """Hand a signal on to all, and let no other start."""
        with self._lock:
            self.why_stopping = why
        self._tell(number, self._names())

    def watch(
        self,
        signals: Signals,
        warning: float,
        cancelled: Callable[[str], bool],
        over: Callable[[], bool],
    ) -> None:
        """Until it is over: hand signals on, end what does not obey, stop what is cancelled.

        Args:
            warning: seconds before its end at which the job is warned.
            cancelled: whether a run is.
        """
        deadline, told, next_look = float("inf"), set[str](), time.monotonic()
        while not over():
            time.sleep(LOOK)
            now = time.monotonic()
            if signals.first and not self.why_stopping:
                name = signal.Signals(signals.first).name
                print(f"got {name}; the runs write their checkpoints", flush=True)
                self.stop(signals.first, signals.cause())
                deadline = now + signals.patience(warning)
            if now > deadline:
                self._tell(signal.SIGKILL, self._names())
            if now > next_look:
                gone = {run_id for run_id in self._names() - told if cancelled(run_id)}
                self._tell(signal.SIGTERM, gone)
                told |= gone
                next_look = now + LOOK_FOR_CANCELLED

    def _names(self) -> set[str]:
        with self._lock:
            return set(self._running)

    def _tell(self, number: int, run_ids: set[str]) -> None:
        with self._lock:
            for run_id in run_ids & self._running.keys():
                for process in self._running[run_id]:
                    process.send_signal(number)
