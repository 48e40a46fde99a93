"""Checkpoints: DeepSpeed's engine state, the moving average and the step, complete or not there.

A checkpoint is written under a temporary name by all ranks and renamed by rank 0 when each has
finished. The two newest are kept.
"""

import shutil
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from harness.ema import Ema
from harness.engine import World
from harness.record import RunFolder, read_json, write_json

KEEP = 2


class CheckpointError(Exception):
    """A checkpoint that cannot be continued from; the message says why and what to do."""


def save(
    run: RunFolder, step: int, pending: list[float], engine: Any, ema: Ema, world: World
) -> None:
    """Write the checkpoint after `step` steps (collective).

    `pending` are the losses of steps that metrics.jsonl has no line for yet, so that the line is
    the same whether or not the run was stopped in between.
    """
    folder = run.path / "checkpoints"
    final, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.tmp"
    if final.exists():
        return
    if world.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    engine.save_checkpoint(str(temporary), tag="engine", save_latest=False)
    if world.rank == 0 or engine.zero_optimization_stage() == 3:
        save_file(ema.averages, temporary / f"ema-{world.rank}.safetensors")
    if world.rank == 0:
        state = {"step": step, "ranks": world.size, "pending": pending}
        write_json(temporary / "state.json", state)
    world.barrier()
    if world.rank == 0:
        temporary.rename(final)
        for old in run.checkpoints()[:-KEEP]:
            shutil.rmtree(old)
    world.barrier()


def load(run: RunFolder, engine: Any, ema: Ema, world: World) -> tuple[int, list[float]]:
    """Continue from the newest whole checkpoint: (steps done, pending losses), or (0, []).

    Raises:
        CheckpointError: it was written by another number of ranks at a ZeRO stage above 0.
    """
    for folder in reversed(run.checkpoints()):
        state = read_json(folder / "state.json")
        stage = engine.zero_optimization_stage()
        if stage > 0 and state["ranks"] != world.size:
            raise CheckpointError(
                f"{folder.name} was written by {state['ranks']} ranks at ZeRO stage {stage} and "
                f"cannot be continued by {world.size}; set job.ranks={state['ranks']}"
            )
        part = world.rank if stage == 3 else 0
        try:
            averages = load_file(folder / f"ema-{part}.safetensors", device=str(world.device))
            engine.load_checkpoint(str(folder), tag="engine")
        except (OSError, SafetensorError, RuntimeError, EOFError) as error:
            print(
                f"checkpoint {folder.name} is damaged ({error}); trying the one before", flush=True
            )
            continue
        ema.load(averages)
        return int(state["step"]), state["pending"]
    return 0, []


def discard(run: RunFolder) -> None:
    """After the training: keep the newest checkpoint only, and no half-written ones."""
    for old in [*run.checkpoints()[:-1], *(run.path / "checkpoints").glob(".step-*.tmp")]:
        shutil.rmtree(old, ignore_errors=True)
