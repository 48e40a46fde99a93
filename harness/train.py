"""The training loop: from a frozen spec to averaged weights, resumable at every checkpoint."""

import json
import math
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch
import torch.nn.functional as F
from safetensors.torch import save as save_tensors

from harness import checkpoint
from harness.config import Job, Train, Training
from harness.data import Order, open_split, training_batch
from harness.dataset import FACTS
from harness.draws import normal, uniform
from harness.ema import Ema
from harness.engine import World, make_engine
from harness.identity import grid_of, position_lengths
from harness.objective import noised, timesteps, velocity
from harness.record import Json, RunFolder, write_atomic, write_json
from models.dit import DiT
from models.flops import flops
from models.geometry import Geometry, training_geometry


class NonFiniteLossError(Exception):
    """The loss became infinite or NaN."""


class Interrupted(Exception):  # noqa: N818 - not an error: the work goes on later
    """The run was asked to stop, and everything it needs to go on is on disk."""


def make_model(training: Training) -> DiT:
    """The untrained network of a training configuration."""
    model, data = training.model, FACTS[training.data.name]
    return DiT(
        channels=data.channels,
        classes=data.classes,
        width=model.width,
        depth=model.depth,
        heads=model.heads,
        mlp_ratio=model.mlp_ratio,
        patch=model.patch,
        encoding=model.encoding,
        qk_norm=model.qk_norm,
        micro_conditioning=training.micro_conditioning.kind != "none",
    )


def learning_rate(train: Train, images: int) -> float:
    """The rate at `images` seen: linear warm-up, constant, linear decay to final_rate x peak."""
    share = images / train.images
    if share < train.warmup:
        return train.learning_rate * share / train.warmup
    if share <= train.decay_from or train.decay_from == 1:
        return train.learning_rate
    left = (1 - share) / (1 - train.decay_from)
    return train.learning_rate * (train.final_rate + (1 - train.final_rate) * max(0.0, left))


def training_flops(training: Training) -> int:
    """FLOPs of the whole training: three forward passes (one forward, two backward) an image."""
    model = training.model
    forward = flops(
        channels=FACTS[training.data.name].channels,
        width=model.width,
        depth=model.depth,
        mlp_ratio=model.mlp_ratio,
        patch=model.patch,
        micro_conditioning=training.micro_conditioning.kind != "none",
        grid=grid_of(training.data.resolution, model.patch),
    )
    return 3 * forward * steps_of(training.train) * training.train.batch


def steps_of(train: Train) -> int:
    """Optimizer steps: the images, rounded up to whole batches."""
    return math.ceil(train.images / train.batch)


class Batches:
    """Everything random about a step, for the whole batch and every rank alike, cut by rank."""

    def __init__(self, training: Training, seed: int, world: World) -> None:
        self.training, self.seed, self.world = training, seed, world
        self.images = open_split("train")
        self.order = Order(seed, len(self.images.pixels))
        self.lengths = position_lengths(training)

    def parts(self, step: int) -> list[tuple[Any, ...]]:
        """The accumulated parts of a step for this rank: (x, labels, crops, t, noise, geometry)."""
        training, size, seed = self.training, self.training.train.batch, self.seed
        height, width = training.data.resolution
        indices = self.order.batch(step, size)
        x, labels, crops = training_batch(
            self.images, indices, training.data.resolution, training.augmentation, seed, step
        )
        noise = normal(seed, "noise", step, tuple(x.shape))
        t = timesteps(normal(seed, "timestep", step, (size,)), training.objective.timesteps)
        dropped = uniform(seed, "label dropout", step, (size,)) < training.objective.label_dropout
        labels = torch.where(dropped, FACTS[training.data.name].classes, labels)
        rows = uniform(seed, "rows", step, (size, self.lengths[0]))
        cols = uniform(seed, "columns", step, (size, self.lengths[1]))
        micro = crops * torch.tensor([height, width, height, width])  # in pixels
        return [
            (*(v[cut].to(self.world.device) for v in (x, labels, micro, t, noise)),
             self._geometry(rows[cut], cols[cut]))
            for cut in self._cuts(size)
        ]  # fmt: skip

    def _cuts(self, size: int) -> list[slice]:
        """Part a of rank r is block a * ranks + r of the batch."""
        parts = self.training.train.accumulation
        share = size // (parts * self.world.size)
        blocks = (a * self.world.size + self.world.rank for a in range(parts))
        return [slice(block * share, (block + 1) * share) for block in blocks]

    def _geometry(self, rows: torch.Tensor, cols: torch.Tensor) -> Geometry:
        model = self.training.model
        assert model.theta is not None  # canonical
        return training_geometry(
            model.encoding,
            self.training.positions.sampler,
            model.theta,
            model.width,
            model.heads,
            grid_of(self.training.data.resolution, model.patch),
            self.lengths,
            rows,
            cols,
            self.world.device,
        )


def train(
    run: RunFolder,
    training: Training,
    seed: int,
    job: Job,
    world: World,
    code: str,
    progress: Json,
    stop_asked: Callable[[], bool],
) -> None:
    """Train to the end and write `weights.safetensors` and `DONE`, or stop at a step boundary.

    Args:
        code: this code's id.
        progress: filled with step, loss, images/s and time left while it works.
        stop_asked: whether this rank was asked to stop.

    Raises:
        Interrupted: it was asked to stop; a checkpoint is written.
        NonFiniteLossError: with the step; nothing after the last checkpoint is kept.
    """
    settings = training.train
    torch.manual_seed(seed)  # the initial weights; everything else is drawn in harness.draws
    engine = make_engine(make_model(training), settings, world)
    ema = Ema(engine.module, settings.ema)
    state = checkpoint.load(run, engine, ema, world)
    start, pending = state["step"], state["pending"]
    codes = sorted({*state["code_ids"], code})
    batches = Batches(training, seed, world)
    steps = steps_of(settings)
    micro_conditioned = training.micro_conditioning.kind != "none"
    log = _open_metrics(run, start) if world.rank == 0 else None
    losses: list[torch.Tensor] = []
    clock, clock_step = time.monotonic(), start
    engine.train()
    progress |= {"stage": "train", "step": start, "steps": steps}

    for step in range(start, steps):
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate(settings, step * settings.batch)
        for x, labels, micro, t, noise, geometry in batches.parts(step):
            condition = (labels, geometry, micro if micro_conditioned else None)
            x_t = noised(x, noise, t)
            v = velocity(engine, x_t, t, training.objective.precondition, *condition)
            loss = F.mse_loss(v, noise - x)
            engine.backward(loss)
            engine.step()
            losses.append(loss.detach())
        ema.update(step)

        done = step + 1
        stopping = world.any(stop_asked())
        saving = done % job.checkpoint_every == 0 or stopping
        logging = done % job.log_every == 0 or done == steps
        if logging or saving:
            pending += _step_losses(losses, step, settings.accumulation, world)
            losses.clear()
            now = time.monotonic()
            speed = (done - clock_step) * settings.batch / (now - clock)
            clock, clock_step = now, done
            progress |= {
                "step": done,
                "loss": sum(pending) / len(pending),
                "images_per_second": speed,
                "seconds_left": (steps - done) * settings.batch / speed,
            }
        if logging:
            if log is not None:
                _write_line(log, _metrics(engine, settings, done, progress))
            pending = []
        if saving and done < steps:
            state = {"step": done, "pending": pending, "code_ids": codes}
            checkpoint.save(run, state, engine, ema, world)
        if stopping and done < steps:
            raise Interrupted(f"stopped at step {done} of {steps}")

    state = {"step": steps, "pending": [], "code_ids": codes}
    checkpoint.save(run, state, engine, ema, world)
    weights = ema.whole()
    if world.rank == 0:
        _finish(run, weights, training, codes)
    if log is not None:
        log.close()
    world.barrier()


def _step_losses(losses: list[torch.Tensor], step: int, parts: int, world: World) -> list[float]:
    """The losses of the steps up to `step`, each the mean over its parts and over ranks.

    Raises:
        NonFiniteLossError: one of them was not finite, on any rank.
    """
    by_step = torch.stack(losses).view(-1, parts).double().mean(dim=1)  # [steps]
    over_ranks: list[float] = world.mean(by_step).tolist()
    for offset, value in enumerate(over_ranks):
        if not math.isfinite(value):
            bad = step + 1 - len(over_ranks) + offset + 1
            raise NonFiniteLossError(
                f"the loss was {value} at step {bad}; lower train.learning_rate, or set "
                "train.gradient_clip"
            )
    return over_ranks


def _metrics(engine: Any, settings: Train, done: int, progress: Json) -> Json:
    norm = engine.get_global_grad_norm()  # None at ZeRO stage 0
    return {
        "step": done,
        "images": done * settings.batch,
        "time": time.time(),
        "loss": progress["loss"],
        "learning_rate": learning_rate(settings, (done - 1) * settings.batch),
        "images_per_second": progress["images_per_second"],
        **({} if norm is None else {"gradient_norm": float(norm)}),
    }


def _open_metrics(run: RunFolder, start: int) -> TextIO:
    """metrics.jsonl without the lines after the checkpoint: those steps are done again."""
    lines = [json.dumps(line) + "\n" for line in run.metrics() if line["step"] <= start]
    write_atomic(run.metrics_file, "".join(lines))
    return run.metrics_file.open("a")


def _write_line(log: TextIO, line: Json) -> None:
    log.write(json.dumps(line) + "\n")
    log.flush()


def _finish(
    run: RunFolder,
    weights: dict[str, torch.Tensor],
    training: Training,
    codes: list[str],
) -> None:
    write_atomic(run.weights_file, save_tensors(weights, metadata={"run_id": run.run_id}))
    checkpoint.discard(run)
    seconds = _training_seconds(run)
    write_json(
        run.done_file,
        {
            "code_ids": codes,
            "images": steps_of(training.train) * training.train.batch,
            "parameters": sum(w.numel() for w in weights.values()),
            "flops": training_flops(training),
            "seconds": seconds,
            "time": time.time(),
        },
    )


def _training_seconds(run: RunFolder) -> float:
    """Seconds spent in the steps of metrics.jsonl, whoever did them."""
    seconds, before = 0.0, 0
    for line in run.metrics():
        seconds += (line["images"] - before) / line["images_per_second"]
        before = line["images"]
    return seconds
