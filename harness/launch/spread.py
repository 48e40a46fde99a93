"""The works of a job with several tasks, each one rank; task 0 leads (`harness.launch.turns`)."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from harness import retries
from harness.claim import last_attempt
from harness.launch import memory, processes, requeue
from harness.launch.children import LOOK, Children, Signals
from harness.launch.element import PATIENCE, Element
from harness.launch.processes import BAD_INPUT, BUSY, DONE, STOPPED, Share
from harness.launch.settle import number_of, settle
from harness.launch.turns import Turn, Turns, port_of
from harness.record import RunFolder

SETTLING = 3.0  # seconds within which all tasks of a job have been told what one was


def lead(element: Element, signals: Signals) -> int:
    """Task 0 of several: says which work is next, and is its rank 0."""
    turns, number = _turns(element), 0
    try:
        if requeue.leaves_bad_node(element):
            return STOPPED
        for place, one in enumerate(element.works):
            waited = False
            while element.left(one) and not signals.first:
                number += 1
                status, cause = _turn(element, signals, turns, number, place)
                if status == BUSY and not waited:
                    deadline = time.monotonic() + PATIENCE
                    element.wait_until_free(one, deadline, lambda: bool(signals.first))
                    waited = True
                elif status in (BUSY, BAD_INPUT) or cause == retries.FULL_DISK:
                    break
                elif status == STOPPED and not signals.first:
                    time.sleep(SETTLING)
        return requeue.conclude(element, signals)
    finally:
        turns.begin(Turn(number + 1, None, "", 0))


def _turn(
    element: Element, signals: Signals, turns: Turns, number: int, place: int
) -> tuple[int, str]:
    """One attempt of all tasks at a work: how it ended, and why."""
    work, here, children = element.works[place], element.here, Children()
    run = RunFolder(work.run_dir)
    before, killed = number_of(last_attempt(run)), memory.kills()
    turn = Turn(number, place, here.node, port_of(run.run_id, before + 1))
    turns.begin(turn)

    def others() -> list[int | None]:
        ended: list[int | None] = [*turns.reports(number)]
        return ended + [None] * (here.tasks - 1 - len(ended))

    status = _rank(element, children, signals, turn, others)
    return status, settle(
        work, element.job.ranks, before, status, element.why(work, children.why_stopping, killed)
    )


def follow(element: Element, signals: Signals) -> int:
    """Another task: its rank of whatever task 0 says is next, until that says no more."""
    turns, last = _turns(element), 0
    while True:
        turn = turns.now()
        if turn is None or turn.number == last:
            time.sleep(LOOK)
            continue
        last = turn.number
        if turn.work is None:
            return DONE

        def others(mine: int = last) -> list[int | None]:
            now = turns.now()
            return [STOPPED if now is not None and now.number > mine else DONE]

        status = _rank(element, Children(), signals, turn, others)
        turns.report(turn.number, element.here.rank, status)


def _rank(
    element: Element,
    children: Children,
    signals: Signals,
    turn: Turn,
    others: Callable[[], list[int | None]],
) -> int:
    """This task's rank of a run, to its end; how it ended."""
    here, job = element.here, element.job
    assert turn.work is not None
    work = element.works[turn.work]
    share = Share(turn.address, turn.port, here.rank, here.tasks)
    cpus, extra = max(1, job.cpus // here.tasks), {"LOCAL_RANK": str(here.local_rank)}
    run_id = work.run_dir.name

    def serve() -> int:
        begin = lambda: processes.start(work, 1, cpus, share, extra)  # noqa: E731
        started = children.start(run_id, begin)
        if started is None:
            return STOPPED
        status = processes.wait(started, others)
        children.ended(run_id)
        return status

    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(serve)
        children.watch(signals, element.warning, element.batch.cancelled, thread.done)
    return thread.result()


def _turns(element: Element) -> Turns:
    return Turns(element.batch.folder / "turns" / f"{element.index}-{element.here.restart}")
