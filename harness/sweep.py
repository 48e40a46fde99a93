"""Do what an ablation still needs: plan, train, evaluate, track, report.

    python -m harness.sweep ablations/quickstart.yaml [KEY=VALUE ...]

The same command again does only what is missing. Exit status: 0 every cell has its result, or a
job in Slurm's queue, or was stopped early as the file asks; 1 some have not (each is named with its
reason); 2 the ablation or an option is wrong; 130 stopped.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator

from rich.console import Console

from harness.ablation import read_ablation
from harness.claim import ask_to_stop, last_attempt
from harness.conclude import (
    BAD_INPUT,
    INCOMPLETE,
    OK,
    STOPPED,
    conclude,
    mirror_what_is_left,
    report,
    tracker,
)
from harness.dataset import check as check_data
from harness.errors import UnreachableError, UserError
from harness.files import write_json
from harness.grid import expand, to_json
from harness.launch.processes import Work
from harness.options import parse
from harness.plan import Plan, PlannedRun, make_plan, redo_stale
from harness.provenance import check_own_packages
from harness.record import prepare
from harness.rungs import ladders
from harness.store_address import named_store, without_secrets
from harness.table import Watch, duration, show_plan


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parse(arguments, __doc__)
    check_own_packages()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return sweep(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return INCOMPLETE if isinstance(error, UnreachableError) else BAD_INPUT
    except BrokenPipeError:  # the plan was piped into `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        place, reason = error.filename or options.outputs, error.strerror or error
        print(f"{place}: {reason}; mend that, then give the same command", file=sys.stderr)
        return INCOMPLETE
    except KeyboardInterrupt as stopped:
        kept = "stopped; everything is kept"
        print(f"\n{stopped.args[0] if stopped.args else kept}. Go on with:\n  "
              f"{_command(arguments, options.mlflow_uri or '')}")  # fmt: skip
        return STOPPED


def sweep(options: argparse.Namespace) -> int:
    """Plan, work until nothing is missing that can be done, report."""
    outputs = options.outputs.resolve()
    options.mlflow_uri = None if options.no_track else named_store(options.mlflow_uri, outputs)
    ablation = read_ablation(options.ablation, tuple(options.changes), options.base, options.seeds)
    whole = expand(ablation)  # the record and the report are of all cells, whatever --only picks
    grid = expand(ablation, options.only) if options.only else whole
    console = _Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if options.launcher == "slurm":
        from harness.queued import plan_with_queue as plan_now
    else:
        plan_now = make_plan
    plan = plan_now(grid, outputs)
    ladders(plan, options.launcher)  # early stopping that cannot work is said here
    if options.json:
        print(json.dumps(plan.to_json(), indent=1))
        return OK
    if options.status or options.logs or options.cancel:
        from harness.queued import look_after

        return look_after(plan, options, console)
    if options.redo_stale and not options.dry_run:
        for moved in redo_stale(plan):
            console.print(f"kept as {moved}", markup=False)
        plan = plan_now(grid, outputs)
    show_plan(plan, console, every_run=options.dry_run)
    if options.dry_run:
        return OK
    record = to_json(whole)
    write_json(outputs / "ablations" / f"{ablation.name}.json", record)
    if _todo(plan, options.retry_failed, set()):
        used = {(d.name, d.folder): d for d in (cell.training.data for cell in grid.cells)}
        for data in used.values():
            check_data(data)  # a missing data set is said once, here, and not by every run
    if options.launcher == "slurm":
        from harness.queued import leave_to_slurm

        return leave_to_slurm(plan, options, console, whole, record)
    if _todo(plan, options.retry_failed, set()):
        started = time.monotonic()
        with tracker(ablation.name, outputs, options.no_track, options.mlflow_uri):
            plan = _work(plan, options, console)
            report(whole, record, outputs)
        console.print(f"worked for {duration(time.monotonic() - started)}")
    else:
        report(whole, record, outputs)
    if not options.no_track:
        mirror_what_is_left(ablation.name, outputs, options.mlflow_uri)
    return conclude(plan, record["name"], outputs, console, options.mlflow_uri)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The plan was piped into `head`: nothing is wrong."""
        raise SystemExit(OK)


def _todo(plan: Plan, retry_failed: bool, tried: set[str]) -> list[PlannedRun]:
    """Runs to start, and runs that another sweep is at work on and that must be waited for."""
    startable = {run.run_id for run in plan.startable(retry_failed)} - tried
    return [run for run in plan.runs if run.state == "running" or run.run_id in startable]


def _work(plan: Plan, options: argparse.Namespace, console: Console) -> Plan:
    """Launch what is missing until nothing is left to try; the plan as it then stands."""
    tried: set[str] = set()
    while todo := _todo(plan, options.retry_failed, tried):
        mine = [run for run in todo if run.state != "running"]
        for run in mine:
            prepare(run.folder, run.training, run.group_id, run.seed, plan.grid.job,
                    run.evaluations)  # fmt: skip
        works = [Work(run.folder.path, run.wanted(options.retry_failed)) for run in mine]
        with Watch(todo, console), _stopping_gently(mine, console):
            _launch(works, plan, options)
        plan = make_plan(plan.grid, options.outputs.resolve())
        # What another sweep holds now was not ours to try: it may yet be left to us.
        held = {run.run_id for run in plan.runs if run.state == "running"}
        tried |= {run.run_id for run in mine} - held
    return plan


def _launch(works: list[Work], plan: Plan, options: argparse.Namespace) -> None:
    job = plan.grid.job
    if not works:  # another sweep has what is left: look again in a moment
        time.sleep(2)
    elif options.launcher == "ray":
        from harness.launch import ray

        ray.launch(works, job, options.ray_address, ladders(plan, options.launcher))
    else:
        from harness.launch import inline

        inline.launch(works, job)


@contextlib.contextmanager
def _stopping_gently(runs: list[PlannedRun], console: Console) -> Iterator[None]:
    """SIGINT and SIGTERM let each run write a checkpoint, before a launcher can kill it."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
        console.print("stopping: each run writes a checkpoint first (Ctrl-C again: at once)")
        _stop_all(runs)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_all(runs: list[PlannedRun]) -> None:
    """Ask until no run folder is claimed any more, for a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for run in runs:  # each time: a run may have been starting
            ask_to_stop(run.folder)
        attempts = [last_attempt(run.folder) for run in runs]
        if not any(attempt and attempt.alive for attempt in attempts):
            return
        time.sleep(0.2)


def _command(arguments: list[str] | None, uri: str) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return without_secrets(f"python -m harness.sweep {shlex.join(given)}", uri)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
