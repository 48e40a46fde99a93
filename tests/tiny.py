"""What tests share: a base small enough to train in a second, and the commands as a user has them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
