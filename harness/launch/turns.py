"""What the tasks of a job over several nodes tell each other, by files in its batch's folder.

Task 0 leads: it says which work is next, `now.json`, and the others start their rank of it. A rank
that ended is reported, `<turn>.<rank>`, so that task 0 does not wait for a rank that is gone; a
new turn tells the others that the one before is over. Nothing here is needed after the job.
"""

import os
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.files import Json, read_json, write_atomic, write_json

FIRST_PORT, PORTS = 20000, 12000
LOOK = 1.0  # seconds


@dataclass(frozen=True)
class Turn:
    """One attempt of all tasks at one work."""

    number: int
    work: int | None  # its place in the element; None: there is nothing left to do
    address: str
    port: int


class Turns:
    """The turns of one start of a job; looked at once a second, for the file server's sake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._looked = {"now.json": -LOOK}
        self._now: Turn | None = None
        self._reports: list[int] = []

    def begin(self, turn: Turn) -> None:
        """Task 0: this is what all do now."""
        write_json(self.folder / "now.json", asdict(turn))

    def now(self) -> Turn | None:
        """What task 0 has said last, if anything."""
        file = self.folder / "now.json"
        if self._is_time(file.name) and file.name in self._names():
            said: Json = read_json(file, needs=("number", "work", "address", "port"))
            self._now = Turn(said["number"], said["work"], said["address"], said["port"])
        return self._now

    def report(self, number: int, rank: int, status: int) -> None:
        """Another task: my rank has ended."""
        write_atomic(self.folder / f"{number}.{rank}", str(status))

    def reports(self, number: int) -> list[int]:
        """The exit statuses of the ranks that have ended, but for rank 0."""
        if self._is_time(str(number)):
            names = [name for name in self._names() if name.startswith(f"{number}.")]
            self._reports = [int((self.folder / name).read_text()) for name in names]
        return self._reports

    def _is_time(self, what: str) -> bool:
        due = time.monotonic() - self._looked.get(what, -LOOK) >= LOOK
        if due:
            self._looked[what] = time.monotonic()
        return due

    def _names(self) -> list[str]:
        """To list a folder is what asks a file server anew whether a file is there."""
        return os.listdir(self.folder) if self.folder.is_dir() else []


def port_of(run_id: str, attempt: int) -> int:
    """The port at which the ranks of a run meet: another for each attempt, 20000 to 31999."""
    return FIRST_PORT + zlib.crc32(f"{run_id} {attempt}".encode()) % PORTS
