"""What an ablation would cost: floating-point operations counted from its grid, and hours.

    python -m benchmarks.cost ablations/range.yaml [KEY=VALUE ...] [--base FILE] [--tflops 400]

Training is 3 forward passes an image, sampling one a call of the model (two with guidance or a
second Heun stage). Reading, measuring and starting are left out. `--tflops` is what the device
does of such work: about 40 % of an H100's 990 in bf16 is 400; measure yours with benchmarks/gpu.sh.
"""

import argparse
import sys
from pathlib import Path

from harness.ablation import read_ablation
from harness.config import Evaluation, Training
from harness.errors import UserError
from harness.grid import Grid, expand
from harness.sample import generated_size
from harness.train import forward_flops, training_flops

CALLS = {"heun": 2, "euler": 1, "ddpm": 1, "ddim": 1}  # of the model a step


def cost(grid: Grid) -> tuple[int, int, int, int]:
    """Trainings, their FLOPs, evaluations, their FLOPs; what cells share counts once."""
    trainings: dict[str, int] = {}
    evaluations: dict[tuple[str, str], int] = {}
    for cell in grid.cells:
        for _, run_id in cell.runs:
            trainings[run_id] = training_flops(cell.training)
            for one in cell.measurements:
                asked = sampling_flops(cell.training, one.evaluation)
                evaluations[run_id, one.eval_id] = asked
    return len(trainings), sum(trainings.values()), len(evaluations), sum(evaluations.values())


def sampling_flops(training: Training, evaluation: Evaluation) -> int:
    """FLOPs of generating the images of one evaluation."""
    inference = evaluation.inference
    size = generated_size(training, evaluation)
    assert inference.solver is not None  # canonical
    calls = inference.steps * CALLS[inference.solver] * inference.draws
    calls *= 1 if inference.guidance == 1 else 2
    return evaluation.evaluate.samples * calls * forward_flops(training, size)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("ablation", type=Path)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--tflops", type=float, default=400, help="of the device (%(default)g)")
    options = parser.parse_args()
    try:
        asked = read_ablation(options.ablation, tuple(options.changes), options.base, options.seeds)
        trainings, trained, evaluations, sampled = cost(expand(asked))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for what, count, total in (
        ("trainings", trainings, trained),
        ("evaluations", evaluations, sampled),
    ):
        hours = total / options.tflops / 1e12 / 3600
        rate = f"{options.tflops:g} TFLOP/s"
        print(f"{count:5} {what:12} {total:9.3g} FLOPs {hours:9.3g} h at {rate}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
