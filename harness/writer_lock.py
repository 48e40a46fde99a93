"""One process at a time writes an outputs folder's mirror: the lock OUTPUTS/mlflow.lock.

It is `flock`: the kernel frees it when its holder dies, however it dies. Between hosts it holds
where the file system carries it (flock(2), nfs(5)): NFS, unless mounted `nolock` or `local_lock`,
and Lustre mounted `flock`; of another one ask who runs it. Where it holds on one host only, two
hosts may make a run twice. Each then finds in the lock's file that the other has written, reads
the store again and deletes the surplus, the same one. No point is ever there twice: MLflow takes
the same point again as the same row.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import UserError


@contextmanager
def writing(outputs: Path, give_up: Callable[[], bool]) -> Iterator[IO[str]]:
    """Hold the lock of the one writer. Its file has a version of each experiment.

    Args:
        give_up: asked again and again while another process holds it.

    Raises:
        UserError: given up, or a file system without locks.
    """
    with (outputs / "mlflow.lock").open("a+") as file:
        while not _taken(file):
            if give_up():
                raise UserError("another process is still writing; what is new here is left to it")
            time.sleep(0.1)
        yield file


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise UserError(
                f"{file.name}: this file system has no locks, which the mirror needs "
                "(Lustre: mount it with -o flock; NFS: without nolock)"
            ) from None
        raise
    return True


def new_version() -> str:
    """Names one pass of one writer among all of all hosts."""
    return f"{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"


def read_versions(file: IO[str]) -> dict[str, str]:
    """What the lock's file says was the last pass to write each experiment.

    Nothing where a kill has cut it short: all is then read anew.
    """
    file.seek(0)
    try:
        return dict(json.loads(file.read() or "{}"))
    except (ValueError, TypeError):
        return {}


def write_versions(file: IO[str], versions: Mapping[str, str]) -> None:
    """Put this into the lock's file."""
    file.truncate(0)
    file.write(json.dumps(versions))
    file.flush()
