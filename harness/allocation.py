"""The Slurm job around this process, as its environment tells it."""

import itertools
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

JOB_ENDS = "RESOLUTE_JOB_ENDS"  # when the job's time is over, seconds since the epoch
JOB_WARNING = "RESOLUTE_JOB_WARNING"  # seconds before that at which the job is warned
LATE = 90.0  # seconds by which such a warning may come early: Slurm looks every 30 s or so


@dataclass(frozen=True)
class Allocation:
    """A Slurm job as one of its tasks sees it."""

    job: str  # 123, or 123_4 of an array
    restart: int  # how often it was requeued
    node: str  # this task's
    nodes: tuple[str, ...]  # all of the job's, in order
    rank: int
    tasks: int
    local_rank: int


def allocation(env: Mapping[str, str] | None = None) -> Allocation | None:
    """The job that this process is in, or None outside Slurm."""
    env = os.environ if env is None else env
    job = env.get("SLURM_JOB_ID")
    if job is None:
        return None
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    node = env.get("SLURMD_NODENAME") or socket.gethostname()
    return Allocation(
        job=job,
        restart=int(env.get("SLURM_RESTART_COUNT", 0)),
        node=node,
        nodes=tuple(expand_nodes(env.get("SLURM_JOB_NODELIST", node))),
        rank=int(env.get("SLURM_PROCID", 0)),
        tasks=int(env.get("SLURM_NTASKS", 1)),
        local_rank=int(env.get("SLURM_LOCALID", 0)),
    )


def expand_nodes(written: str) -> list[str]:
    """The names in Slurm's notation: `a[01-03,7],b` is a01, a02, a03, a7, b."""
    names = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", written):
        pieces = re.split(r"\[([^\]]*)\]", part)  # text and ranges by turns
        choices = [_numbers(p) if odd % 2 else [p] for odd, p in enumerate(pieces)]
        names += ["".join(chosen) for chosen in itertools.product(*choices)]
    return names


def _numbers(ranges: str) -> list[str]:
    found = []
    for one in ranges.split(","):
        first, _, last = one.partition("-")
        width = len(first)  # leading zeros count
        found += [f"{n:0{width}d}" for n in range(int(first), int(last or first) + 1)]
    return found


def seconds_of(written: str) -> float | None:
    """Seconds of Slurm's `days-hours:minutes:seconds` (parts may lack); None of UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", written.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def warns_of_the_end(now: float, env: Mapping[str, str] | None = None) -> bool:
    """Whether a warning (SIGUSR2) at `now`, seconds since the epoch, is that of the time limit."""
    env = os.environ if env is None else env
    if JOB_ENDS not in env:
        return False
    return float(env[JOB_ENDS]) - now < float(env.get(JOB_WARNING, 0)) + LATE
