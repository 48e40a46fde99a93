"""Who works on a run: at most one process group, decided by files.

Each attempt at a run is one file, `attempts/0001.json`, `0002.json`, ...; the highest number is
the claim. A new one is created only when the last has ended or its owner is gone, and by a hard
link, which fails if another process was first, so there is no moment at which two can win. While
the owner works, it rewrites its own file every second or so with its progress: the heartbeat.

An owner on another host whose heartbeat seems silent is watched for a few beats before its claim is
taken over: the clocks of two machines and of a file server may differ, or jump, by any amount.
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

from harness.allocation import allocation
from harness.files import Json, read_json, write_json
from harness.record import RunFolder

BEAT = 1.0  # seconds between heartbeats
SILENCE = 60.0  # seconds without one after which an owner on another host counts as gone
WATCH = 5.0  # seconds that such an owner's file is watched before its claim is taken over
EXIT_LOST = 76
OWNED = ("attempts", "provenance", "features", "eval", "samples")  # folders that an owner writes
PARENT = "RESOLUTE_PARENT"  # process id of what started a process; it ends when that is gone
LAUNCHER = "RESOLUTE_LAUNCHER"  # names the command that started a process


def this_host() -> str:
    """Names the space in which a process id means something: host, boot and pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    if boot.exists() and space.exists():
        parts += [boot.read_text().strip(), os.readlink(space)]
    return "/".join(parts)


def launcher() -> str:
    """Names the command behind this process: the one that started it, or itself."""
    return os.environ.get(LAUNCHER) or f"{this_host()}:{os.getpid()}"


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
        """Its owner is at work, as far as can be told from here at a glance."""
        if self.ended:
            return False
        if self.data["host"] == this_host():
            return _started(self.data["pid"]) == self.data.get("pid_started", "")
        try:
            silence = time.time() - self.file.stat().st_mtime
        except OSError:
            return False
        return abs(silence) < SILENCE  # of a time to come: one of the clocks is wrong

    def outlived(self, facts: Json) -> bool:
        """Its job was requeued since: Slurm has ended whatever belonged to it, where it could.

        Args:
            facts: `job` and `restart` of now.
        """
        same = facts.get("job") is not None and self.data.get("job") == facts["job"]
        return same and self.data.get("restart", 0) < facts["restart"]

    def beats(self) -> bool:
        """Whether its heartbeat is seen to go on; takes up to `WATCH` s, and asks no clock."""
        before, deadline = self._look(), time.monotonic() + WATCH
        while time.monotonic() < deadline:
            time.sleep(BEAT / 5)
            if self._look() != before:
                return True
        return False

    def _look(self) -> tuple[bytes, int]:
        try:
            with self.file.open("rb") as file:  # to open it is what asks a file server anew
                return file.read(), os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return b"", 0

    def close(self, outcome: str, error: str, cause: str) -> None:
        """Write down how it ended, where its owner is gone and could not."""
        ended = {"outcome": outcome, "error": error, "cause": cause, "ended": time.time()}
        write_json(self.file, self.data | ended)


def attempts(run: RunFolder) -> list[Attempt]:
    """All attempts at a run, in order."""
    files = sorted((run.path / "attempts").glob("[0-9]*.json"))
    return [Attempt(int(f.stem), f, read_json(f, needs=("host", "pid"))) for f in files]


def last_attempt(run: RunFolder) -> Attempt | None:
    """The newest attempt at a run, or None."""
    files = sorted((run.path / "attempts").glob("[0-9]*.json"))
    if not files:
        return None
    return Attempt(int(files[-1].stem), files[-1], read_json(files[-1], needs=("host", "pid")))


def reached(run: RunFolder) -> list[int]:
    """How far a run is: [step of the newest checkpoint, finished evaluations, shards of others].

    Of two such lists the later one is the larger, as lists compare, where there was progress.
    """
    checkpoints = run.checkpoints()
    step = int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0
    results = sum(run.result_file(eval_id).exists() for eval_id in run.requests())
    return [step, results, len(list(run.path.glob("features/*/*.safetensors")))]


def _place() -> Json:
    """Where an attempt is made: job, restart and nodes of Slurm, or this host alone."""
    here, ranks = allocation(), int(os.environ.get("WORLD_SIZE", 1))
    if here is None:
        return {"nodes": [socket.gethostname()]}
    spread = ranks > 1 and ranks == here.tasks
    nodes = list(here.nodes) if spread else [here.node]
    return {"job": here.job, "restart": here.restart, "nodes": nodes}


class Claim:
    """A claim held by this process; a thread keeps its heartbeat until it ends.

    Set `progress` and `stopping` (why it was asked to stop) at will (any thread); they are written
    with the next beat. A process whose claim was taken over, because it seemed gone for a minute,
    ends at its next beat with status 76.
    """

    def __init__(self, run: RunFolder, number: int, data: Json) -> None:
        self.run, self.number, self.data = run, number, data
        self.file = _file(run, number)
        self.progress: Json = {}
        self.stopping = ""
        self._beats = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):
                taken_over = _file(self.run, self.number + 1).exists()
                if taken_over or not self.file.exists():  # two must never train; or it was moved
                    os._exit(EXIT_LOST)
                if self.file.with_suffix(".stop").exists():
                    os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler would ask
                self._beats += 1
                beat = {"progress": dict(self.progress), "beats": self._beats}
                beat |= {"stopping": self.stopping} if self.stopping else {}
                try:
                    write_json(self.file, self.data | beat)
                except OSError:
                    os.utime(self.file)  # which needs no space

    def hold_still(self) -> None:
        """Keep the claim without its heartbeat, while the folder is moved."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def end(self, outcome: str, error: str = "", cause: str = "") -> None:
        """Release the claim: `done`, `failed` or `interrupted`, with its error.

        Args:
            cause: the kind of error (`harness.retries`).
        """
        self.hold_still()
        ended = {"outcome": outcome, "error": error, "cause": cause, "ended": time.time()}
        write_json(self.file, self.data | {"progress": self.progress} | ended)


def ask_to_stop(run: RunFolder) -> None:
    """Ask the process at work on a run, on whatever host, to write a checkpoint and end.

    Only one that this command started is asked: another sweep's run is none of its business.
    """
    last = last_attempt(run)
    if last is not None and last.alive and last.data.get("launcher") == launcher():
        last.file.with_suffix(".stop").touch()


def _file(run: RunFolder, number: int) -> Path:
    return run.path / "attempts" / f"{number:04d}.json"


def claim(run: RunFolder, **facts: Any) -> Claim | None:
    """Claim a run for this process, or None where another one is at work on it.

    Args:
        facts: what else the attempt's file is to say (code id, ranks, ...).
    """
    last, place = last_attempt(run), _place()
    unseen = None  # one that Slurm has given up, and that may yet be at work
    if last is not None and not last.ended:
        elsewhere = last.data["host"] != this_host()
        if last.outlived(place):
            unseen = last if elsewhere or last.alive else None
        elif last.alive or (elsewhere and last.beats()):
            return None
    number = last.number + 1 if last else 1
    data = {
        "number": number,
        "host": this_host(),
        "pid": os.getpid(),
        "pid_started": _started(os.getpid()),
        "started": time.time(),
        "launcher": launcher(),
        **place,
        "reached": reached(run),
        **facts,
    }
    temporary = run.path / "attempts" / f".{os.getpid()}.{time.monotonic_ns()}.tmp"
    try:
        write_json(temporary, data)
        os.link(temporary, _file(run, number))
    except (FileExistsError, FileNotFoundError):  # not found: the winner has cleared it away
        return None
    finally:
        temporary.unlink(missing_ok=True)
    _remove_half_written(run)
    held = Claim(run, number, data)
    held.start()
    while unseen is not None and unseen.beats():
        pass  # its node was cut off from Slurm, and goes on until it finds itself taken over
    return held


def _remove_half_written(run: RunFolder) -> None:
    """What earlier owners were writing when they were killed; nobody else writes there."""
    for name in (".weights*", ".metrics.jsonl*", ".DONE*", *(f"{o}/**/.*" for o in OWNED)):
        for file in run.path.glob(f"{name}.tmp"):
            file.unlink(missing_ok=True)
