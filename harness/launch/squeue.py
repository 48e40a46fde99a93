"""What Slurm says of our jobs: which runs it holds, and how those ended that left no word.

Always with --all: jobs in a partition that is hidden are not shown without, not even one's own.
Only `squeue` is needed. `sacct`, where there is accounting, tells of jobs that it has forgotten.
Both are asked for names, which are unique to a batch: Slurm's numbers may be given out again.
"""

import contextlib
import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from harness.claim import attempts, last_attempt
from harness.errors import UnreachableError, UserError
from harness.launch.batch import Batch, batches
from harness.launch.processes import Work
from harness.record import RunFolder

FIELDS = "%j|%F|%K|%T|%N|%r"  # name, array's id, index, state, nodes, reason
AT_A_TIME = 200  # names in one command
OUT_OF_MEMORY = (b"exceeded memory limit", b"oom_kill", b"oom-kill")  # in a log, by slurmstepd
END_OF_LOG = 10_000  # bytes of it that are looked through
ENDED = {  # states from which a job does not come back, in our words
    "BOOT_FAIL": "node failure", "CANCELLED": "cancelled", "COMPLETED": "",
    "DEADLINE": "deadline", "FAILED": "failed", "NODE_FAIL": "node failure",
    "OUT_OF_MEMORY": "out of memory", "PREEMPTED": "preempted", "REVOKED": "revoked",
    "TIMEOUT": "time limit",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One element of a batch as Slurm has it."""

    name: str
    job_id: str
    index: int
    state: str
    nodes: str
    reason: str

    @property
    def active(self) -> bool:
        return self.state not in ENDED


@dataclass(frozen=True)
class Queued:
    """The element that is to do a run, or does it."""

    element_id: str
    state: str
    reason: str
    nodes: str
    evaluations: tuple[str, ...] = ()  # that it is to make; () for all that are asked of the run

    def __str__(self) -> str:
        if self.state == "PENDING":
            why = f" ({self.reason})" if self.reason not in ("", "None") else ""
            return f"job {self.element_id} is pending{why}"
        where = f" on {self.nodes}" if self.nodes else ""
        return f"job {self.element_id} is {self.state.lower()}{where}"


@dataclass(frozen=True)
class Seen:
    """What was found for each run id."""

    held: Mapping[str, Queued] = field(default_factory=dict)
    ended: Mapping[str, str] = field(default_factory=dict)  # how, where its folder does not tell
    cancelled: frozenset[str] = frozenset()  # taken out of the queue by somebody
    starved: Mapping[str, str] = field(default_factory=dict)  # killed for memory: by which element

    def queued(self) -> dict[str, str]:
        """Run id -> what is said of it, for the plan."""
        return {run_id: str(queued) for run_id, queued in self.held.items()}


def queue(outputs: Path) -> dict[str, Queued]:
    """Run id -> the pending or running element that holds it.

    Raises:
        UnreachableError: Slurm does not answer. UserError: there is no squeue, a damaged batch.
    """
    return dict(look(outputs, explain=False).held)


def look(outputs: Path, explain: bool = True) -> Seen:
    """Where the runs of all batches stand; `explain`: also how those ended that left no word.

    Raises:
        UnreachableError: Slurm does not answer. UserError: there is no squeue, a damaged batch.
    """
    known = {batch.name: batch for batch in batches(outputs) if batch.job_id or not batch.abandoned}
    if not known:
        return Seen()
    found = {(row.name, row.index): row for row in rows(known.values())}
    held: dict[str, Queued] = {}
    lost: dict[str, tuple[Batch, int]] = {}
    for batch in known.values():  # oldest first: the newest has the last word
        for index, element in enumerate(batch.elements):
            row = found.get((batch.name, index))
            for work in element:
                run_id = work.run_dir.name
                if row is None or not row.active or batch.cancelled(run_id):
                    lost[run_id] = (batch, index)
                elif not is_over(work, _element(batch, row)):
                    before = held.get(run_id)
                    if before is None or before.state == "PENDING":
                        held[run_id] = Queued(_element(batch, row), row.state, row.reason,
                                              row.nodes, work.evaluations)  # fmt: skip
    if not explain:
        return Seen(held)
    cancelled = {
        run_id
        for run_id, (batch, index) in lost.items()
        if run_id not in held and (batch.cancelled(run_id) or _was_cancelled(found, batch, index))
    }
    silent = {
        run_id: place
        for run_id, place in lost.items()
        if run_id not in held and _silent(RunFolder(place[0].outputs / "runs" / run_id))
    }
    starved = {
        run_id: str(batch.element_id(index))
        for run_id, (batch, index) in silent.items()
        if _short_of_memory(batch, index, found.get((batch.name, index)))
    }
    return Seen(held, _explained(silent, found), frozenset(cancelled), starved)


def _was_cancelled(found: Mapping[tuple[str, int], Row], batch: Batch, index: int) -> bool:
    """By its state; a pending element of an array has no row any more, and has printed nothing."""
    row = found.get((batch.name, index))
    if row is not None:
        return row.state == "CANCELLED"
    element_id = batch.element_id(index)
    return element_id is not None and not batch.log(element_id).exists()


def _short_of_memory(batch: Batch, index: int, row: Row | None) -> bool:
    """By the job's state, which tells it where cgroups do it; else by what slurmstepd has said."""
    if row is not None and row.state == "OUT_OF_MEMORY":
        return True
    for log in batch.folder.glob(f"{batch.element_id(index)}_*_log.out"):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - END_OF_LOG))
            if any(sign in file.read() for sign in OUT_OF_MEMORY):
                return True
    return False


def is_over(work: Work, element_id: str) -> bool:
    """Whether an element has done all that it will of a run, whoever came after it."""
    made = [one.data for one in attempts(RunFolder(work.run_dir))]
    own = [data for data in made if data.get("job") == element_id]
    return bool(own) and own[-1].get("outcome") in ("done", "failed")


def _element(batch: Batch, row: Row) -> str:
    return batch.element_of(row.job_id, row.index)


def _silent(folder: RunFolder) -> bool:
    """The folder of a run that is not at work does not say why."""
    if folder.done() and all(folder.result_file(e).exists() for e in folder.requests()):
        return False
    last = last_attempt(folder)
    return last is None or not (last.ended or last.alive)


def _explained(
    lost: Mapping[str, tuple[Batch, int]], found: Mapping[tuple[str, int], Row]
) -> dict[str, str]:
    unknown = {batch.name for batch, index in lost.values() if (batch.name, index) not in found}
    known = dict(found)
    if unknown:
        known |= {(row.name, row.index): row for row in accounted(sorted(unknown))}
    told = {}
    for run_id, (batch, index) in lost.items():
        row = known.get((batch.name, index))
        if batch.cancelled(run_id):
            told[run_id] = "cancelled"
        elif row is not None and row.state in ENDED:
            how = ENDED[row.state]
            where = f" on {row.nodes}" if row.nodes and row.nodes != "None assigned" else ""
            log = batch.log(_element(batch, row))
            see = f"; see {log}" if row.state == "FAILED" else ""
            told[run_id] = f"its job {_element(batch, row)} ended{where}" + (
                f": {how}{see}" if how else ""
            )
    return told


def rows(asked: Iterable[Batch]) -> list[Row]:
    """The elements of these batches that squeue knows of, ended ones included."""
    sizes, found = {batch.name: len(batch.elements) for batch in asked}, []
    names = list(sizes)
    for start in range(0, len(names), AT_A_TIME):
        some = ",".join(names[start : start + AT_A_TIME])
        told = ask("squeue", "--noheader", "--all", "--array", "--states=all", f"--name={some}",
                   f"--format={FIELDS}")  # fmt: skip
        for line in told.splitlines():
            if "|" not in line:  # "CLUSTER: name", where SLURM_CLUSTERS is set
                continue
            name, job_id, index, state, nodes, reason = line.split("|", 5)
            if index.isdigit():
                found.append(Row(name, job_id, int(index), state, nodes, reason))
            elif sizes[name] == 1:  # else it is what is left of an array, all of it cancelled
                found.append(Row(name, job_id, 0, state, nodes, reason))
    return found


def accounted(names: Sequence[str]) -> list[Row]:
    """The same from accounting; nothing where there is none, or while it does not answer."""
    found: list[Row] = []
    minute = int(time.monotonic() // 60)
    for start in range(0, len(names), AT_A_TIME):
        with contextlib.suppress(UserError):
            found += _accounted(tuple(names[start : start + AT_A_TIME]), minute)
    return found


@lru_cache(maxsize=100)  # once a minute, and at once again where that raises
def _accounted(names: tuple[str, ...], minute: int) -> tuple[Row, ...]:
    told = ask("sacct", "--allocations", "--noheader", "--parsable2", "--starttime=now-30days",
               f"--name={','.join(names)}", "--format=JobName,JobID,State,NodeList")  # fmt: skip
    found = []
    for line in told.splitlines():
        name, number, state, nodes = line.split("|")
        if element := re.fullmatch(r"(\d+)(?:_(\d+))?", number):
            index = int(element[2] or 0)
            found.append(Row(name, element[1], index, state.split()[0], nodes, ""))
    return tuple(found)


def max_array_size() -> int:
    """Elements that an array may have; 1 where the cluster has no arrays."""
    told = re.search(r"MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"))
    return max(1, int(told[1])) if told else 1001  # Slurm's own default


def room(account: str | None, qos: str | None) -> int | None:
    """Jobs that this user may still submit; None where accounting sets no limit or tells none."""
    user = pwd.getpwuid(os.getuid()).pw_name
    asked = [("assoc", "where", f"user={user}", "format=Account,MaxSubmitJobs")]
    if qos:
        asked.append(("qos", "where", f"name={qos}", "format=Name,MaxSubmitJobsPerUser"))
    limits = []
    for words in asked:
        try:
            told = ask("sacctmgr", "--noheader", "--parsable2", "show", *words)
        except UserError:
            return None
        for name, _, limit in (line.partition("|") for line in told.splitlines()):
            if limit.isdigit() and (words[0] == "qos" or account in (None, name)):
                limits.append(int(limit))
    if not limits:
        return None
    mine = ask("squeue", "--noheader", "--all", "--array", f"--user={user}", "--format=%i")
    return max(0, min(limits) - len(mine.splitlines()))


def scancel(element_ids: Sequence[str]) -> None:
    """Take elements out of the queue, or end them."""
    for start in range(0, len(element_ids), AT_A_TIME):
        ask("scancel", "--quiet", *element_ids[start : start + AT_A_TIME])


def ask(*command: str) -> str:
    """What one of Slurm's commands prints.

    Raises:
        UnreachableError: it fails, or does not answer. UserError: there is no such command.
    """
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=180,
                               env=environment())  # fmt: skip
    except FileNotFoundError:
        raise UserError(
            f"'{command[0]}' is not on PATH: --launcher slurm needs Slurm's commands; log in where "
            "they are, or choose another --launcher"
        ) from None
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{command[0]} did not answer for 3 minutes; {LATER}") from None
    if ended.returncode:
        said = " ".join((ended.stderr or ended.stdout).split()) or f"status {ended.returncode}"
        raise UnreachableError(f"Slurm does not answer: {said}; {LATER}")
    return ended.stdout


AWAY = ("Unable to contact", "timed out", "Connection refused",
        "not responding", "Zero Bytes were transmitted")  # fmt: skip
LATER = "nothing is lost: give the same command again when it does"
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS")


def foreign(names: Iterable[str]) -> list[str]:
    """Variables by which Slurm's commands would take up the job that they are called in, or
    defaults of this shell that win over a job's own lines."""
    prefixes = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SALLOC_", "SRUN_")
    return sorted(name for name in names if name.startswith(prefixes) and name not in KEPT)


def environment() -> dict[str, str]:
    """For Slurm's commands."""
    dropped = foreign(os.environ)
    return {name: value for name, value in os.environ.items() if name not in dropped}
