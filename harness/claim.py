"""Who works on a run: at most one process group, decided by files.

Each attempt at a run is one file, `attempts/0001.json`, `0002.json`, ...; the highest number is
the claim. A new one is created only when the last has ended or its owner is gone, and by a hard
link, which fails if another process was first, so there is no moment at which two can win. While
the owner works, it rewrites its own file every second or so with its progress: the heartbeat.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.files import Json, read_json, write_json
from harness.record import RunFolder

BEAT = 1.0  # seconds between heartbeats
SILENCE = 60.0  # seconds without one after which an owner on another host counts as gone


def this_host() -> str:
    """Names the space in which a process id means something: host, boot and pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    if boot.exists() and space.exists():
        parts += [boot.read_text().strip(), os.readlink(space)]
    return "/".join(parts)


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks, so that a reused pid is not mistaken."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run as its file tells it."""

    number: int
    file: Path
    data: Json

    @property
    def ended(self) -> bool:
        return bool(self.data.get("outcome"))

    @property
    def alive(self) -> bool:
        """Its owner is at work, as far as can be told from here."""
        if self.ended:
            return False
        if self.data["host"] == this_host():
            return _started(self.data["pid"]) == self.data.get("pid_started", "")
        try:
            silence = time.time() - self.file.stat().st_mtime
        except OSError:
            return False
        return silence < SILENCE


def last_attempt(run: RunFolder) -> Attempt | None:
    """The newest attempt at a run, or None."""
    files = sorted((run.path / "attempts").glob("[0-9]*.json"))
    if not files:
        return None
    return Attempt(int(files[-1].stem), files[-1], read_json(files[-1], needs=("host", "pid")))


class Claim:
    """A claim held by this process; a thread keeps its heartbeat until it ends.

    Set `progress` at will (any thread); it is written with the next beat. A process whose claim
    was taken over, because it seemed gone for a minute, ends at its next beat with status 76.
    """

    def __init__(self, run: RunFolder, number: int, data: Json) -> None:
        self.run, self.number, self.data = run, number, data
        self.file = _file(run, number)
        self.progress: Json = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):  # a full disk stops the training, not the heartbeat
                taken_over = _file(self.run, self.number + 1).exists()
                if taken_over or not self.file.exists():  # two must never train; or it was moved
                    os._exit(EXIT_LOST)
                if self.file.with_suffix(".stop").exists():
                    os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler would ask
                write_json(self.file, self.data | {"progress": dict(self.progress)})

    def hold_still(self) -> None:
        """Keep the claim without its heartbeat, while the folder is moved."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def end(self, outcome: str, error: str = "") -> None:
        """Release the claim: `done`, `failed` (with its error) or `interrupted`."""
        self.hold_still()
        ended = {"outcome": outcome, "error": error, "ended": time.time()}
        write_json(self.file, self.data | {"progress": self.progress} | ended)


def ask_to_stop(run: RunFolder) -> None:
    """Ask the process at work on a run, on whatever host, to write a checkpoint and end."""
    last = last_attempt(run)
    if last is not None and last.alive:
        last.file.with_suffix(".stop").touch()


EXIT_LOST = 76
PARENT = "RESOLUTE_PARENT"  # process id of what started a process; it ends when that is gone


def _file(run: RunFolder, number: int) -> Path:
    return run.path / "attempts" / f"{number:04d}.json"


def claim(run: RunFolder, **facts: Any) -> Claim | None:
    """Claim a run for this process, or None where another one is at work on it.

    Args:
        facts: what else the attempt's file is to say (code id, ranks, ...).
    """
    last = last_attempt(run)
    if last is not None and last.alive:
        return None
    number = last.number + 1 if last else 1
    data = {
        "number": number,
        "host": this_host(),
        "pid": os.getpid(),
        "pid_started": _started(os.getpid()),
        "started": time.time(),
        **facts,
    }
    temporary = run.path / "attempts" / f".{os.getpid()}.{time.monotonic_ns()}.tmp"
    write_json(temporary, data)
    try:
        os.link(temporary, _file(run, number))
    except FileExistsError:
        return None
    finally:
        temporary.unlink()
    held = Claim(run, number, data)
    held.start()
    return held
