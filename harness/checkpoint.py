"""Checkpoints: DeepSpeed's engine state, the moving average and the step, complete or not there.

A checkpoint is written under a temporary name by all ranks and renamed by rank 0 when each has
finished. The two newest are kept.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors

from harness.ema import Ema
from harness.engine import World
from harness.errors import UserError
from harness.files import Json, read_json, write_atomic, write_json
from harness.record import RunFolder

KEEP = 2


class CheckpointError(UserError):
    """A checkpoint that cannot be continued from; the message says why and what to do."""


def save(run: RunFolder, state: Json, engine: Any, ema: Ema, world: World) -> None:
    """Write the checkpoint after `state["step"]` steps (collective).

    `state` also has `pending`, the losses of steps that metrics.jsonl has no line for yet, so that
    the line is the same whether or not the run was stopped in between, and `code_ids`, all code
    that has trained this run.
    """
    folder = run.path / "checkpoints"
    name = f"step-{state['step']:08d}"
    final, temporary = folder / name, folder / f".{name}.tmp"
    if final.exists():
        return
    if world.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.barrier()
    engine.save_checkpoint(str(temporary), tag="engine", save_latest=False)
    if world.rank == 0 or engine.zero_optimization_stage() == 3:
        write_atomic(temporary / f"ema-{world.rank}.safetensors", save_tensors(ema.averages))
    world.barrier()
    if world.rank == 0:
        files = _files(temporary)
        write_json(temporary / "state.json", state | {"ranks": world.size, "files": files})
        for file in temporary.glob("engine/*"):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        temporary.rename(final)
        for old in run.checkpoints()[:-KEEP]:
            shutil.rmtree(old)
    world.barrier()


def load(run: RunFolder, engine: Any, ema: Ema, world: World) -> Json:
    """Continue from the newest whole checkpoint; its state, or that of step 0 (collective).

    Every file is checked before the engine takes any of it, and all ranks choose the same one.

    Raises:
        CheckpointError: it was written by another number of ranks at a ZeRO stage above 0.
    """
    for folder in reversed(run.checkpoints()):
        if world.any(bool(found := _damage(folder, world))):
            if found:
                print(f"checkpoint {folder.name} is damaged ({found}); trying the one before")
            if world.rank == 0:  # out of the way of a sound one of the same step
                folder.rename(folder.with_name(f".damaged-{folder.name}-{time.time_ns()}"))
            world.barrier()
            continue
        state = read_json(folder / "state.json")
        stage = engine.zero_optimization_stage()
        if stage > 0 and state["ranks"] != world.size:
            raise CheckpointError(
                f"{folder.name} was written by {state['ranks']} ranks at ZeRO stage {stage} and "
                f"cannot be continued by {world.size}; set job.ranks={state['ranks']}"
            )
        part = world.rank if stage == 3 else 0
        ema.load(load_file(folder / f"ema-{part}.safetensors", device=str(world.device)))
        if engine.load_checkpoint(str(folder), tag="engine")[0] is None:
            raise CheckpointError(f"DeepSpeed could not read {folder}; see log.txt")
        return state
    return {"step": 0, "pending": [], "code_ids": []}


def _damage(folder: Path, world: World) -> str:
    """What is wrong with a checkpoint: a file is missing, or damaged in this rank's share; or ''.

    DeepSpeed's files are zip archives with checksums; of the averages the header is checked.
    """
    try:
        needs = ("step", "pending", "ranks", "code_ids", "files")
        files = read_json(folder / "state.json", needs=needs)["files"]
        if missing := set(files) - set(_files(folder)):
            return f"{min(missing)} is missing"
        for name in files[world.rank :: world.size]:
            file = folder / name
            if file.suffix == ".pt":  # torch's files are zip archives
                with ZipFile(file) as archive:
                    if bad := archive.testzip():
                        return f"{file.name}: {bad}"
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
    except (UserError, OSError, BadZipFile, SafetensorError) as error:
        return str(error)
    return ""


def _files(folder: Path) -> list[str]:
    """Names of a checkpoint's files, but for the state.json that lists them."""
    found = (str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    return sorted(name for name in found if name != "state.json")


def discard(run: RunFolder) -> None:
    """After the training: keep the newest checkpoint only, and no half-written ones."""
    for old in [*run.checkpoints()[:-1], *(run.path / "checkpoints").glob(".step-*.tmp")]:
        shutil.rmtree(old, ignore_errors=True)
