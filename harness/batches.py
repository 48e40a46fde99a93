"""The batches of a training: everything random about a step, and the next one made ahead."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from harness.config import Training
from harness.data import Order, open_data, training_batch
from harness.dataset import facts
from harness.draws import normal, uniform
from harness.engine import World
from harness.identity import grid_of, position_lengths
from harness.objective import timesteps
from harness.stages import stage_at
from models.geometry import Geometry, Grid, training_geometry


class Part(NamedTuple):
    """What one rank takes in at once, B images of a step's batch, on its device."""

    x: Tensor  # [B, C, H, W] in -1..1
    labels: Tensor  # int64 [B]; the null label where it is dropped
    micro: Tensor | None  # [B, 4]: top, left, resized height and width in pixels
    t: Tensor  # [B] in [0, 1], 1 being noise
    noise: Tensor  # [B, C, H, W]
    geometry: Geometry


class Batches:
    """Everything random about a step, for the whole batch and every rank alike, cut by rank."""

    def __init__(self, training: Training, seed: int, world: World) -> None:
        self.training, self.seed, self.world = training, seed, world
        self.data = open_data(training.data, "train")
        self.null_label = facts(training.data).classes
        self.order = Order(seed, self.data.count)
        self.lengths = position_lengths(training)

    def ahead(self, steps: range) -> Iterator[tuple[int, list[Part]]]:
        """Each step with its parts; a thread makes the next ones while these are used."""
        if not steps:
            return
        with ThreadPoolExecutor(1, "next batch") as thread:
            coming = thread.submit(self.parts, steps[0])
            for step in steps:
                parts = coming.result()
                if step != steps[-1]:
                    coming = thread.submit(self.parts, step + 1)
                yield step, parts

    def parts(self, step: int) -> list[Part]:
        """The accumulated parts of a step for this rank."""
        training, size, seed = self.training, self.training.train.batch, self.seed
        resolution = stage_at(training, step).resolution
        x, labels, crops = training_batch(
            self.data, self.order.batch(step, size), resolution, training.augmentation, seed, step
        )
        noise = normal(seed, "noise", step, tuple(x.shape))
        t = timesteps(normal(seed, "timestep", step, (size,)), training.objective)
        dropped = uniform(seed, "label dropout", step, (size,)) < training.objective.label_dropout
        labels = torch.where(dropped, self.null_label, labels)
        grid = grid_of(resolution, training.model.patch)
        # Without an encoding there are no positions: a stage may outgrow the last one's range.
        lengths = grid if training.model.encoding == "none" else self.lengths
        rows = self._uniform("rows", step, lengths[0])
        cols = self._uniform("columns", step, lengths[1])
        shared = self._uniform("rescale", step)
        micro = None
        if training.micro_conditioning.kind != "none":
            micro = crops * torch.tensor(resolution * 2)  # of multiples of the size: in pixels
        device = self.world.device
        return [
            Part(
                x=x[cut].to(device),
                labels=labels[cut].to(device),
                micro=None if micro is None else micro[cut].to(device),
                t=t[cut].to(device),
                noise=noise[cut].to(device),
                geometry=self._geometry(
                    grid, lengths, rows[..., cut, :], cols[..., cut, :], shared[..., cut]
                ),
            )
            for cut in self._cuts(size)
        ]

    def _uniform(self, purpose: str, step: int, *width: int) -> Tensor:
        """Uniforms [B, *width], or [layers, B, *width] where each layer draws its own.

        A batch that shares its draw has that of its first sample.
        """
        granularity, size = self.training.positions.granularity, self.training.train.batch
        if granularity == "batch":
            return uniform(self.seed, purpose, step, (1, *width)).expand(size, *width)
        layers = (self.training.model.depth,) if granularity == "layer" else ()
        return uniform(self.seed, purpose, step, (*layers, size, *width))

    def _cuts(self, size: int) -> list[slice]:
        """Part a of rank r is block a * ranks + r of the batch."""
        parts = self.training.train.accumulation
        share = size // (parts * self.world.size)
        blocks = (a * self.world.size + self.world.rank for a in range(parts))
        return [slice(block * share, (block + 1) * share) for block in blocks]

    def _geometry(
        self, grid: Grid, lengths: Grid, rows: Tensor, cols: Tensor, shared: Tensor
    ) -> Geometry:
        model = self.training.model
        assert model.theta is not None  # canonical
        return training_geometry(
            model.encoding,
            self.training.positions.sampler,
            model.theta,
            model.width,
            model.heads,
            grid,
            lengths,
            rows,
            cols,
            shared,
            self.world.device,
        )
