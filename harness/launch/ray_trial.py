"""What the Ray launcher runs in the workers of its cluster: attempts at one run.

A run over several nodes has a bundle of resources on each. The trial lies in the first one and
starts the first ranks; a task in each of the others starts the rest; they meet at the trial's
address.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from harness import retries
from harness.claim import last_attempt
from harness.config import Job
from harness.launch import processes
from harness.launch.asha import report
from harness.launch.processes import Share, Work
from harness.launch.settle import given_up
from harness.record import RunFolder
from harness.rungs import Rung, figure


def trial(config: dict[str, Any]) -> None:
    """What is left of one run, with a stop at each of its rungs.

    Raises:
        RuntimeError: the run was lost; Ray starts it again, here or elsewhere.
    """
    from ray import tune

    job, told = Job(**config["job"]), config["work"]
    run, wanted = RunFolder(Path(told["run_dir"])), tuple(told["evaluations"])
    attempt = partial(_attempt, job=job, before=told["attempts"])
    for number, facts in told["rungs"]:
        rung = Rung(**facts)
        due = tuple(e for e in rung.evaluations if not wanted or e in wanted)
        status = attempt(Work(run.path, due, rung.after)) if due else processes.DONE
        if status != processes.DONE and not run.snapshot_file(rung.steps).exists():
            break  # it was not trained that far
        if found := figure(run, rung):
            report(number, found[1])  # returns where the run is to go on
    else:
        status = attempt(Work(run.path, wanted))
    tune.report({"status": status})


def sees(run_dir: str) -> bool:
    """Runs in a Ray task on a node: whether it sees a run folder."""
    return RunFolder(Path(run_dir)).exists()


def _attempt(work: Work, job: Job, before: int) -> int:
    """One attempt at a run: how it ended.

    Args:
        before: number of the last attempt that an earlier command made.

    Raises:
        RuntimeError: the run was lost, and is worth another attempt.
    """
    run = RunFolder(work.run_dir)
    if given_up(run, before, job.retries):
        return processes.FAILED
    while True:
        status = _together(work, job) if job.nodes > 1 else _alone(work, job)
        last = last_attempt(run)
        if status == processes.BUSY and last and not last.ended and not last.beats():
            time.sleep(1)  # the node that had it is gone; its claim is free before long
            continue
        cause = retries.cause(last.data) if last else ""
        short = status == processes.FAILED and cause == retries.OUT_OF_MEMORY
        if status in processes.WORTH_A_RETRY or short:
            raise RuntimeError(f"the run was lost (status {status})")
        return status


def _alone(work: Work, job: Job) -> int:
    return processes.wait(processes.start(work, job.ranks, job.cpus))


def _together(work: Work, job: Job) -> int:
    """One attempt at a run by the nodes of this trial's placement group: how it ended."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group, address = ray.util.get_current_placement_group(), ray.util.get_node_ip_address()
    port, each = processes.free_port(address), job.ranks // job.nodes
    shares = [Share(address, port, first, job.ranks) for first in range(0, job.ranks, each)]
    tasks = [
        ray.remote(_share)
        .options(
            num_cpus=job.cpus / job.nodes,
            num_gpus=job.gpus / job.nodes,
            max_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
        )
        .remote(work, job, shares[index])
        for index in range(1, job.nodes)
    ]

    def ended() -> list[int | None]:
        done, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [_status(task) if task in done else None for task in tasks]

    try:
        started = processes.start(work, each, job.cpus // job.nodes, shares[0])
        return processes.wait(started, ended)
    finally:
        for task in tasks:
            ray.cancel(task)  # where it is not over, it stops its ranks
        ray.wait(tasks, num_returns=len(tasks), timeout=2 * processes.GRACE)


def _share(work: Work, job: Job, share: Share) -> int:
    """Runs in a Ray task on one of a run's nodes: its ranks there."""
    ranks, cpus = job.ranks // job.nodes, job.cpus // job.nodes
    return processes.wait(processes.start(work, ranks, cpus, share))


def _status(task: Any) -> int:
    import ray

    try:
        status: int = ray.get(task)
    except ray.exceptions.RayError:  # its node is gone, or its worker was killed
        return processes.LOST
    return status
