"""A run's process group on this machine: started, watched, stopped. Every launcher ends here."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.claim import LAUNCHER, PARENT, launcher
from harness.provenance import ROOT
from harness.run import BAD_INPUT as BAD_INPUT
from harness.run import BUSY as BUSY
from harness.run import DONE as DONE
from harness.run import FAILED as FAILED
from harness.run import GRACE as GRACE
from harness.run import STOPPED as STOPPED

LOST = -1  # killed from outside
WORTH_A_RETRY = (LOST, STOPPED)

Started = list[subprocess.Popen[bytes]]  # the processes of one run on this machine


@dataclass(frozen=True)
class Work:
    """What a launcher starts: a run folder, and which of its evaluations are wanted."""

    run_dir: Path
    evaluations: tuple[str, ...] = ()  # none: all that were asked of it
    until: float | None = None  # train to this share only, one of train.snapshots


def environment() -> dict[str, str]:
    """For a process of this project that is to end with this one."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        PARENT: str(os.getpid()),
        LAUNCHER: launcher(),
    }


@dataclass(frozen=True)
class Share:
    """The ranks of a run that one machine starts, and where all its ranks meet."""

    address: str  # of the machine with rank 0
    port: int
    first: int  # rank
    world: int  # ranks of the whole run


def start(
    work: Work,
    ranks: int,
    cpus: int,
    share: Share | None = None,
    extra: Mapping[str, str] | None = None,
) -> list[subprocess.Popen[bytes]]:
    """Start `python -m harness.run RUN_DIR` once for each rank, writing into its log.

    That is log.txt of the machine with rank 0, log-4.txt of one whose first rank is 4.

    Args:
        ranks, cpus: here.
        share: None: these are all ranks of the run.
        extra: more of their environment, such as the devices that are theirs.
    """
    if share is None:
        share = Share("127.0.0.1", free_port("127.0.0.1"), 0, ranks)
    shared = environment() | {
        "WORLD_SIZE": str(share.world),
        "MASTER_ADDR": share.address,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(max(1, cpus // ranks)),
    }
    if share.world > 1:
        shared["MASTER_PORT"] = str(share.port)
    until = () if work.until is None else ("--until", repr(work.until))
    command = [sys.executable, "-m", "harness.run", str(work.run_dir), *work.evaluations, *until]
    processes = []
    # Machines that append to one file on a file server overwrite each other's lines.
    name = "log.txt" if share.first == 0 else f"log-{share.first}.txt"
    with (work.run_dir / name).open("ab") as log:
        for rank in range(ranks):
            processes.append(
                subprocess.Popen(
                    command,
                    env=shared
                    | {"RANK": str(share.first + rank), "LOCAL_RANK": str(rank)}
                    | dict(extra or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=work.run_dir,
                    start_new_session=True,  # Ctrl-C reaches the sweep, which stops its runs
                )
            )
    return processes


def wait(
    processes: list[subprocess.Popen[bytes]], others: Callable[[], Sequence[int | None]] = tuple
) -> int:
    """Wait for all ranks; when one ends badly, or on Ctrl-C, the others are stopped.

    Args:
        others: how the ranks on other machines ended, None of each that is at work.

    Returns:
        DONE, FAILED, BUSY or STOPPED as rank 0 said, or LOST where a rank was killed.
    """
    try:
        while True:
            elsewhere = list(others())
            codes = [process.poll() for process in processes] + elsewhere
            if all(code is not None for code in codes):
                break
            if any(code not in (None, DONE) for code in codes):
                # How these end says nothing: they may have been killed here.
                stop(processes, in_vain=any(code not in (None, DONE) for code in elsewhere))
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


def stop(processes: list[subprocess.Popen[bytes]], in_vain: bool = False) -> None:
    """Ask every rank to write a checkpoint and end; kill what has not ended after a minute.

    Args:
        in_vain: they wait for a rank elsewhere that is gone, and are killed sooner.
    """
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    if in_vain or len(running) < len(processes):  # a rank is gone: the others wait for it in vain
        deadline = time.monotonic() + GRACE / 6
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port(address: str) -> int:
    """A port of this machine that nobody listens on at this address of it."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
