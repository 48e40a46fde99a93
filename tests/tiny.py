"""What tests share: a base that trains in a second, and the commands as a user has them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.ablation import read_ablation
from harness.grid import expand
from harness.record import RunFolder, prepare, run_folder

ROOT = Path(__file__).resolve().parent.parent

BASE = """\
data: {name: fashion_mnist, resolution: 8}
model: {encoding: rope, width: 16, depth: 1, heads: 1, patch: 2}
train: {images: 640, batch: 32, learning_rate: 2e-3}
inference: {solver: euler, steps: 2}
evaluate: {samples: 40, reference_images: 300, manifold_images: 100}
job: {cpus: 1, checkpoint_every: 5, log_every: 2, sample_batch: 16}
"""

ABLATION = """\
question: Does the tiny one run?
base: base.yaml
include:
  - {inference.law: pi}
  - {positions.sampler: randomized, positions.range_multiplier: 2}
seeds: [0]
evaluate: {resolution: [8, 12]}
baseline: {positions.sampler: consecutive, inference.law: extrapolate}
"""

Write = Callable[..., Path]


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in a process of its own, from another folder than the project's."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        timeout=300,
    )


def prepared(outputs: Path, ablation: Path, *changes: str, cell: int = 0) -> RunFolder:
    """The run folder of a cell's first seed, ready for `python -m harness.run`."""
    grid = expand(read_ablation(ablation, changes))
    found = grid.cells[cell]
    seed, run_id = found.runs[0]
    folder = run_folder(outputs, run_id)
    evaluations = {m.eval_id: m.evaluation for m in found.measurements}
    prepare(folder, found.training, found.group_id, seed, grid.job, evaluations)
    return folder


def losses(run: RunFolder) -> list[tuple[int, float]]:
    """(step, loss) of every line: what must not depend on how a run came about."""
    return [(line["step"], line["loss"]) for line in run.metrics()]


def weights(run: RunFolder) -> dict[str, bytes]:
    """The final weights and all snapshots, by the names of their files."""
    return {file.name: file.read_bytes() for file in run.path.glob("weights*.safetensors")}


def figures(run: RunFolder) -> dict[str, object]:
    """Metrics and the hash of the images of every evaluation."""
    results = {eval_id: run.result(eval_id) for eval_id in run.requests()}
    return {e: r and (r["metrics"], r["floor"], r["samples_sha256"]) for e, r in results.items()}


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until a condition holds; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
