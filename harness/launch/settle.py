"""What a start of a run leaves behind, and whether it is worth another."""

from harness import retries
from harness.claim import Attempt, attempts, claim, last_attempt, reached
from harness.launch.processes import BAD_INPUT, BUSY, DONE, FAILED, Work
from harness.provenance import code_id
from harness.record import RunFolder


def number_of(attempt: Attempt | None) -> int:
    return attempt.number if attempt else 0


def settle(work: Work, ranks: int, before: int, status: int, cause: str) -> str:
    """Leave exactly one ended attempt for a start of a run that has ended; why it ended.

    Args:
        before: number of the last attempt when it was started.
        status: how its processes ended.
        cause: why, where they did not live to say so.
    """
    run = RunFolder(work.run_dir)
    last = last_attempt(run)
    if status in (DONE, BUSY) or not run.exists():
        return ""
    if last is None or last.number == before:  # it ended before it had claimed
        held = claim(run, code_id=code_id(), ranks=ranks)
        if held is not None:
            if status in (FAILED, BAD_INPUT):
                cause = retries.ERROR
                held.end("failed", "; ".join(run.log_tail(1)), cause)
            else:
                held.end("interrupted", "before it began", cause)
        return cause
    if not last.ended and not last.alive:
        last.close("interrupted", f"its process was gone ({cause})", cause)
        return cause
    return retries.cause(last.data)


def given_up(run: RunFolder, before: int, allowed: int) -> bool:
    """Whether a command has tried a run often enough; then the last attempt says so.

    Args:
        before: number of the last attempt that was there when the command began.
        allowed: `job.retries`.
    """
    made = [one for one in attempts(run) if one.number > before]
    reason = retries.give_up([one.data for one in made], reached(run), allowed)
    if reason and not made[-1].alive:
        made[-1].close("failed", reason, retries.cause(made[-1].data))
    return bool(reason)
