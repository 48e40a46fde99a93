"""What goes with a sweep's work and follows it: the mirror, the report and the last words."""

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from harness import store_address
from harness.files import write_atomic
from harness.grid import Grid
from harness.identity import digest
from harness.launch import processes
from harness.plan import Plan, make_plan
from harness.provenance import ROOT
from harness.track import ui_command

OK, INCOMPLETE, BAD_INPUT, STOPPED = 0, 1, 2, 130
REPORTS = ROOT / "reports"
AT_WORK = ("queued", "running")


@contextlib.contextmanager
def tracker(name: str, outputs: Path, off: bool, uri: str | None) -> Iterator[None]:
    """The one writer to MLflow, a process of its own: its troubles stop no run."""
    if off:
        yield
        return
    follower = subprocess.Popen(
        _track("follow", outputs, name),
        env=processes.environment() | _address(uri),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        follower.terminate()  # it makes a last pass
        if follower.wait() == 0:
            _note_mirrored(name, outputs, uri)


def mirror_what_is_left(name: str, outputs: Path, uri: str | None) -> None:
    """Bring MLflow up to date, if it has not all that the report has: a tracker may have been
    killed, or its server away. What goes wrong is said, and stops nothing."""
    mark = _mirrored_file(name, outputs)
    if mark.exists() and mark.read_text() == _to_mirror(name, outputs, uri):
        return
    synced = subprocess.run(
        _track("sync", outputs, name),
        env=processes.environment() | _address(uri),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    if synced.returncode == 0:
        _note_mirrored(name, outputs, uri)


def _note_mirrored(name: str, outputs: Path, uri: str | None) -> None:
    write_atomic(_mirrored_file(name, outputs), _to_mirror(name, outputs, uri))


def _mirrored_file(name: str, outputs: Path) -> Path:
    return outputs / "ablations" / f"{name}.mirrored"


def _to_mirror(name: str, outputs: Path, uri: str | None) -> str:
    """What the report was made of, and where the mirror is."""
    made_of = outputs / "reports" / name / "inputs.json"
    known = made_of.read_text(errors="replace") if made_of.exists() else ""
    return digest([known, store_address.public(uri) if uri else ""])


def _track(command: str, outputs: Path, name: str) -> list[str]:
    return [sys.executable, "-m", "harness.track", command, "--outputs", str(outputs), name]


def _address(uri: str | None) -> dict[str, str]:
    """Not among the words of a command, which every user of the machine can read."""
    return {store_address.VARIABLE: uri} if uri else {}


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
    made_of = json.dumps(inputs, indent=1) + "\n"
    made = [folder / name for name in ("inputs.json", "report.md", "headline.txt")]
    if all(file.exists() for file in made) and made[0].read_bytes() == made_of.encode():
        return
    from reports.render import build

    build(record, outputs)
    write_atomic(folder / "inputs.json", made_of)


def conclude(plan: Plan, name: str, outputs: Path, console: Console, uri: str | None = None) -> int:
    """Say what failed, the figures that matter and where everything is; the exit status.

    Runs in a queue are no failure: they have been left to it. Nor are those that early stopping,
    which was asked for, has ended.
    """
    missing = [run for run in plan.runs if not run.has_results]
    for run in (run for run in missing if run.state == "stopped"):
        console.print(f"[yellow]stopped[/] {run.run_id} seed {run.seed} {escape(run.label)}: "
                      f"{escape(run.reason)}")  # fmt: skip
    for run in (run for run in missing if run.state not in (*AT_WORK, "stopped")):
        console.print(f"[red]{run.state}[/] {run.run_id} seed {run.seed} {escape(run.label)}: "
                      f"{escape(run.reason)}")  # fmt: skip
        for line in run.folder.log_tail():
            console.print(f"    {line}", markup=False)
        console.print(f"    log: {short_path(run.folder.log_file)}", markup=False)
    for state in ("failed", "stopped"):
        if any(run.state == state for run in missing):
            console.print(f"start {state} runs again with --retry-failed")
    stale = [run for run in plan.runs if run.state == "stale"]
    if stale:
        console.print(f"{len(stale)} runs are stale ({stale[0].reason}); redo with --redo-stale")
    folder = outputs / "reports" / name
    console.print((folder / "headline.txt").read_text().rstrip(), markup=False)
    console.print(f"report: {short_path(folder / 'report.md')}", markup=False, soft_wrap=True)
    mirrored = (outputs / "mlflow.db").exists()
    words = ["sync", "--outputs", short_path(outputs), name]
    sync = f"python -m harness.track {shlex.join(words)}"
    command = ui_command(outputs) if mirrored else sync
    if uri:
        command = store_address.public(uri)
    console.print(f"MLflow: {command}", markup=False, soft_wrap=True)
    ended = any(run.state not in (*AT_WORK, "stopped") for run in missing)
    return INCOMPLETE if ended else OK


def short_path(path: Path) -> str:
    """`path`, from the current folder where it lies below that."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
