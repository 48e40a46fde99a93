"""A run's process group on this machine: started, watched, stopped. Every launcher ends here."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.claim import PARENT
from harness.provenance import ROOT
from harness.run import BUSY, DONE, FAILED, STOPPED

GRACE = 60.0  # seconds that a stopped run has to write its checkpoint
LOST = -1  # killed from outside
WORTH_A_RETRY = (LOST, STOPPED)


@dataclass(frozen=True)
class Work:
    """What a launcher starts: a run folder, and which of its evaluations are wanted."""

    run_dir: Path
    evaluations: tuple[str, ...] = ()  # none: all that were asked of it


def environment() -> dict[str, str]:
    """For a process of this project that is to end with this one."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        PARENT: str(os.getpid()),
    }


def start(work: Work, ranks: int, cpus: int) -> list[subprocess.Popen[bytes]]:
    """Start `python -m harness.run RUN_DIR` once for each rank, writing into its log.txt."""
    shared = environment() | {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, cpus // ranks)),
    }
    if ranks > 1:
        shared["MASTER_PORT"] = str(_free_port())
    processes = []
    with (work.run_dir / "log.txt").open("ab") as log:
        for rank in range(ranks):
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "harness.run", str(work.run_dir), *work.evaluations],
                    env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=work.run_dir,
                    start_new_session=True,  # Ctrl-C reaches the sweep, which stops its runs
                )
            )
    return processes


def wait(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all ranks; when one ends badly, or on Ctrl-C, the others are stopped.

    Returns:
        DONE, FAILED, BUSY or STOPPED as rank 0 said, or LOST where a rank was killed.
    """
    try:
        while True:
            codes = [process.poll() for process in processes]
            if all(code is not None for code in codes):
                break
            if any(code not in (None, DONE) for code in codes):
                stop(processes)  # how these end says nothing: they may have been killed here
                break
            time.sleep(0.1)
    except BaseException:
        stop(processes)
        raise
    if any(code is not None and code < 0 for code in codes):
        return LOST
    said = [code for code in codes if code not in (DONE, None)]
    return next(
        (code for code in (BUSY, FAILED, STOPPED) if code in said), said[0] if said else DONE
    )


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask every rank to write a checkpoint and end; kill what has not ended after a minute."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    if len(running) < len(processes):  # a rank is gone: the others wait for it in vain
        deadline = time.monotonic() + GRACE / 6
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
