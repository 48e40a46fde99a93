"""One evaluation: sample, features, statistics, figures, and the real-against-real floor."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from safetensors.torch import load_file as load_weights

from harness.config import Evaluation, Training
from harness.data import real_images
from harness.dataset import FACTS
from harness.engine import World
from harness.errors import UserError
from harness.features import Features, extract
from harness.identity import FORMAT, digest, protocol_of
from harness.metrics import fid, inception_score, moments, precision_recall
from harness.record import Json, RunFolder, write_atomic, write_json
from harness.sample import chunks_of, generate
from harness.train import Interrupted, make_model
from models.dit import DiT

NEIGHBOURS = 3  # k of precision and recall (Kynkäänniemi et al. 2019)
SPLITS = 10  # of the inception score, as torch-fidelity has it
GRID_ROWS = 4  # of the sample grid; a column a class

Size = tuple[int, int]


@dataclass(frozen=True)
class Reference:
    """Real training images at one size as an extractor sees them."""

    mean: np.ndarray  # [D] float64
    covariance: np.ndarray  # [D, D] float64
    manifold: np.ndarray  # [M, D] float32, for precision and recall


def reference(
    cache: Path, extractor: str, protocol: Json, size: Size, images: int, manifold: int,
    device: torch.device,
) -> Reference:  # fmt: skip
    """The reference at `size`, from `cache` where its content's key is there, else computed.

    The key hashes the data, the size, the counts and the extractor's weights, so a changed data
    set or extractor never meets an old reference.
    """
    keys = ("reference", "manifold", "extractor_sha256")
    file = cache / f"{digest([protocol[key] for key in keys])}.safetensors"
    try:
        return Reference(**load_file(file))
    except (FileNotFoundError, SafetensorError):  # a damaged one is made again
        seen = extract(extractor, real_images("train", max(images, manifold), size), device=device)
        mean, covariance = moments(seen.features[:images])
        arrays = {
            "mean": mean,
            "covariance": covariance,
            "manifold": seen.features[:manifold].numpy(),
        }
        write_atomic(file, save(arrays))
        return Reference(**load_file(file))


def figures(seen: Features, real: Reference, extractor: str) -> dict[str, float]:
    """FID, inception score, precision and recall; a name carries its extractor."""
    precision, recall = precision_recall(seen.features, real.manifold, k=NEIGHBOURS)
    return {
        f"fid.{extractor}": fid(moments(seen.features), (real.mean, real.covariance)),
        f"is.{extractor}": inception_score(seen.logits, splits=SPLITS),
        f"precision.{extractor}": precision,
        f"recall.{extractor}": recall,
    }


def load_model(run: RunFolder, training: Training, device: torch.device) -> DiT:
    """The trained network with its averaged weights, on `device`.

    Raises:
        UserError: the weights are damaged.
    """
    model = make_model(training)
    try:
        model.load_state_dict(load_weights(run.weights_file))
    except SafetensorError as error:
        raise UserError(
            f"{run.weights_file}: is damaged ({error}); delete it and give the same command with "
            "--retry-failed: the last checkpoint has the same weights"
        ) from None
    return model.to(device).eval()


def evaluate(
    run: RunFolder,
    training: Training,
    seed: int,
    eval_id: str,
    evaluation: Evaluation,
    chunk: int,
    world: World,
    code: str,
    progress: Json,
    stop_asked: Callable[[], bool],
) -> None:
    """Measure a finished training one way; write samples and, last, `eval/<eval_id>.json`.

    Raises:
        Interrupted: it was asked to stop; nothing of this evaluation is kept.
        ValueError: the samples cannot be measured (not finite, too few).
    """
    started = time.monotonic()
    inference, protocol = evaluation.inference, evaluation.evaluate
    size, extractor = protocol.resolution, protocol.extractor
    model = load_model(run, training, world.device)
    pieces: dict[int, torch.Tensor] = {}
    count = 0
    progress |= {"stage": "evaluate", "eval_id": eval_id, "samples": 0, "of": protocol.samples}
    progress |= {"resolution": list(size)}
    trouble: ValueError | RuntimeError | None = None
    for indices in chunks_of(protocol.samples, chunk, world.rank, world.size):
        if stop_asked():
            break
        try:
            images = generate(model, training, inference, size, seed, indices, world.device)
        except (ValueError, RuntimeError) as error:
            trouble = error
            break
        pieces[indices.start] = images
        count = min(protocol.samples, count + len(indices) * world.size)
        seconds = time.monotonic() - started
        progress |= {
            "samples": count,
            "images_per_second": count / seconds,
            "seconds_left": seconds * (protocol.samples / count - 1),
        }
    # No rank may wait for images of another that will not come.
    if world.any(trouble is not None):
        raise trouble or ValueError("another rank could not generate its images")
    if world.any(stop_asked()):
        raise Interrupted(f"stopped while sampling {size[0]}x{size[1]}")
    gathered = world.gather(pieces)
    if gathered is None:
        return
    all_pieces = {start: images for part in gathered for start, images in part.items()}
    images = torch.cat([all_pieces[start] for start in sorted(all_pieces)])
    sampled = time.monotonic() - started

    known = protocol_of(training.data, evaluation)
    real = reference(
        run.path.parent.parent / "cache" / "reference", extractor, known, size,
        protocol.reference_images, protocol.manifold_images, world.device,
    )  # fmt: skip
    held_out = extract(extractor, real_images("test", protocol.samples, size), device=world.device)
    seen = extract(extractor, images, device=world.device)
    columns = FACTS[training.data.name].classes
    write_atomic(run.samples_file(eval_id), image_grid(images[: columns * GRID_ROWS], columns))
    write_json(
        run.result_file(eval_id),
        {
            "format": FORMAT,
            "eval_id": eval_id,
            "run_id": run.run_id,
            "seed": seed,
            "code_id": code,
            "config": evaluation.model_dump(mode="json"),
            "protocol": known
            | {
                "samples": protocol.samples,
                "reference_images": protocol.reference_images,
                "manifold_images": protocol.manifold_images,
                "floor": "held-out real images, as many as samples, against the same reference",
                "labels": "balanced",
                "neighbours": NEIGHBOURS,
                "splits": SPLITS,
            },
            "metrics": figures(seen, real, extractor),
            "floor": figures(held_out, real, extractor),
            "samples_sha256": digest_of(images),
            "seconds": {
                "sample": sampled,
                "measure": time.monotonic() - started - sampled,
            },
            "time": time.time(),
        },
    )


def digest_of(images: torch.Tensor) -> str:
    """SHA-256 of uint8 images, to tell whether two evaluations saw the same ones."""
    return hashlib.sha256(images.numpy().tobytes()).hexdigest()


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
