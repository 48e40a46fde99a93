"""The works of a job with one task: several runs at once, all ranks of each on this node."""

import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from harness import retries
from harness.claim import last_attempt
from harness.errors import UserError
from harness.launch import devices, memory, processes, requeue
from harness.launch.children import LOOK, Children, Signals
from harness.launch.element import PATIENCE, Element
from harness.launch.processes import BAD_INPUT, BUSY, DONE, FAILED, STOPPED, Work
from harness.launch.settle import number_of, settle
from harness.record import RunFolder


def work(element: Element, signals: Signals) -> int:
    """Do them: the runs at once each in a thread of its own, this one for the signals."""
    if requeue.leaves_bad_node(element):
        return STOPPED
    children, todo = Children(), deque(element.works)
    places = max(1, min(element.batch.at_once, len(todo)))
    with ThreadPoolExecutor(places) as pool:
        threads = [pool.submit(_serve, element, children, todo, slot) for slot in range(places)]

        def over() -> bool:
            return all(thread.done() for thread in threads)

        children.watch(signals, element.warning, element.batch.cancelled, over)
    for thread in threads:
        thread.result()
    return requeue.conclude(element, signals)


def _serve(element: Element, children: Children, todo: deque[Work], slot: int) -> None:
    """One of the places at once: work after work, until none is left or all are stopped."""
    given = devices.visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
    mine = devices.share(given, slot, element.job.gpus)
    extra = {} if mine is None else {"CUDA_VISIBLE_DEVICES": ",".join(mine)}
    busy = []
    while not children.why_stopping:
        try:
            work = todo.popleft()
        except IndexError:  # nothing is left to do
            break
        if _do(element, children, work, extra) == BUSY:
            busy.append(work)
    deadline = time.monotonic() + PATIENCE
    for work in busy:  # perhaps its owner is gone, and nobody could know it yet
        element.wait_until_free(work, deadline, lambda: bool(children.why_stopping))
        _do(element, children, work, extra)


def _do(element: Element, children: Children, work: Work, extra: dict[str, str]) -> int:
    """One work, started again where it was lost, as long as its retries allow."""
    run, job, status = RunFolder(work.run_dir), element.job, DONE
    try:
        while not children.why_stopping and element.left(work):
            before, killed = number_of(last_attempt(run)), memory.kills()
            started = children.start(
                run.run_id, lambda: processes.start(work, job.ranks, job.cpus, extra=extra)
            )
            if started is None:
                break
            status = processes.wait(started)
            children.ended(run.run_id)
            cause = settle(
                work, job.ranks, before, status, element.why(work, children.why_stopping, killed)
            )
            if status in (BUSY, BAD_INPUT) or cause == retries.FULL_DISK:
                break
            if status == STOPPED and not children.why_stopping:
                time.sleep(5 * LOOK)  # Slurm signals every process: this one may be the next
    except (UserError, OSError) as error:
        print(f"{run.run_id}: {error}", flush=True)  # the others are none the worse
        return FAILED
    return status
