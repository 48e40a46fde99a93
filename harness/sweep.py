"""Do what an ablation still needs: plan, train, evaluate, track, report.

    python -m harness.sweep ablations/quickstart.yaml [KEY=VALUE ...]

The same command again does only what is missing. Exit status: 0 every cell has its result, 1 some
have not (each is named with its reason), 2 the ablation or an option is wrong, 130 stopped.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from harness.ablation import read_ablation
from harness.claim import ask_to_stop, last_attempt
from harness.config import Job
from harness.dataset import check as check_data
from harness.errors import UserError
from harness.files import read_json, write_json
from harness.grid import Grid, expand, to_json
from harness.launch import processes
from harness.launch.processes import Work
from harness.plan import Plan, PlannedRun, make_plan, redo_stale
from harness.provenance import ROOT, check_own_packages
from harness.record import prepare
from harness.table import Watch, duration, show_plan
from harness.track import ui_command

OK, INCOMPLETE, BAD_INPUT, STOPPED = 0, 1, 2, 130
REPORTS = ROOT / "reports"


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
    options = parser.parse_intermixed_args(arguments)
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        place, reason = error.filename or options.outputs, error.strerror or error
        print(f"{place}: {reason}; mend that, then give the same command", file=sys.stderr)
        return INCOMPLETE
    except KeyboardInterrupt:
        print(f"\nstopped; everything is kept. Go on with:\n  {_command(arguments)}")
        return STOPPED


def sweep(options: argparse.Namespace) -> int:
    """Plan, work until nothing is missing that can be done, report."""
    ablation = read_ablation(options.ablation, tuple(options.changes), options.base, options.seeds)
    whole = expand(ablation)  # the record and the report are of all cells, whatever --only picks
    grid = expand(ablation, options.only) if options.only else whole
    outputs = options.outputs.resolve()
    plan = make_plan(grid, outputs)
    if options.json:
        print(json.dumps(plan.to_json(), indent=1))
        return OK
    console = _Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    if options.redo_stale and not options.dry_run:
        for moved in redo_stale(plan):
            console.print(f"kept as {moved}", markup=False)
        plan = make_plan(grid, outputs)
    show_plan(plan, console, every_run=options.dry_run)
    if options.dry_run:
        return OK
    record = to_json(whole)
    write_json(outputs / "ablations" / f"{ablation.name}.json", record)
    if _todo(plan, options.retry_failed, set()):
        used = {(d.name, d.folder): d for d in (cell.training.data for cell in grid.cells)}
        for data in used.values():
            check_data(data)  # a missing data set is said once, here, and not by every run
        started = time.monotonic()
        with _tracker(ablation.name, outputs, options.no_track):
            plan = _work(plan, options, console)
            report(whole, record, outputs)
        console.print(f"worked for {duration(time.monotonic() - started)}")
    else:
        report(whole, record, outputs)
    return conclude(plan, record["name"], outputs, console)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The plan was piped into `head`: nothing is wrong."""
        raise SystemExit(OK)


def _todo(plan: Plan, retry_failed: bool, tried: set[str]) -> list[PlannedRun]:
    """Runs to start, and runs that another sweep is at work on and that must be waited for."""
    wanted = []
    for run in plan.runs:
        startable = run.state == "new" or (run.state == "failed" and retry_failed)
        if run.state == "running" or (startable and run.run_id not in tried):
            wanted.append(run)
    return wanted


def _work(plan: Plan, options: argparse.Namespace, console: Console) -> Plan:
    """Launch what is missing until nothing is left to try; the plan as it then stands."""
    tried: set[str] = set()
    while todo := _todo(plan, options.retry_failed, tried):
        mine = [run for run in todo if run.state != "running"]
        for run in mine:
            prepare(run.folder, run.training, run.group_id, run.seed, plan.grid.job,
                    run.evaluations)  # fmt: skip
        works = [Work(run.folder.path, _wanted(run, options.retry_failed)) for run in mine]
        with Watch(todo, console), _stopping_gently(mine, console):
            _launch(works, plan.grid.job, options)
        plan = make_plan(plan.grid, options.outputs.resolve())
        # What another sweep holds now was not ours to try: it may yet be left to us.
        held = {run.run_id for run in plan.runs if run.state == "running"}
        tried |= {run.run_id for run in mine} - held
    return plan


def _wanted(run: PlannedRun, retry_failed: bool) -> tuple[str, ...]:
    """The evaluations to make: a failed one is tried again on request only."""
    again = ("new", "failed") if retry_failed else ("new",)
    return tuple(e for e, (state, _) in run.evaluation_states.items() if state in again)


def _launch(works: list[Work], job: Job, options: argparse.Namespace) -> None:
    if not works:  # another sweep has what is left: look again in a moment
        time.sleep(2)
    elif options.launcher == "ray":
        from harness.launch import ray

        ray.launch(works, job, options.ray_address)
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


@contextlib.contextmanager
def _tracker(name: str, outputs: Path, off: bool) -> Iterator[None]:
    """The one writer to MLflow, a process of its own: its troubles stop no run."""
    if off:
        yield
        return
    tracker = subprocess.Popen(
        [sys.executable, "-m", "harness.track", "follow", "--outputs", str(outputs), name],
        env=processes.environment(),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        tracker.terminate()  # it makes a last pass
        tracker.wait()


def report(grid: Grid, record: dict[str, Any], outputs: Path) -> None:
    """Write the report, unless the one that is there was made of the same results."""
    folder = outputs / "reports" / record["name"]
    plan = make_plan(grid, outputs)
    results = [(run.folder, eval_id) for run in plan.runs for eval_id in run.evaluations]
    inputs = {
        "grid": record,
        "plan": plan.to_json(),
        "measured": [(f.result(e) or {}).get("time") for f, e in results if f.exists()],
        "reports": {file.name: file.stat().st_size for file in sorted(REPORTS.glob("*.py"))},
    }
    made = [folder / name for name in ("inputs.json", "report.md", "headline.txt")]
    if all(file.exists() for file in made) and read_json(made[0]) == inputs:
        return
    from reports.render import build

    build(record, outputs)
    write_json(folder / "inputs.json", inputs)


def conclude(plan: Plan, name: str, outputs: Path, console: Console) -> int:
    """Say what failed, the figures that matter and where everything is; the exit status."""
    missing = [run for run in plan.runs if not run.has_results]
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
    folder = outputs / "reports" / name
    console.print((folder / "headline.txt").read_text().rstrip(), markup=False)
    console.print(f"report: {_short(folder / 'report.md')}", markup=False, soft_wrap=True)
    mirrored = (outputs / "mlflow.db").exists()
    sync = f"python -m harness.track sync --outputs {shlex.quote(_short(outputs))} {name}"
    command = ui_command(outputs) if mirrored else sync
    console.print(f"MLflow: {command}", markup=False, soft_wrap=True)
    return INCOMPLETE if missing else OK


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _command(arguments: list[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return f"python -m harness.sweep {shlex.join(given)}"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
