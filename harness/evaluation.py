"""One evaluation of a trained run: sample in shards, see, measure, and the floor of real images."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load_file as load_weights
from torch import nn

from harness import features
from harness.config import Evaluation, Training
from harness.data import unseen_images
from harness.dataset import facts, upsampled
from harness.ema import damage_of, lost_snapshot
from harness.engine import World
from harness.errors import UserError
from harness.files import FORMAT, Json, read_json, write_atomic, write_json
from harness.identity import digest, protocol_of
from harness.measure import Measured, measure, seen_by
from harness.metrics import splits_of
from harness.neighbours import NEIGHBOURS
from harness.pictures import from_dataset
from harness.progress import progress as shown_progress
from harness.provenance import measuring_id
from harness.record import RunFolder
from harness.reference import Reference, build, cached, facts_of
from harness.sample import batch_that_fits, generate
from harness.shards import Shards, distinct, pixels_sha256, samples_sha256
from harness.stages import steps_until
from harness.train import Interrupted, make_model, spent
from models.dit import DiT

GRID_ROWS, GRID_COLUMNS = 4, 10  # of the sample grid; a column a class, where there are so few

Models = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Task:
    """One evaluation of one finished training."""

    run: RunFolder
    training: Training
    seed: int
    eval_id: str
    evaluation: Evaluation

    @property
    def protocol(self) -> Json:
        """For each extractor its weights, reference and crops."""
        found: Json = protocol_of(self.training.data, self.evaluation)["extractors"]
        return found


def load_model(task: Task, device: torch.device) -> DiT:
    """The network with the averaged weights of `evaluate.after`, on `device`.

    Raises:
        UserError: these weights are damaged or missing, with what to do.
    """
    run, training, after = task.run, task.training, task.evaluation.evaluate.after
    file = run.weights_file if after == 1 else run.snapshot_file(steps_until(training, after))
    model = make_model(training)
    what = damage_of(file, (run.done() or {}).get("weights", {}))
    if not what:
        try:
            model.load_state_dict(load_weights(file))
        except SafetensorError as error:
            what = f"is damaged ({error})"
    if what:
        if after < 1:
            raise UserError(lost_snapshot(file, what))
        raise UserError(
            f"{file}: {what}; delete it and give the same command with --retry-failed: the last "
            "checkpoint has the same weights"
        )
    return model.to(device).eval()


def evaluate(
    task: Task,
    batch: int | None,
    keep: str,
    world: World,
    code: str,
    progress: Json,
    stop_asked: Callable[[], bool],
) -> None:
    """Measure a finished training one way; write samples and, last, `eval/<eval_id>.json`.

    Args:
        batch: images generated at once; None: as many as fit.
        keep: "nothing", "features" or "images": what stays in `features/<eval_id>/`.

    Raises:
        Interrupted: it was asked to stop; the shards that are finished stay.
        ValueError: the samples cannot be measured (not finite, too few).
    """
    started = time.monotonic()
    run, asked = task.run, task.evaluation.evaluate
    models = {name: features.load(name, world.device) for name in asked.extractors}
    shards = shards_of(task, code)
    sample(task, shards, models, batch, keep, world, progress, stop_asked)
    if world.rank != 0:
        return
    sampled = time.monotonic() - started

    progress |= {"stage": "measure", "resolution": list(asked.resolution)}
    cache = run.path.parent.parent / "cache"
    measured, floor = Measured(), Measured()
    for name, model in models.items():
        real = reference(cache, task, name, model)
        floor |= floor_of(cache, task, real, model)
        measured |= measure(shards.seen_by(name), real, asked.fid_infinity, world.device)
    columns = grid_columns(task)
    shown = torch.cat(list(shards.read("images")))[: columns * GRID_ROWS]
    write_atomic(run.samples_file(task.eval_id), image_grid(shown, columns))
    influence = {name: u.astype(np.float32) for name, u in measured.influence.items()}
    write_atomic(run.influence_file(task.eval_id), save(influence))
    write_json(
        run.result_file(task.eval_id),
        {
            "format": FORMAT,
            "eval_id": task.eval_id,
            "run_id": run.run_id,
            "seed": task.seed,
            "code_id": code,
            "config": task.evaluation.model_dump(mode="json"),
            "protocol": {
                "extractors": task.protocol,
                "samples": asked.samples,
                "reference_images": asked.reference_images,
                "manifold_images": asked.manifold_images,
                "upsampled": upsampled(task.training.data, asked.resolution),
                "labels": asked.labels,
                "floor": "real images that are in no reference, as many as samples",
                "neighbours": NEIGHBOURS,
                "splits": splits_of(asked.samples),
                "interval": "95 %, infinitesimal jackknife over the samples, reference held fixed",
            },
            "metrics": measured.metrics,
            "intervals": measured.intervals,
            "marks": measured.marks,
            "floor": floor.metrics,
            "floor_intervals": floor.intervals,
            "training": spent(run, task.training, asked.after),
            "samples_sha256": samples_sha256(shards),
            "distinct": distinct(shards),
            "seconds": {"sample": sampled, "measure": time.monotonic() - started - sampled},
            "time": time.time(),
        },
    )
    if keep == "nothing":
        shards.remove()


def shards_of(task: Task, code: str) -> Shards:
    """The shards of an evaluation that code of this id makes or made."""
    key = f"{task.eval_id} of seed {task.seed} by code {code}"
    return Shards(task.run.shards_folder(task.eval_id), key)


def grid_columns(task: Task) -> int:
    """Images in a row of the sample grid."""
    return min(facts(task.training.data).classes, GRID_COLUMNS)


def sample(
    task: Task,
    shards: Shards,
    models: Models,
    batch: int | None,
    keep: str,
    world: World,
    progress: Json,
    stop_asked: Callable[[], bool],
) -> None:
    """Generate and see what is missing of the samples, every rank its share (collective).

    Raises:
        Interrupted, ValueError: as `evaluate`.
    """
    started = time.monotonic()
    training, evaluation = task.training, task.evaluation
    asked, size = evaluation.evaluate, evaluation.evaluate.resolution
    model = load_model(task, world.device)
    patches = {name: entry["patch"] for name, entry in task.protocol.items()}
    shown = asked.samples if keep == "images" else grid_columns(task) * GRID_ROWS
    batch = batch or batch_that_fits(training, evaluation, world.device)
    # One rank looks: another might already see what this one writes.
    todo = world.shared(shards.missing(asked.samples, batch) if world.rank == 0 else None)
    there = asked.samples - sum(map(len, todo))
    progress |= {"stage": "evaluate", "eval_id": task.eval_id, "resolution": list(size)}
    progress |= {"samples": there, "of": asked.samples, "images_per_second": 0, "seconds_left": 0}
    trouble: Exception | None = None
    made = 0
    with shown_progress(f"{size[0]}x{size[1]}", asked.samples - there, world.rank == 0) as advance:
        for indices in todo[world.rank :: world.size]:
            if stop_asked():
                break
            try:
                images = generate(model, training, evaluation, task.seed, indices, world.device)
                arrays = seen_by(models, patches, images, indices.start)
                arrays["sha256"] = pixels_sha256(images)
                if indices.start < shown:
                    arrays["images"] = images[: shown - indices.start]
                shards.write(indices, arrays)
            except (ValueError, RuntimeError, OSError) as error:
                trouble = error
                break
            done = min(asked.samples - there - made, len(indices) * world.size)  # by all ranks
            made += done
            advance(done)
            seconds = time.monotonic() - started
            progress |= {
                "samples": there + made,
                "images_per_second": made / seconds,
                "seconds_left": seconds * (asked.samples - there - made) / made,
            }
    # No rank may wait for images of another that will not come.
    if world.any(trouble is not None):
        raise trouble or ValueError("another rank could not generate its images")
    if world.any(stop_asked()):
        raise Interrupted(f"stopped while sampling {size[0]}x{size[1]}")


def reference(cache: Path, task: Task, extractor: str, model: nn.Module) -> Reference:
    """The reference of an evaluation, from `cache` where it is, else built.

    It is named by and checked against its facts: data, size, counts, crops, the extractor's
    weights and the code that sees. So a changed data set or extractor never meets an old one.
    """
    data, asked, entry = task.training.data, task.evaluation.evaluate, task.protocol[extractor]
    images = from_dataset(data, "train", asked.reference_images, asked.resolution)
    known = facts_of(images, extractor, asked.manifold_images, entry["patch"])

    def make() -> Reference:
        return build(images, extractor, asked.manifold_images, entry["patch"], model)

    return cached(cache / "reference", known, make)


def floor_of(cache: Path, task: Task, real: Reference, model: nn.Module) -> Measured:
    """What real images in the samples' number get against the same reference, computed once."""
    asked = task.evaluation.evaluate
    of = {"reference": real.facts, "samples": asked.samples, "infinity": asked.fid_infinity,
          "code": measuring_id()}  # fmt: skip
    file = cache / "floor" / f"{digest(of)}.json"
    with suppress(UserError):  # missing or damaged: made anew
        kept = read_json(file, needs=("of", "metrics", "intervals"))
        if kept["of"] == of:
            return Measured(kept["metrics"], kept["intervals"])
    images = unseen_images(
        task.training.data, asked.samples, asked.reference_images, asked.resolution
    )
    with TemporaryDirectory() as folder:
        shards = Shards(Path(folder), "floor")
        for start in range(0, len(images), 500):
            part = images[start : start + 500]
            seen = features.see(model, part, real.facts["patch"], start)
            shards.write(range(start, start + len(part)), seen)
        device = next(model.parameters()).device
        found = measure(shards.read, real, asked.fid_infinity, device)
    write_json(file, {"of": of, "metrics": found.metrics, "intervals": found.intervals})
    return found


def image_grid(images: torch.Tensor, columns: int) -> bytes:
    """A PNG of uint8 images [N, 1 or 3, h, w] side by side, one pixel apart, row by row."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 255, np.uint8)
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image
    buffer = BytesIO()
    Image.fromarray(canvas[..., 0] if channels == 1 else canvas).save(buffer, "PNG")
    return buffer.getvalue()
