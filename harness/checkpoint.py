"""Checkpoints: weights, AdamW's moments, the moving average and the step; complete or not there.

    checkpoints/step-00000200/
        weight-0.safetensors      of each parameter what rank 0 held in fp32: its elements in order,
                                  with the index of the first in the file's metadata
        exp_avg-0.safetensors     the same of AdamW's first moments,
        exp_avg_sq-0.safetensors  of its second ones
        ema-0.safetensors         and of the moving averages
        weight-1.safetensors      ...
        state.json                step, run, counters; size and checksum of each file and of itself

It is written under a temporary name by all ranks and renamed by rank 0 when each has finished. The
two newest are kept.

Any number of ranks reads what any other wrote, each what it holds itself, at every ZeRO stage.
DeepSpeed's own files fit the number of ranks that wrote them; its universal format leaves out
stage 0 and wants all of a checkpoint converted first; and both are read by
`torch.load(weights_only=False)`, which runs what a file tells it to. Nothing here is code.
"""

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays

from harness.ema import Ema
from harness.engine import Span, Spans, World, optimizer_steps, spans, take_over
from harness.errors import UserError
from harness.files import Json, checksum, read_json, write_atomic, write_json
from harness.record import RunFolder

KEEP = 2
STATE = {"step", "pending", "code_ids", "weights", "run_id", "optimizer_steps", "files", "checksum"}


class CheckpointError(UserError):
    """A checkpoint that cannot be continued from; the message says why and what to do."""


def save(run: RunFolder, state: Json, engine: Any, ema: Ema, world: World) -> None:
    """Write the checkpoint after `state["step"]` steps (collective).

    `state` also has `pending`, the losses of steps that metrics.jsonl has no line for yet, so that
    the line is the same whether or not the run was stopped in between; `code_ids`, all code that
    has trained this run; and `weights`, the checksums of the averaged weights written so far.
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
    files: Json = {}
    for kind, held in _held(engine, ema).items():
        if content := packed(held, world):
            file = temporary / f"{kind}-{world.rank}.safetensors"
            write_atomic(file, content)
            files[file.name] = {"bytes": len(content), "checksum": checksum(content)}
    every = world.gathered(files)
    if world.rank == 0:
        state |= {"run_id": run.run_id, "optimizer_steps": optimizer_steps(engine)}
        state |= {"files": {name: facts for files in every for name, facts in files.items()}}
        write_json(temporary / "state.json", state | {"checksum": _checksum(state)})
        temporary.rename(final)
        for old in run.checkpoints()[:-KEEP]:
            shutil.rmtree(old, ignore_errors=True)  # what is left of it can't be loaded
    world.barrier()


def load(run: RunFolder, engine: Any, ema: Ema, world: World) -> Json:
    """Continue from the newest whole checkpoint; its state, or that of step 0 (collective).

    Every file is checked before the engine takes any of it, and all ranks choose the same one,
    whatever their number was when it was written.

    Raises:
        CheckpointError: it is of another network.
    """
    for folder in reversed(world.shared(run.checkpoints())):  # a rank's own view may be older
        if world.any(bool(found := _unfit(folder, run, world))):
            if found:
                print(f"checkpoint {folder.name} {found}; trying the one before", flush=True)
            if world.rank == 0:  # out of the way of a sound one of the same step
                folder.rename(folder.with_name(f".unfit-{folder.name}-{time.time_ns()}"))
            world.barrier()
            continue
        state = read_json(folder / "state.json")
        for kind, held in _held(engine, ema).items():
            fill(held, [folder / name for name in state["files"] if name.startswith(f"{kind}-")])
        take_over(engine, state["optimizer_steps"])
        return state
    return {"step": 0, "pending": [], "code_ids": [], "weights": {}}


def discard(run: RunFolder) -> None:
    """After the training: keep the newest checkpoint only, and no half-written ones."""
    for old in [*run.checkpoints()[:-1], *(run.path / "checkpoints").glob(".step-*.tmp")]:
        shutil.rmtree(old, ignore_errors=True)


def packed(held: Spans, world: World) -> bytes:
    """This rank's file: what it alone holds, and its share of what every rank holds.

    Nothing where it holds nothing, as one of many ranks may: safetensors can't read such a file.
    """
    mine = {
        name: span
        for index, (name, span) in enumerate(held.items())
        if (not span.shared or index % world.size == world.rank) and span.values.numel()
    }
    if not mine:
        return b""
    starts = {name: str(span.start) for name, span in mine.items()}
    return save_arrays({name: span.values.cpu().numpy() for name, span in mine.items()}, starts)


def fill(held: Spans, files: Sequence[Path]) -> None:
    """Write into the spans what the files of any number of ranks have of them.

    Raises:
        CheckpointError: not all of it is there.
    """
    with ExitStack() as stack:
        pieces: dict[str, list[tuple[int, Any]]] = {name: [] for name in held}
        for file in files:
            opened = stack.enter_context(safe_open(file, "pt"))
            starts = opened.metadata() or {}
            for name in starts.keys() & held.keys():
                pieces[name].append((int(starts[name]), opened.get_slice(name)))
        for name, span in held.items():
            if (found := sum(_copied(span, *piece) for piece in pieces[name])) < len(span.values):
                place = files[0].parent if files else "checkpoints"
                raise CheckpointError(
                    f"{place}: has {found} of {len(span.values)} elements of {name}: other code "
                    "trained a network of another shape; move checkpoints/ away to train anew"
                )


def _held(engine: Any, ema: Ema) -> dict[str, Spans]:
    return spans(engine) | {"ema": ema.spans()}


def _copied(span: Span, start: int, piece: Any) -> int:
    """Copy into a span what a piece, which begins at `start`, has of it; how many elements."""
    first = max(span.start, start)
    last = min(span.start + len(span.values), start + piece.get_shape()[0])
    if first >= last:
        return 0
    span.values[first - span.start : last - span.start] = piece[first - start : last - start]
    return last - first


def _unfit(folder: Path, run: RunFolder, world: World) -> str:
    """Why a checkpoint cannot be used, by this rank's share of its files; or ''."""
    try:
        state = read_json(folder / "state.json")
        if STATE - state.keys():
            return "is of another version of this program"
        if state.pop("checksum") != _checksum(state):
            return "is damaged (state.json has another checksum)"
        if state["run_id"] != run.run_id:
            return f"is of another run, {state['run_id']}, with another configuration or seed"
        for name, facts in list(state["files"].items())[world.rank :: world.size]:
            file = folder / name
            if file.stat().st_size != facts["bytes"]:
                return f"is damaged ({name} has not the size that was written)"
            if checksum(file) != facts["checksum"]:
                return f"is damaged ({name} has another checksum)"
            with safe_open(file, "pt"):
                pass
    except (UserError, OSError, SafetensorError) as error:
        return f"is damaged ({error})"
    return ""


def _checksum(state: Json) -> str:
    return checksum(json.dumps(state, sort_keys=True).encode())
