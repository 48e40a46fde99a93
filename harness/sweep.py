"""Do what an ablation still needs: plan, train, evaluate, track, report.

    python -m harness.sweep ablations/quickstart.yaml [KEY=VALUE ...]

The same command again does only what is missing. Exit status: 0 every cell has its result, 1 some
have not (each is named with its reason), 2 the ablation or an option is wrong, 130 stopped.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.ablation import read_ablation
from harness.claim import last_attempt
from harness.errors import UserError
from harness.grid import expand, to_json
from harness.plan import Plan, PlannedRun, make_plan, redo_stale
from harness.provenance import ROOT, check_own_packages
from harness.record import prepare, read_json, write_json
from harness.table import STYLES, Watch, duration

OK, INCOMPLETE, BAD_INPUT, STOPPED = 0, 1, 2, 130


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m harness.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ablation", type=Path, metavar="FILE", help="the ablation, a YAML file (docs/grammar.md)")
    add("changes", nargs="*", metavar="KEY=VALUE", help="changes on top of the file's 'set'")
    add("--dry-run", action="store_true", help="show the plan and the reason for each run")
    add("--json", action="store_true", help="the plan for programs; implies --dry-run")
    add("--launcher", choices=("ray", "inline"), default="ray", help="what starts the runs")
    add("--ray-address", metavar="HOST:PORT", help="a running Ray cluster ('auto' finds one)")
    add("--base", type=Path, metavar="FILE", help="another base under the same question")
    add("--only", metavar="PATTERN", help="cells whose label holds or matches PATTERN")
    add("--seeds", type=int, metavar="N", help="seeds 0 .. N-1 in place of the file's")
    add("--retry-failed", action="store_true", help="start failed runs again")
    add("--redo-stale", action="store_true", help="redo results of other code (old ones are kept)")
    add("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="default: outputs")
    add("--no-track", action="store_true", help="leave MLflow alone; fill it later with "
        "'python -m harness.track sync'")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: must be at least 1")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parse(arguments)
    check_own_packages()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return sweep(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # the plan was piped into `head`
        sys.stderr.close()
        return OK
    except OSError as error:
        print(f"{error.filename or options.outputs}: {error.strerror}", file=sys.stderr)
        return INCOMPLETE
    except KeyboardInterrupt:
        print(f"\nstopped; everything is kept. Go on with:\n  {_command(arguments)}")
        return STOPPED


def sweep(options: argparse.Namespace) -> int:
    """Plan, work until nothing is missing that can be done, report."""
    ablation = read_ablation(options.ablation, tuple(options.changes), options.base, options.seeds)
    grid = expand(ablation, options.only)
    outputs = options.outputs.resolve()
    plan = make_plan(grid, outputs)
    if options.json:
        print(json.dumps(plan.to_json(), indent=1))
        return OK
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if options.redo_stale and not options.dry_run:
        for moved in redo_stale(plan):
            console.print(f"kept as {moved}", markup=False)
        plan = make_plan(grid, outputs)
    show(plan, console, every_run=options.dry_run)
    if options.dry_run:
        return OK
    record = to_json(grid)
    write_json(outputs / "ablations" / f"{ablation.name}.json", record)
    started = time.monotonic()
    worked = False
    tried: set[str] = set()
    while todo := _todo(plan, options.retry_failed, tried):
        _check_data()
        worked = True
        with _tracker(ablation.name, outputs, options.no_track):
            _work(plan, todo, options, console)
        tried |= {run.run_id for run in todo if run.state != "running"}
        plan = make_plan(grid, outputs)
    return finish(plan, record, outputs, worked, time.monotonic() - started, console)


def _todo(plan: Plan, retry_failed: bool, tried: set[str]) -> list[PlannedRun]:
    """Runs to start, and runs that another sweep is at work on and that must be waited for."""
    wanted = []
    for run in plan.runs:
        startable = run.state == "new" or (run.state == "failed" and retry_failed)
        if run.state == "running" or (startable and run.run_id not in tried):
            wanted.append(run)
    return wanted


def _work(
    plan: Plan, todo: list[PlannedRun], options: argparse.Namespace, console: Console
) -> None:
    mine = [run for run in todo if run.state != "running"]
    job = plan.grid.job
    for run in mine:
        prepare(run.folder, run.training, run.group_id, run.seed, job, run.evaluations)
    folders = [run.folder.path for run in mine]
    with Watch(todo, console):
        try:
            if not mine:  # another sweep has them: look again in a moment
                time.sleep(2)
            elif options.launcher == "ray":
                from harness.launch import ray

                ray.launch(folders, job, options.ray_address)
            else:
                from harness.launch import inline

                inline.launch(folders, job)
        except KeyboardInterrupt:
            console.print("stopping: each run writes a checkpoint first (again Ctrl-C: at once)")
            _wait_for_end(mine)
            raise


def _wait_for_end(runs: list[PlannedRun]) -> None:
    """Until no run folder is claimed any more, for a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        attempts = [last_attempt(run.folder) for run in runs]
        if not any(attempt and attempt.alive for attempt in attempts):
            return
        time.sleep(0.2)


def _check_data() -> None:
    """A missing data set should be said once, here, and not by every run.

    Raises:
        DatasetError: the places that were looked at and what to do.
    """
    from harness.dataset import find

    find()


@contextlib.contextmanager
def _tracker(name: str, outputs: Path, off: bool) -> Iterator[None]:
    """The one writer to MLflow, a process of its own: its troubles stop no run."""
    if off:
        yield
        return
    from harness.run import PARENT

    tracker = subprocess.Popen(
        [sys.executable, "-m", "harness.track", "follow", "--outputs", str(outputs), name],
        env=os.environ
        | {
            PARENT: str(os.getpid()),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        },
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        tracker.terminate()  # it makes a last pass
        tracker.wait()


def show(plan: Plan, console: Console, every_run: bool) -> None:
    """The plan for people."""
    grid, counts = plan.grid, plan.counts()
    evaluations = sum(len(run.evaluations) for run in plan.runs)
    measured = sum(
        state in ("done", "stale")
        for run in plan.runs
        for state, _ in run.evaluation_states.values()
    )
    console.print(f"[bold]{escape(grid.ablation.question)}[/]")
    console.print(
        f"{len(grid.cells)} cells x {len(grid.ablation.seeds)} seeds: {len(plan.runs)} trainings "
        f"({', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}), "
        f"{evaluations} evaluations ({measured} done)"
    )
    saved = plan.trainings_without_sharing - len(plan.runs)
    if saved:
        console.print(
            f"sharing saves {saved} of {plan.trainings_without_sharing} trainings "
            f"({plan.images_saved():,} training images{_gpu_hours(plan)})"
        )
    for rule, count in grid.dropped.items():
        console.print(f"exclude '{rule}' dropped {count} cells", markup=False)
    for note in grid.notes:
        console.print(note, markup=False)
    if not every_run:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "seed", "state", "evaluations", "cell", "reason"):
        table.add_column(column, overflow="fold")
    for run in plan.runs:
        done = sum(state in ("done", "stale") for state, _ in run.evaluation_states.values())
        state = f"[{STYLES[run.state]}]{run.state}[/]"
        table.add_row(run.run_id[:8], str(run.seed), state, f"{done}/{len(run.evaluations)}",
                      escape(run.label), escape(run.reason))  # fmt: skip
    console.print(table)


def _gpu_hours(plan: Plan) -> str:
    """What the saved images would have taken at the speed of the trainings that are done."""
    speeds = []
    for run in plan.runs:
        done = run.folder.done() if run.folder.exists() else None
        if done and done["seconds"]:
            speeds.append(done["images"] / done["seconds"])
    if not speeds:
        return ""
    hours = plan.images_saved() / (sum(speeds) / len(speeds)) / 3600
    kind = "GPU" if plan.grid.job.gpus else "CPU"
    return f", {hours:.2g} {kind} hours at {sum(speeds) / len(speeds):.0f} images/s"


def finish(
    plan: Plan,
    record: dict[str, Any],
    outputs: Path,
    worked: bool,
    seconds: float,
    console: Console,
) -> int:
    """Write the report, say what failed and where everything is; the exit status."""
    name = record["name"]
    report = outputs / "reports" / name / "report.md"
    if worked or not _report_is_current(report, plan):
        from reports.render import build

        build(record, outputs)
        write_json(report.with_name("inputs.json"), _report_inputs(plan))
    missing = [run for run in plan.runs if not run.has_results]
    if worked:
        console.print(f"worked for {duration(seconds)}")
    for run in missing:
        console.print(f"[red]{run.state}[/] {run.run_id} seed {run.seed} {escape(run.label)}: "
                      f"{escape(run.reason)}")  # fmt: skip
        for line in run.folder.log_tail():
            console.print(f"    {line}", markup=False)
        console.print(f"    log: {_short(run.folder.log_file)}", markup=False)
    if any(run.state == "failed" for run in missing):
        console.print("start failed runs again with --retry-failed")
    stale = [run for run in plan.runs if run.state == "stale"]
    if stale:
        console.print(f"{len(stale)} runs are stale ({stale[0].reason}); redo with --redo-stale")
    _headline(record, outputs, console)
    from harness.track import ui_command

    console.print(f"report: {_short(report)}", markup=False)
    console.print(f"MLflow: {ui_command(outputs)}", markup=False)
    return INCOMPLETE if missing else OK


def _headline(record: dict[str, Any], outputs: Path, console: Console) -> None:
    """The three figures that matter, as the report has them."""
    file = outputs / "reports" / record["name"] / "headline.txt"
    if file.exists():
        console.print(file.read_text().rstrip(), markup=False)


def _report_inputs(plan: Plan) -> dict[str, Any]:
    """What a report was made of; the same inputs need no new one."""
    return {
        "plan": plan.to_json(),
        "cells": [[cell.cell_id, cell.label] for cell in plan.grid.cells],
        "baseline": plan.grid.baseline,
    }


def _report_is_current(report: Path, plan: Plan) -> bool:
    inputs = report.with_name("inputs.json")
    if not (report.exists() and inputs.exists()):
        return False
    return bool(read_json(inputs) == _report_inputs(plan))


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _command(arguments: list[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return " ".join(["python -m harness.sweep", *given])


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
