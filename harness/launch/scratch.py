"""A folder on this machine's own disk that is nobody's when its command is over, or killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "resolute-ray-"


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder that is removed afterwards; what killed commands have left goes first.

    Whoever has one holds the lock on a file in it, which the kernel frees however its holder ends.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is at work, or another user's
            if left.lstat().st_uid == os.getuid():
                with _locked(left, "r+"):
                    shutil.rmtree(left)
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    with _locked(made, "x"):
        folder = made.rename(made.with_name(made.name[1:]))  # seen by others, and locked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, mode: str) -> Iterator[None]:
    with (folder / "lock").open(mode) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
