"""Whether a run that ended before its time is started again: by why it ended and how far it is.

Each attempt at a run says what was reached when it began and why it ended (its `cause`). A run may
be stopped and lost as often as it likes while it gets on; what counts is in a row, without
progress. An attempt that never wrote how it ended was stopped for the reason that its last
heartbeat gives; without one it was lost, and where a Slurm job watched over it (which writes down
how a run ended that could not), that was lost as well: a node failure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.files import Json

PREEMPTED, TIME_LIMIT, STOPPED = "preempted", "time limit", "stopped"
LOST, NODE_FAILURE = "lost", "node failure"
OUT_OF_MEMORY, FULL_DISK = "out of memory", "full disk"
NON_FINITE, ERROR = "non-finite loss", "error"

# Attempts in a row without progress after which a run is still started again. Whatever is not
# here was done to the run from outside: `job.retries` of all these together.
ALLOWED = {OUT_OF_MEMORY: 1, NON_FINITE: 0, ERROR: 0}
FINAL = (NON_FINITE, ERROR)  # the same again would give the same, however far it had come
SLURM_JOB = "slurm job"  # what an attempt's launcher begins with where a job watches over it
BAD_AFTER = 2  # losses on a node after which it is left alone


def cause(attempt: Json) -> str:
    """Why an attempt ended, from its file: one of the causes above, or "" where it did all."""
    if not attempt.get("outcome"):
        watched = str(attempt.get("launcher")).startswith(SLURM_JOB)
        return str(attempt.get("stopping") or (NODE_FAILURE if watched else LOST))
    if attempt["outcome"] == "done":
        return ""
    return str(attempt.get("cause") or (ERROR if attempt["outcome"] == "failed" else STOPPED))


def give_up(attempts: Sequence[Json], reached: Sequence[int], retries: int) -> str:
    """Why a run is not to be started again, for people; "" where it is.

    Args:
        attempts: all that one submission made at it, in order; each has ended or is gone.
        reached: what is reached now (`harness.claim.reached`).
        retries: `job.retries`.
    """
    if not attempts or cause(attempts[-1]) in ("", FULL_DISK):
        return ""
    last = cause(attempts[-1])
    if last in FINAL:
        return str(attempts[-1].get("error") or last)
    in_vain = _in_vain(attempts, reached)
    if last == OUT_OF_MEMORY:
        count = sum(cause(a) == OUT_OF_MEMORY for a in in_vain)
        if count <= ALLOWED[OUT_OF_MEMORY]:
            return ""
        return f"out of memory {count} times in a row without progress; ask for more memory, or " \
               "set train.accumulation or job.sample_batch for smaller portions"  # fmt: skip
    outside = Counter(c for a in in_vain if (c := cause(a)) not in (*ALLOWED, FULL_DISK, ""))
    if outside.total() <= retries:
        return ""
    told = ", ".join(f"{c} {n} times" if n > 1 else c for c, n in outside.items())
    times = f"{outside.total()} attempts in a row"
    return f"gave up after {times} without progress at step {reached[0]} ({told})"


def _in_vain(attempts: Sequence[Json], reached: Sequence[int]) -> list[Json]:
    """The attempts since the last one that got on."""
    after = [list(a.get("reached", [])) for a in attempts[1:]] + [list(reached)]
    for number in range(len(attempts) - 1, -1, -1):
        if after[number] > list(attempts[number].get("reached", [])):
            return list(attempts[number + 1 :])
    return list(attempts)


def bad_nodes(runs: Iterable[Sequence[Json]], since: float = 0.0) -> list[str]:
    """Nodes that at least two starts of a job were lost with, by the attempts of each of its runs.

    Several runs that were lost with one node at one time count once. Of a start over several nodes
    nobody knows which was to blame: a node counts as bad only where no other was lost each time
    as well. A process that was killed alone says nothing of its node: that attempt has an end,
    written by what started it; nor does one that Slurm had asked to stop.

    Args:
        since: only attempts that were started later, seconds since the epoch.
    """
    lost: dict[str, set[tuple[Any, Any]]] = {}
    for attempts in runs:
        for attempt in attempts:
            silent = not attempt.get("outcome") and not attempt.get("stopping")
            if silent and attempt.get("started", since) >= since:
                for node in attempt.get("nodes", []):
                    lost.setdefault(node, set()).add((attempt.get("job"), attempt.get("restart")))
    return sorted(
        node
        for node, starts in lost.items()
        if len(starts) >= BAD_AFTER
        and not any(starts <= others for other, others in lost.items() if other != node)
    )
