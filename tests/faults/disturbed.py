"""What the fault tests share: a sweep that nothing happened to, and one that something did."""

import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from safetensors.numpy import load_file

from harness.claim import attempts
from harness.record import RunFolder, run_folder
from tests.tiny import ROOT, command, figures, losses, wait_for, weights
from tests.working import working

# How many random moments of each kind of kill: a few in CI, RESOLUTE_FAULTS=20 in full.
MOMENTS = int(os.environ.get("RESOLUTE_FAULTS", "1"))
SEED = int(os.environ.get("RESOLUTE_FAULTS_SEED", "0"))

# A training of 400 steps by two ranks, so that there is a moment to hit.
STEPS = 400
ABLATION = """\
question: Does it survive?
base: base.yaml
set: {train.images: 12800, job.ranks: 2, job.cpus: 2, job.checkpoint_every: 50}
include:
  - {inference.law: pi}
seeds: [0]
evaluate: {resolution: [12]}
baseline: {inference.law: extrapolate}
"""


@dataclass(frozen=True)
class Outcome:
    """What comes out of a sweep that nothing happens to."""

    result: dict[str, object]
    mirrored: list[tuple[object, ...]]
    seconds: float


def start(
    ablation: Path, outputs: Path, *options: str, launcher: str = "inline", **environment: str
) -> subprocess.Popen[str]:
    """The sweep as a user starts it, in the background; what it says goes to said.txt."""
    outputs.parent.mkdir(exist_ok=True)
    with (outputs.parent / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.sweep", str(ablation), "--outputs", str(outputs),
             "--launcher", launcher, *options],
            stdout=said,
            stderr=said,
            text=True,
            cwd="/",
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        )  # fmt: skip


def again(ablation: Path, outputs: Path, *options: str, launcher: str = "inline") -> None:
    """The same command again ends well."""
    where = ("--outputs", outputs, "--launcher", launcher)
    done = command("harness.sweep", ablation, *where, *options)
    assert done.returncode == 0, done.stdout + done.stderr


def runs(outputs: Path) -> list[RunFolder]:
    return [run_folder(outputs, path.name) for path in sorted((outputs / "runs").iterdir())]


def trained(run: RunFolder) -> dict[str, bytes]:
    """Weights, their averages and AdamW's moments, as the last checkpoint has them."""
    (last,) = run.checkpoints()
    files = {file.name: load_file(file) for file in last.glob("*.safetensors")}
    assert len(files) > 3
    return {f"{f} {name}": a.tobytes() for f, arrays in files.items() for name, a in arrays.items()}


def result(outputs: Path) -> dict[str, object]:
    """Everything that must not depend on what a sweep went through."""
    return {run.run_id: (losses(run), figures(run), weights(run), trained(run))
            for run in runs(outputs)}  # fmt: skip


def mirrored(outputs: Path) -> list[tuple[object, ...]]:
    """Every point in MLflow but for times, with its run's name: as many rows as were logged."""
    with sqlite3.connect(outputs / "mlflow.db") as database:
        rows = database.execute(
            "select r.name, m.key, m.step, count(*) from metrics m join runs r using (run_uuid) "
            "where r.lifecycle_stage = 'active' and m.key not like '%per_second%' "
            "and m.key not like '%seconds%' group by 1, 2, 3, m.value order by 1, 2, 3"
        ).fetchall()
    database.close()
    return rows


def ranks(outputs: Path) -> list[psutil.Process]:
    """The processes at work on the run folders of `outputs`."""
    return working(outputs)


def syncers(outputs: Path) -> list[psutil.Process]:
    return working(outputs, "harness.track")


def quiet(outputs: Path, seconds: float = 90) -> None:
    """Wait until nothing is at work on `outputs` any more."""
    deadline = time.monotonic() + seconds
    while ranks(outputs) or syncers(outputs):
        assert time.monotonic() < deadline, "something is left at work"
        time.sleep(0.1)


def steps(outputs: Path) -> int:
    """The last step that metrics.jsonl of the first run has a line for; 0 before any."""
    if not (outputs / "runs").exists() or not runs(outputs):
        return 0
    return max((step for step, _ in losses(runs(outputs)[0])), default=0)


def reach(share: float, outputs: Path) -> None:
    """Wait until the first run is so far: a tenth is to begin, the last one to measure."""
    wait_for(lambda: (outputs / "runs").exists() and bool(runs(outputs)))
    (run,) = runs(outputs)
    if share < 0.1:
        wait_for(lambda: bool(attempts(run)) and bool(ranks(outputs)))
    elif share < 0.9:
        wait_for(lambda: steps(outputs) >= (share - 0.1) / 0.8 * STEPS)
    else:
        wait_for(lambda: run.done() is not None)
