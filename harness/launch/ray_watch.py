"""Whether a sweep's Ray cluster lives, and has what a run asks for: looked at while Tune works.

Tune itself waits for ever for a node that is gone. Where nobody answers for the cluster, calls to
Ray hang, and it ends this process without a word of ours (`ray.ENVIRONMENT` says when).
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from harness.config import Job
from harness.errors import UnreachableError

EVERY = 2.0  # seconds between two looks
# Seconds in which the main thread has stopped the runs, unless it hangs in a call to Ray. They then
# stop when they see that the processes which started them are gone.
GRACE = 70.0


@contextlib.contextmanager
def watched(job: Job, patience: float) -> Iterator[None]:
    """Stop as Ctrl-C does if Ray dies, and say where a run fits nowhere any more.

    Args:
        patience: seconds without an answer after which Ray counts as dead.

    Raises:
        UnreachableError: Ray has died; the runs were told to stop.
    """
    import ray

    context = ray.get_runtime_context()
    here = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    parts = {
        "the cluster's head (GCS)": context.gcs_address,
        "Ray on this machine (raylet)": f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}",
    }
    over, died = threading.Event(), list[str]()

    def watch() -> None:
        silent = dict.fromkeys(parts, 0)
        while not died and not over.wait(EVERY):
            for part, address in parts.items():
                silent[part] = 0 if _listens(address) else silent[part] + 1
            died.extend(
                f"{part} does not answer at {parts[part]} any more: what was finished is kept, "
                "what was at work stops with a checkpoint. Give the same command again"
                for part, looks in silent.items()
                if looks >= patience / EVERY
            )
        if died:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if not over.wait(GRACE):
                print(died[0], file=sys.stderr, flush=True)
                os._exit(1)

    def fit() -> None:
        told = ""
        while not over.wait(EVERY):
            if (lacks := missing(ray.nodes(), job)) != told:
                print(f"{lacks}; Ray waits for more" if lacks else "a run fits again", flush=True)
                told = lacks

    threads = [threading.Thread(target=target, daemon=True) for target in (watch, fit)]
    for thread in threads:
        thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if not died:
            raise
        raise UnreachableError(died[0]) from None
    finally:
        over.set()
        for thread in threads:  # so that none asks a cluster that is left; one that is dead hangs
            thread.join(EVERY)


def fitting(nodes: list[dict[str, Any]], job: Job) -> list[dict[str, Any]]:
    """The nodes that live and have what a run asks of one."""
    asked = {"CPU": job.cpus / job.nodes, "GPU": job.gpus / job.nodes}
    return [
        node
        for node in nodes
        if node["Alive"] and all(node["Resources"].get(k, 0) >= n for k, n in asked.items())
    ]


def missing(nodes: list[dict[str, Any]], job: Job) -> str:
    """What a run asks for and these nodes have not, for people; "" where it fits."""
    fits = len(fitting(nodes, job))
    if fits >= job.nodes:
        return ""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if not alive:
        return "no node of the Ray cluster is alive"
    largest = max(alive, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
    there = f"{largest.get('CPU', 0):g} CPUs and {largest.get('GPU', 0):g} GPUs"
    spread = f", spread over job.nodes {job.nodes}" if job.nodes > 1 else ""
    return (
        f"a run asks for job.cpus {job.cpus} and job.gpus {job.gpus:g}{spread}, but "
        f"{fits} of {len(alive)} nodes have that, the largest has {there}"
    )


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=EVERY).close()
    except OSError:
        return False
    return True
