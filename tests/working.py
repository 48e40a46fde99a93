"""The processes at work on a folder, found by their command lines; and how to hold them still."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil


def working(folder: Path, module: str = "harness.run") -> list[psutil.Process]:
    """Those of a module (of runs: every rank) that name the folder or something in it.

    On whatever node of a cluster that this machine plays.
    """
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if module in words and any(Path(word).is_relative_to(folder) for word in words):
            found.append(process)
    return found


@contextlib.contextmanager
def still(*folders: Path) -> Iterator[None]:
    """The runs in these folders stand still meanwhile, so that none ends before it is disturbed."""
    found = [process for folder in folders for process in working(folder)]
    assert found, "nothing is at work"
    for process in found:
        process.suspend()
    try:
        yield
    finally:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()  # Slurm may have done that itself
