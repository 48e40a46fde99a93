"""The training loop: from a frozen spec to averaged weights, resumable at every checkpoint."""

import json
import math
import time
from collections.abc import Callable
from typing import Any, TextIO

import torch

from harness import checkpoint
from harness.batches import Batches
from harness.config import Job, Training
from harness.dataset import facts
from harness.ema import Ema, damage_of, lost_snapshot, write_weights
from harness.engine import World, make_engine
from harness.errors import UserError
from harness.files import Json, write_atomic, write_json
from harness.identity import grid_of, position_lengths
from harness.objective import training_loss
from harness.record import RunFolder
from harness.stages import Size, learning_rate, stage_at, stages_of, steps_of, steps_until
from models.dit import DiT
from models.flops import flops


class NonFiniteLossError(UserError):
    """The loss became infinite or NaN."""


class Interrupted(Exception):  # noqa: N818 - not an error: the work goes on later
    """The run was asked to stop, and everything it needs to go on is on disk."""


def make_model(training: Training) -> DiT:
    """The untrained network of a training configuration."""
    model, data = training.model, facts(training.data)
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
        lengths=position_lengths(training),
        theta=model.theta,
        outputs=outputs_of(training),
    )


def outputs_of(training: Training) -> int:
    """Values that the network gives for each of the image's: epsilon and variance, or one."""
    return 2 if training.objective.kind == "ddpm" else 1


def forward_flops(training: Training, size: Size) -> int:
    """FLOPs of one call of the model on one image of `size` pixels."""
    model = training.model
    return flops(
        channels=facts(training.data).channels,
        width=model.width,
        depth=model.depth,
        mlp_ratio=model.mlp_ratio,
        patch=model.patch,
        micro_conditioning=training.micro_conditioning.kind != "none",
        grid=grid_of(size, model.patch),
        outputs=outputs_of(training),
    )


def training_flops(training: Training, steps: int | None = None) -> int:
    """FLOPs of the first `steps` steps, None: of all, whatever the size of each stage.

    Three forward passes (one forward, two backward) an image.
    """
    total = 0
    for stage in stages_of(training):
        done = stage.end if steps is None else min(steps, stage.end)
        images = max(0, done - stage.first) * training.train.batch
        total += 3 * forward_flops(training, stage.resolution) * images
    return total


def train(
    run: RunFolder,
    training: Training,
    seed: int,
    job: Job,
    world: World,
    code: str,
    progress: Json,
    stop_asked: Callable[[], bool],
    until: int | None = None,
) -> None:
    """Train to the end and write `weights.safetensors` and `DONE`, or stop at a step boundary.

    Args:
        code: this code's id.
        progress: filled with step, loss, images/s and time left while it works.
        stop_asked: whether this rank was asked to stop.
        until: end with a checkpoint after that many steps; None: go to the end.

    Raises:
        Interrupted: it was asked to stop; a checkpoint is written.
        NonFiniteLossError: with the step; nothing after the last checkpoint is kept.
    """
    settings = training.train
    torch.manual_seed(seed)  # the initial weights; everything else is drawn in harness.draws
    model = make_model(training)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    engine = make_engine(model, settings, world)
    ema = Ema(engine.module, settings.ema)
    state = checkpoint.load(run, engine, ema, world)
    start, pending = state["step"], state["pending"]
    codes, sums = sorted({*state["code_ids"], code}), state["weights"]
    check_snapshots(run, training, start, sums, world)
    kept = {steps_until(training, share) for share in settings.snapshots}
    steps, all_flops = steps_of(training), training_flops(training)
    end = steps if until is None else until
    log = _open_metrics(run, start) if world.rank == 0 else None
    losses: list[torch.Tensor] = []
    clock, clock_step = time.monotonic(), start
    engine.train()
    progress |= {"stage": "train", "step": start, "steps": steps}

    for step, parts in Batches(training, seed, world).ahead(range(start, end)):
        stage = stage_at(training, step)
        if stage.resets and step == stage.first:
            reset(engine.optimizer)
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        for x, labels, micro, t, noise, geometry in parts:
            loss = training_loss(engine, training.objective, x, noise, t, labels, geometry, micro)
            engine.backward(loss)
            engine.step()
            losses.append(loss.detach())
        ema.update(step)

        done = step + 1
        stopping = world.any(stop_asked())
        saving = done % job.checkpoint_every == 0 or stopping or done == end
        logging = done % job.log_every == 0 or done == steps
        if logging or saving or done in kept:
            pending += _step_losses(losses, step, settings.accumulation, world)
            losses.clear()
            now = time.monotonic()
            flops_done = training_flops(training, done)
            rate = (flops_done - training_flops(training, clock_step)) / (now - clock)
            progress |= {
                "step": done,
                "loss": sum(pending) / len(pending),
                "images_per_second": (done - clock_step) * settings.batch / (now - clock),
                "seconds_left": (all_flops - flops_done) / rate,
            }
        if logging:
            if log is not None:
                _write_line(log, _metrics(engine, training, done, progress))
            # Here alone, so that a line's speed is that of all its steps.
            pending, clock, clock_step = [], now, done
        if done in kept:  # before the checkpoint of this step: that one stands for it
            sums |= write_weights(run.snapshot_file(done), run, ema, world)
        if saving and done < steps:
            state = {"step": done, "pending": pending, "code_ids": codes, "weights": sums}
            checkpoint.save(run, state, engine, ema, world)
        if stopping and done < steps:
            raise Interrupted(f"stopped at step {done} of {steps}")
    if end < steps:
        return

    state = {"step": steps, "pending": [], "code_ids": codes, "weights": sums}
    checkpoint.save(run, state, engine, ema, world)
    check_snapshots(run, training, steps, sums, world)
    sums |= write_weights(run.weights_file, run, ema, world)
    if log is not None:
        log.close()
        _finish(run, training, {"code_ids": codes, "parameters": parameters, "weights": sums})
    world.barrier()


def reset(optimizer: Any) -> None:
    """AdamW as it was before its first step: moments and step count are zero.

    In place, because ZeRO keeps views of these tensors.
    """
    for state in optimizer.state.values():
        for value in state.values():
            value.zero_()


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


def _metrics(engine: Any, training: Training, done: int, progress: Json) -> Json:
    norm = engine.get_global_grad_norm()  # None at ZeRO stage 0
    return {
        "step": done,
        "images": done * training.train.batch,
        "flops": training_flops(training, done),
        "resolution": list(stage_at(training, done - 1).resolution),
        "time": time.time(),
        "loss": progress["loss"],
        "learning_rate": learning_rate(training, done - 1),
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


def check_snapshots(
    run: RunFolder, training: Training, done: int, sums: Json, world: World
) -> None:
    """Refuse to go on without a snapshot of the `done` steps, which none of the rest would make.

    Raises:
        CheckpointError: the first that is missing or damaged, and what to do (on all ranks).
    """
    lost = ""
    for step in (steps_until(training, share) for share in training.train.snapshots):
        file = run.snapshot_file(step)
        if world.rank == 0 and step <= done and not lost and (wrong := damage_of(file, sums)):
            lost = lost_snapshot(file, wrong)
    if lost := world.shared(lost):
        raise checkpoint.CheckpointError(lost)


def _finish(run: RunFolder, training: Training, facts: Json) -> None:
    checkpoint.discard(run)
    write_json(run.done_file, facts | spent(run, training, 1.0) | {"time": time.time()})


def spent(run: RunFolder, training: Training, share: float) -> Json:
    """Images, FLOPs and seconds of the first `share` of a training, whoever did its steps.

    The seconds are those of the steps in metrics.jsonl; inside a line they go evenly.
    """
    steps = steps_until(training, share)
    images = steps * training.train.batch
    seconds, before = 0.0, 0
    for line in run.metrics():
        seconds += max(0, min(images, line["images"]) - before) / line["images_per_second"]
        before = line["images"]
    return {"images": images, "flops": training_flops(training, steps), "seconds": seconds}
