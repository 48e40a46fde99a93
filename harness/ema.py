"""The moving average of the weights, also where DeepSpeed's ZeRO stage 3 has cut them up.

Each rank averages what it holds: whole parameters at stages 0 to 2, its own slices at stage 3.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


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

    def load(self, averages: dict[str, Tensor]) -> None:
        """Take over saved averages of the same slices."""
        for name, average in self.averages.items():
            average.copy_(averages[name])

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
