"""The images of an evaluation for others' evaluators: ADM's .npz batch, or a folder of PNGs.

    python -m harness.export RUN_DIR EVAL_ID --npz FILE | --png FOLDER

Images that the evaluation kept (`job.keep: images`) are taken from there; else they are generated
again from the weights, for image i is a function of (seed, i). Either way their hash is compared
with that of the images that were measured. Exit status: 0 they are these (or nothing was
measured yet, which is said), 1 they are others (and
are written all the same), 2 bad input.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from harness.config import Evaluation, Job, Training
from harness.errors import UserError, nearest
from harness.evaluation import Task, load_model, shards_of
from harness.files import read_json
from harness.npz import NpzWriter
from harness.pictures import write_png_folder
from harness.progress import progress
from harness.record import RunFolder
from harness.sample import batch_that_fits, generate
from harness.shards import pixels_sha256


def images_of(task: Task, job: Job) -> Iterator[Tensor]:
    """All images of an evaluation in order, in blocks: uint8 [n, C, h, w].

    Raises:
        UserError: the training is not finished, or its weights are damaged or missing.
    """
    import torch

    samples = task.evaluation.evaluate.samples
    result = task.run.result(task.eval_id)
    if result is not None:
        shards = shards_of(task, result["code_id"])
        whole = sum(map(len, shards.ranges())) == samples  # by their checksums
        if whole and sum(len(images) for images in shards.read("images")) == samples:
            yield from shards.read("images")
            return
    if task.run.done() is None:
        raise UserError(f"{task.run.path}: its training is not finished; start its sweep again")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(max(1, job.cpus // job.ranks))  # as in the run, for the same rounding
    model = load_model(task, device)
    batch = job.sample_batch or batch_that_fits(task.training, task.evaluation, device)
    for start in range(0, samples, batch):
        indices = range(start, min(start + batch, samples))
        yield generate(model, task.training, task.evaluation, task.seed, indices, device)


def task_of(folder: Path, eval_id: str) -> tuple[Task, Job]:
    """An evaluation that was asked of a run, and the portions in which the run works.

    Raises:
        UserError: no such run folder or evaluation, or a damaged file.
    """
    run = RunFolder(folder.resolve())
    if not run.exists():
        raise UserError(f"{folder}: is no run folder (it has no spec.json)")
    if eval_id not in run.requests():
        known = run.requests()
        raise UserError(
            f"{eval_id}: is no evaluation of {folder}{nearest(eval_id, known)}; "
            f"there are: {', '.join(known) or 'none'}"
        )
    spec = run.spec()
    config = read_json(run.request_file(eval_id), needs=("config",))["config"]
    try:
        training = Training.model_validate_json(json.dumps(spec["config"]))
        evaluation = Evaluation.model_validate_json(json.dumps(config))
        job = Job.model_validate_json(json.dumps(read_json(run.path / "job.json")))
    except ValueError:
        raise UserError(f"{folder}: was made by another version of this program") from None
    return Task(run, training, spec["seed"], eval_id, evaluation), job


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("eval_id", metavar="EVAL_ID")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--npz", type=Path, metavar="FILE", help="arr_0, uint8 [N, H, W, 3]")
    where.add_argument("--png", type=Path, metavar="FOLDER", help="000000.png and on")
    options = parser.parse_args(arguments)
    try:
        task, job = task_of(options.run_dir, options.eval_id)
        target = options.npz or options.png
        if options.npz and (target.exists() or target.suffix != ".npz"):
            raise UserError(f"{target}: must be a new file that ends in .npz; name another one")
        samples = task.evaluation.evaluate.samples
        total = hashlib.sha256()
        with progress("exporting", samples) as advance:

            def passing() -> Iterator[Tensor]:
                for images in images_of(task, job):
                    total.update(pixels_sha256(images).numpy().tobytes())
                    yield images
                    advance(len(images))

            if options.npz:
                blocks = passing()
                first = next(blocks)
                channels, *size = first.shape[1:]
                with NpzWriter(target, samples, (size[0], size[1]), channels) as writer:
                    writer.write(first)
                    for images in blocks:
                        writer.write(images)
            else:
                write_png_folder(target, passing())
        result = task.run.result(task.eval_id)
    except (UserError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    print(f"{target}: {samples} images of evaluation {task.eval_id}, seed {task.seed}")
    if result is None:
        print("this evaluation is not measured yet", file=sys.stderr)
    elif result["samples_sha256"] != total.hexdigest():
        print(
            "these are not, to the last bit, the images that were measured: another machine, "
            "device, number of threads or batch rounds differently, or the weights were changed; "
            "`python -m harness.evaluate` tells whether it matters",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
