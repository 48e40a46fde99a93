"""A sweep whose runs are left to Slurm: submit and go, look, watch, read the logs, cancel."""

import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.claim import attempts, last_attempt, reached
from harness.conclude import (
    AT_WORK,
    INCOMPLETE,
    OK,
    conclude,
    mirror_what_is_left,
    report,
    short_path,
    tracker,
)
from harness.errors import UnreachableError, UserError, nearest
from harness.grid import Grid
from harness.launch import held, squeue
from harness.launch.batch import Batch, batches
from harness.launch.element import finished
from harness.launch.fruitless import given_up
from harness.launch.processes import Work
from harness.launch.profile import Profile, read_profile
from harness.plan import Plan, PlannedRun, make_plan
from harness.record import RunFolder, prepare, run_folder
from harness.retries import OUT_OF_MEMORY, bad_nodes
from harness.snapshot import snapshot
from harness.table import Watch, counted, duration, plain_line, show_plan

EVERY = 5.0  # seconds between two questions to Slurm
NODES_FOR = 86_400.0  # seconds that a node is avoided for: it may have been mended since
FULL_FOR = 60.0  # seconds before more is submitted to a queue that was full
LOG_LINES = 30
RUNS_TOLD = 3  # whose last job's end is said


def plan_with_queue(grid: Grid, outputs: Path) -> Plan:
    """The plan, with what Slurm says of the runs that it holds or has lost.

    Raises:
        UnreachableError: Slurm does not answer.
    """
    return _plan(grid, outputs, squeue.look(outputs))


def _plan(grid: Grid, outputs: Path, seen: squeue.Seen) -> Plan:
    """The plan; a run that its jobs never began with counts as failed in the end."""
    for run_id, element_id in seen.starved.items():  # nobody was left to write it down
        last = last_attempt(run_folder(outputs, run_id))
        if last and last.data.get("job") == element_id:
            last.close("interrupted", f"job {element_id} took more memory than it had asked for",
                       OUT_OF_MEMORY)  # fmt: skip
    plan = make_plan(grid, outputs, seen.queued(), seen.ended)
    todo = {run.run_id for run in plan.startable(retry_failed=False)}
    why = given_up(outputs, todo, grid.job.retries)
    told = (_told(run, seen.held.get(run.run_id), why.get(run.run_id, "")) for run in plan.runs)
    return Plan(grid, tuple(told))


def _told(run: PlannedRun, holder: squeue.Queued | None, refused: str) -> PlannedRun:
    """A run with what its jobs say of it: why it is given up, or what its job will not do."""
    if refused:
        return replace(run, state="failed", reason=refused)
    if holder is None or not holder.evaluations or run.state not in AT_WORK:
        return run
    later = set(run.wanted(retry_failed=False)) - {*holder.evaluations}
    more = f"; {counted(len(later), 'more evaluation')} when it has ended" if later else ""
    return replace(run, reason=run.reason + more)


def leave_to_slurm(
    plan: Plan, options: argparse.Namespace, console: Console, whole: Grid, record: dict[str, Any]
) -> int:
    """Submit what is missing; with --wait, watch until nothing is queued; then report."""
    from harness.launch import slurm

    profile, outputs = read_profile(options.profile), options.outputs.resolve()
    name, uri, started = record["name"], options.mlflow_uri, time.monotonic()
    slurm.reconcile(outputs)
    if options.wait:
        with tracker(name, outputs, options.no_track, uri):
            plan = _watch(plan, options, profile, console)
            report(whole, record, outputs)
        console.print(f"watched for {duration(time.monotonic() - started)}")
        return conclude(plan, name, outputs, console, uri)
    if missing := plan.startable(options.retry_failed):
        _submit(missing, plan, options, profile, console)
        plan = plan_with_queue(plan.grid, outputs)
    report(whole, record, outputs)
    if not options.no_track:
        mirror_what_is_left(name, outputs, uri)
    status = conclude(plan, name, outputs, console, uri)
    if at_work := Counter(run.state for run in plan.runs if run.state in AT_WORK):
        told = ", ".join(f"{count} {state}" for state, count in sorted(at_work.items()))
        console.print(f"left to Slurm: {told}. The same command with --status shows them, --wait "
                      "watches, --logs PATTERN prints, --cancel PATTERN takes out of the queue",
                      markup=False)  # fmt: skip
    return status


def _submit(
    runs: Sequence[PlannedRun],
    plan: Plan,
    options: argparse.Namespace,
    profile: Profile,
    console: Console,
) -> tuple[set[str], set[str]]:
    """Submit runs, and say what became of them.

    Returns:
        The ids of those that were submitted, and of those for which there was no room.
    """
    from harness.launch import slurm

    outputs, job = options.outputs.resolve(), plan.grid.job
    gone = ([one.data for one in attempts(run.folder) if not one.alive] for run in plan.runs)
    excluded = bad_nodes(gone, since=time.time() - NODES_FOR)
    if excluded:
        console.print(f"without {', '.join(excluded)}: jobs were lost there twice", markup=False)
    folder = profile.snapshots or outputs / "slurm" / "code"
    code = snapshot(Path(folder).expanduser().absolute())
    for run in runs:
        prepare(run.folder, run.training, run.group_id, run.seed, job, run.evaluations)
    works = [Work(run.folder.path, run.wanted(options.retry_failed)) for run in runs]

    def submit(excluded: Sequence[str]) -> list[Batch]:
        return slurm.submit(works, job, profile, outputs, plan.grid.ablation.name, snapshot=code,
                            excluded=excluded)  # fmt: skip

    try:
        made = submit(excluded)
    except UserError as error:
        if not excluded or isinstance(error, UnreachableError):
            raise
        console.print(f"{error}; with these nodes, then", markup=False)
        made = submit(())
    elements = [element for batch in made for element in batch.elements]
    done = {work.run_dir.name for element in elements for work in element}
    again = [run for run in runs if run.ended and run.run_id in done]
    for run in again[:RUNS_TOLD]:
        console.print(f"{run.run_id} again: {run.ended}", markup=False, soft_wrap=True)
    if len(again) > RUNS_TOLD:
        console.print(f"and {counted(len(again) - RUNS_TOLD, 'more run')} again", markup=False)
    left = {work.run_dir.name for work in works} - done - set(squeue.queue(outputs))
    left -= {work.run_dir.name for work in works if finished(RunFolder(work.run_dir), work)}
    if done:
        ids = ", ".join(str(batch.job_id) for batch in made)
        console.print(f"submitted {counted(len(done), 'run')} as {counted(len(elements), 'job')} "
                      f"({ids}), code {short_path(code)}", markup=False)  # fmt: skip
    if left:
        console.print(f"there is no room in the queue for {counted(len(left), 'run')}; the same "
                      "command submits what is left when there is some", markup=False)  # fmt: skip
    return done, left


def _watch(plan: Plan, options: argparse.Namespace, profile: Profile, console: Console) -> Plan:
    """Until Slurm holds nothing of the plan; what is lost meanwhile is submitted again.

    Raises:
        KeyboardInterrupt: with what is to be said; the jobs go on.
    """
    outputs, retries = options.outputs.resolve(), plan.grid.job.retries
    tries = Counter(run.run_id for run in plan.runs if run.state in AT_WORK)
    got_to = {run.run_id: reached(run.folder) for run in plan.runs}
    held_here = set[str]()  # what was cancelled before is submitted again
    gone = set[str]()  # cancelled under this watch; squeue forgets
    full_until, told = 0.0, ""
    try:
        with Watch(list(plan.runs), console) as watch:
            while True:
                began = time.monotonic()
                try:
                    plan, seen = _look(plan.grid, outputs, watch)
                    held_here |= {run_id for run_id, job in seen.held.items()
                                  if job.state in ("PENDING", "RUNNING")}  # fmt: skip
                    gone = (gone | (held_here & seen.cancelled)) - seen.held.keys()
                    todo = []
                    for run in plan.startable(options.retry_failed):
                        before, new = got_to[run.run_id], run.state == "new"
                        got_to[run.run_id] = now = reached(run.folder)
                        if new and now > before:
                            tries[run.run_id] = 0
                        if tries[run.run_id] <= (retries if new else 0) and run.run_id not in gone:
                            todo.append(run)
                    if todo and began >= full_until:
                        done, left = _submit(todo, plan, options, profile, console)
                        tries.update(done)
                        held_here |= done
                        full_until = began + (FULL_FOR if left else 0)
                        plan, _ = _look(plan.grid, outputs, watch)
                    told = ""
                    if not todo and not any(run.state in AT_WORK for run in plan.runs):
                        return plan
                except UnreachableError as error:  # the jobs go on without slurmctld
                    if not told:
                        console.print(str(error), markup=False)
                    told = str(error)
                time.sleep(max(EVERY, 5 * (time.monotonic() - began)))
    except KeyboardInterrupt:
        count = sum(run.state in AT_WORK for run in plan.runs)
        raise KeyboardInterrupt(
            f"stopped watching; {counted(count, 'run')} left with Slurm (--cancel PATTERN takes "
            "them out of the queue)"
        ) from None


def _look(grid: Grid, outputs: Path, watch: Watch) -> tuple[Plan, squeue.Seen]:
    """The plan as it is now, also for the table."""
    seen = squeue.look(outputs)
    watch.queued, watch.ended = seen.queued(), seen.ended
    return _plan(grid, outputs, seen), seen


def look_after(plan: Plan, options: argparse.Namespace, console: Console) -> int:
    """`--status`, `--logs` or `--cancel`; starts nothing."""
    outputs = options.outputs.resolve()
    if options.cancel:
        chosen = _matching(plan, options.cancel, "--cancel", outputs)
        found = held.cancel(outputs, [run.run_id for run in chosen])
        told = f"took {len(found)} of {counted(len(chosen), 'matching run')} out of the queue; "
        told += "the command without --cancel submits them again"
        if not found:
            told = f"no job holds any of {counted(len(chosen), 'matching run')}"
        console.print(told, markup=False)
        return OK
    if options.logs:
        for run in _matching(plan, options.logs, "--logs", outputs):
            console.print(f"== {run.run_id} seed {run.seed} {run.label}: {run.state}, {run.reason}",
                          markup=False, soft_wrap=True)  # fmt: skip
            for file in held.logs(outputs, run.run_id):
                console.print(f"-- {short_path(file)}", markup=False, soft_wrap=True)
                lines = file.read_text(errors="replace").splitlines()[-LOG_LINES:]
                console.print("\n".join(lines), markup=False, soft_wrap=True)
        return OK
    return _status(plan, outputs, console)


def _status(plan: Plan, outputs: Path, console: Console) -> int:
    """The table, live on a terminal until nothing is at work any more."""
    show_plan(plan, console, every_run=False)
    watch = Watch(list(plan.runs), console)
    plan, _ = _look(plan.grid, outputs, watch)
    if not console.is_terminal:
        for line in watch.lines():
            print(plain_line(line))
    else:
        with contextlib.suppress(KeyboardInterrupt), watch:
            while any(run.state in AT_WORK for run in plan.runs):
                time.sleep(EVERY)
                plan, _ = _look(plan.grid, outputs, watch)
    missing = [r for r in plan.runs if not r.has_results and r.state not in AT_WORK]
    return INCOMPLETE if missing else OK


def _matching(plan: Plan, pattern: str, option: str, outputs: Path) -> list[PlannedRun]:
    """Runs whose label, id or job holds the pattern, or matches it with * and ?.

    A job that has ended has logs, but is not to be cancelled: another may hold the run now.

    Raises:
        UserError: there is none.
    """
    jobs: dict[str, list[str]] = {run.run_id: [] for run in plan.runs}
    for run_id, holder in squeue.queue(outputs).items():
        jobs.get(run_id, []).append(holder.element_id)
    for batch in batches(outputs) if option == "--logs" else ():
        for index, element in enumerate(batch.elements):
            for work in element:
                jobs.get(work.run_dir.name, []).append(batch.element_id(index) or "")
    labels: dict[str, list[str]] = {}  # of all cells that a training serves
    for cell in plan.grid.cells:
        for _, run_id in cell.runs:
            labels.setdefault(run_id, []).append(cell.label)
    found = []
    for run in plan.runs:
        names = [*labels[run.run_id], run.run_id]
        names += [name for job in jobs[run.run_id] for name in (job, job.split("_")[0])]
        held = run.run_id.startswith(pattern) or any(pattern in x for x in labels[run.run_id])
        if held or any(fnmatchcase(name, pattern) for name in names):
            found.append(run)
    if not found:
        known = [label for each in labels.values() for label in each]
        raise UserError(f"{option} '{pattern}' matches none of the {len(plan.runs)} runs by label, "
                        f"id or job{nearest(pattern, known)}")  # fmt: skip
    return found
