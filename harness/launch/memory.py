"""How often the kernel has killed a process of this control group because memory ran short."""

from pathlib import Path


def kills(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """The count so far, by control groups of either version; 0 where there are none.

    Slurm gives each step of a job a control group, and its processes are in one below; the count
    of a group holds those of the ones below it.
    """
    total = 0
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        folder = root / ("memory" if controllers else "") / path.lstrip("/")
        for group in (folder, folder.parent):
            counts = [_count(group / name) for name in ("memory.events", "memory.oom_control")]
            total = max(total, *counts)
    return total


def _count(file: Path) -> int:
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(words[1]) for words in lines if words[:1] == ["oom_kill"]), 0)
