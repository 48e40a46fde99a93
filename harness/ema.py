"""The moving average of the weights, also where ZeRO stage 3 has cut them up, and its files.

Each rank averages what it holds: whole parameters at stages 0 to 2, its own slices at stage 3.
"""

import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from harness.engine import Spans, World, span
from harness.files import Json, checksum, write_atomic
from harness.record import RunFolder


def held(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of a parameter: all of it, or its ZeRO-3 slice."""
    return parameter.ds_tensor if hasattr(parameter, "ds_tensor") else parameter.data


class Ema:
    """fp32 averages: ema <- d ema + (1 - d) weights, d = min(decay, (1 + n)/(10 + n)).

    The rising decay lets the average forget the initial weights in short trainings.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.averages = {
            name: held(p).detach().clone().float() for name, p in self.parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = [held(p).detach().float() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), weights, 1 - decay)

    def spans(self) -> Spans:
        """What this rank holds of the averages; what is written into it is taken over."""
        return {name: span(self.parameters[name], held) for name, held in self.averages.items()}

    def whole(self) -> dict[str, Tensor]:
        """Full averages on the CPU, gathered over ranks where they are cut up (collective)."""
        return {name: self._gathered(name).cpu() for name in self.averages}

    def _gathered(self, name: str) -> Tensor:
        parameter: Any = self.parameters[name]
        average = self.averages[name]
        if not hasattr(parameter, "ds_tensor"):
            return average
        slices = [torch.empty_like(average) for _ in range(dist.get_world_size())]
        dist.all_gather(slices, average)
        return torch.cat(slices)[: parameter.ds_numel].view(parameter.ds_shape)


def write_weights(file: Path, run: RunFolder, ema: Ema, world: World) -> Json:
    """Write the averaged weights as they are now, on rank 0: {name: checksum} (collective)."""
    weights = ema.whole()
    if world.rank != 0:
        return {}
    content = save_tensors(weights, metadata={"run_id": run.run_id})
    write_atomic(file, content)
    return {file.name: checksum(content)}


def damage_of(file: Path, sums: Json) -> str:
    """What is wrong with a file of averaged weights: "is missing", "is damaged (...)" or ''.

    `sums` has the checksums that were written down, by the names of the files.
    """
    if not file.exists():
        return "is missing"
    expected = sums.get(file.name)
    if expected is not None and checksum(file) != expected:
        return "is damaged (it has another checksum)"
    return ""


def set_damaged_weights_aside(run: RunFolder, world: World) -> None:
    """Before a finished training is used: damaged weights count as lost (collective).

    The last checkpoint then makes them again.
    """
    done = run.done() if world.rank == 0 else None
    if done and (wrong := damage_of(run.weights_file, done.get("weights", {}))):
        print(f"{run.weights_file}: {wrong}; made again from the last checkpoint", flush=True)
        run.weights_file.rename(run.path / f".damaged-{run.weights_file.name}-{time.time_ns()}")
    world.barrier()


def lost_snapshot(file: Path, what: str) -> str:
    """What to do about averaged weights of the middle of a training that cannot be read."""
    return (
        f"{file}: {what}; only training again makes it: delete DONE and checkpoints/ beside it "
        "and give the same command with --retry-failed"
    )
