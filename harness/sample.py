"""Sampling: image i of a seed is a function of (seed, i), on any number of ranks."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from harness.config import Inference, Training
from harness.dataset import FACTS
from harness.draws import normal
from harness.identity import grid_of, position_lengths
from harness.images import to_uint8, upsample
from harness.objective import velocity
from models.dit import DiT
from models.geometry import Geometry, inference_geometry

Size = tuple[int, int]
Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t [B, C, H, W], t [B]) -> v


def labels_of(indices: range, classes: int) -> Tensor:
    """Balanced labels: image i has class i mod classes."""
    return torch.arange(indices.start, indices.stop) % classes


def chunks_of(samples: int, chunk: int, rank: int, ranks: int) -> Iterator[range]:
    """The blocks of indices that a rank generates, every `ranks`-th one.

    Blocks do not depend on the number of ranks, so neither does the rounding inside one.
    """
    for number, start in enumerate(range(0, samples, chunk)):
        if number % ranks == rank:
            yield range(start, min(start + chunk, samples))


def geometry_for(
    training: Training, inference: Inference, size: Size, batch: int, device: torch.device
) -> Geometry:
    """Positions, frequencies and logit scale for images of `size` pixels."""
    model = training.model
    assert model.theta is not None  # canonical
    assert inference.placement is not None
    return inference_geometry(
        model.encoding,
        model.theta,
        model.width,
        model.heads,
        grid_of(training.data.resolution, model.patch),
        position_lengths(training),
        grid_of(size, model.patch),
        inference.placement,
        inference.law,
        inference.attention_scale,
        batch,
        device,
    )


def guided(
    model: DiT,
    training: Training,
    labels: Tensor,
    geometry: Geometry,
    guidance: float,
) -> Velocity:
    """The velocity field with classifier-free guidance: v_null + g (v_label - v_null).

    Ho and Salimans 2022 (arXiv:2207.12598), on all channels; g = 1 takes one model call. The
    micro-condition is neutral: nothing cropped, resized to the training size, whatever the size
    of the image.
    """
    height, width = training.data.resolution
    neutral = None
    if training.micro_conditioning.kind != "none":
        row = torch.tensor([0.0, 0.0, height, width], device=labels.device)
        neutral = row.expand(len(labels), 4)
    null = torch.full_like(labels, FACTS[training.data.name].classes)
    precondition = training.objective.precondition

    def field(x: Tensor, t: Tensor) -> Tensor:
        v = velocity(model, x, t, precondition, labels, geometry, neutral)
        if guidance == 1:
            return v
        v_null = velocity(model, x, t, precondition, null, geometry, neutral)
        return v_null + guidance * (v - v_null)

    return field


def integrate(field: Velocity, x: Tensor, solver: str, steps: int) -> Tensor:
    """Follow the field from noise (t = 1) to data (t = 0) in equal steps: Euler, or Heun."""
    times = torch.linspace(1, 0, steps + 1, device=x.device)
    for now, then in pairwise(times):
        slope = field(x, now.expand(len(x)))
        ahead = x + (then - now) * slope
        if solver == "heun":
            slope = (slope + field(ahead, then.expand(len(x)))) / 2
            ahead = x + (then - now) * slope
        x = ahead
    return x


@torch.inference_mode()
def generate(
    model: DiT,
    training: Training,
    inference: Inference,
    resolution: Size,
    seed: int,
    indices: range,
    device: torch.device,
) -> Tensor:
    """Images of these indices: uint8 [len(indices), C, *resolution].

    Raises:
        ValueError: the model produced values that are not finite.
    """
    size = training.data.resolution if inference.resize != "none" else resolution
    facts = FACTS[training.data.name]
    shape = (facts.channels, *size)
    noise = torch.stack([normal(seed, "sample", i, shape) for i in indices]).to(device)
    labels = labels_of(indices, facts.classes).to(device)
    geometry = geometry_for(training, inference, size, len(noise), device)
    field = guided(model, training, labels, geometry, inference.guidance)
    images = integrate(field, noise, inference.solver, inference.steps)
    if inference.resize == "bicubic":
        images = upsample(images, resolution, "bicubic")
    return to_uint8(images.clamp(-1, 1)).cpu()
