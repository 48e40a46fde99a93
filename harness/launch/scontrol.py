"""What a job asks of Slurm about itself: how long it has, to be queued again, and where not to."""

import subprocess
import time

from harness.allocation import seconds_of
from harness.launch.squeue import AWAY

AGAIN = 5.0  # seconds between tries of a controller that cannot be reached


def seconds_left(job: str) -> float | None:
    """Until the job's time is over; None where it has no limit, or Slurm does not say."""
    known, left = _ask("squeue", "-h", "--all", "-j", job, "-o", "%L")
    return seconds_of(left) if known else None


def goes_on(job: str) -> bool:
    """Whether the job is to go on running, as far as Slurm knows, some seconds after SIGTERM."""
    time.sleep(3)
    while True:
        known, state = _ask("squeue", "-h", "--all", "-j", job, "-o", "%T")
        if known:
            return state == "RUNNING"
        if not _unreachable(state):
            return False
        time.sleep(AGAIN)


def requeue(job: str) -> str:
    """Put a running job into the queue again: "" when done, else why that is refused.

    While the controller cannot be reached it is tried again, until the job is killed.
    """
    while True:
        done, said = _ask("scontrol", "requeue", job)
        if done or not _unreachable(said):
            return "" if done else said or "no reason given"
        print(f"Slurm's controller cannot be reached: {said}", flush=True)
        time.sleep(AGAIN)


def exclude(job: str, nodes: str) -> str:
    """Keep a job in the queue off some nodes: "" when done, else why that is refused."""
    done, said = _ask("scontrol", "update", f"jobid={job}", f"excnodelist={nodes}")
    return "" if done else said or "no reason given"


def _unreachable(said: str) -> bool:
    return any(sign in said for sign in AWAY)


def _ask(*command: str) -> tuple[bool, str]:
    """One of Slurm's commands: whether it succeeded, and what it said."""
    try:
        for _ in range(3):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
            )
            if done.returncode >= 0:  # else it got the signal that Slurm gave to all of the job
                break
    except subprocess.TimeoutExpired:
        return False, f"{command[0]} timed out"
    except OSError as error:
        return False, f"{command[0]}: {error.strerror}"
    return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr).strip()
