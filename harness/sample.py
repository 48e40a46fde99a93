"""Sampling: image i of a seed is a function of (seed, i), on any number of ranks."""

from collections.abc import Callable
from functools import lru_cache, reduce

import psutil
import torch
from torch import Tensor

from harness.config import Evaluation, Inference, Training
from harness.dataset import facts
from harness.draws import generator, normal, uniform
from harness.identity import grid_of, position_lengths
from harness.images import resize, to_uint8
from harness.objective import prediction
from harness.solvers import Field, ddpm_chain, denoise, flow_times, integrate
from harness.stages import Size, trained_sizes
from models.dit import DiT
from models.geometry import Geometry, inference_geometry
from models.names import TIME_AWARE

Placed = Callable[[Tensor], list[Geometry]]  # t [B], one time for all -> a geometry a draw
MOST_AT_ONCE = 125  # a larger batch is no faster, and a fixed number keeps the rounding the same


def labels_of(indices: range, classes: int, kind: str, seed: int) -> Tensor:
    """Labels int64 of these images: balanced (image i has class i mod classes), or random.

    Balanced labels, as many of each class, lower an FID of about 1.4 by about 0.1 against random
    ones (the RAE and REPA authors' comparisons), so which it was stands with every figure.
    """
    if kind == "balanced":
        return torch.arange(indices.start, indices.stop) % classes
    return torch.tensor([int(generator(seed, "label", i).integers(classes)) for i in indices])


def generated_size(training: Training, evaluation: Evaluation) -> Size:
    """The size that the model itself generates, before any resize: that of its last stage so far.

    Which stage that is, `evaluate.after` says.
    """
    asked = evaluation.evaluate
    if evaluation.inference.resize == "none":
        return asked.resolution
    return trained_sizes(training, asked.after)[-1]


def batch_that_fits(training: Training, evaluation: Evaluation, device: torch.device) -> int:
    """Images to generate at once: 125, or as many as a quarter of the free memory holds.

    The need of an image is bounded from above by the activations of one block in fp32: queries,
    keys, values, the output, both sides of the MLP and a few residuals, for every token.
    """
    model = training.model
    height, width = grid_of(generated_size(training, evaluation), model.patch)
    per_image = 4 * height * width * model.width * (12 + 2 * model.mlp_ratio)
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    return max(1, min(MOST_AT_ONCE, int(free / 4 / per_image)))


def placed(
    training: Training,
    evaluation: Evaluation,
    seed: int,
    indices: range,
    device: torch.device,
) -> Placed:
    """Positions, frequencies and logit scale for images of the generated size, at any time.

    One geometry, or with placement 'random' one for each of `inference.draws` draws, in which
    image i has positions of its own. They change with time only under a time-aware law.
    """
    model, inference = training.model, evaluation.inference
    theta, placement = model.theta, inference.placement
    assert theta is not None  # canonical
    assert placement is not None
    trained = trained_sizes(training, evaluation.evaluate.after)[-1]
    uniforms: list[dict[str, Tensor]] = [{}]
    if inference.placement == "random":
        uniforms = [_uniforms(training, seed, k, indices) for k in range(inference.draws)]

    @lru_cache(maxsize=1)
    def at(time: float) -> list[Geometry]:
        return [
            inference_geometry(
                encoding=model.encoding,
                theta=theta,
                width=model.width,
                heads=model.heads,
                train_grid=grid_of(trained, model.patch),
                length=position_lengths(training),
                grid=grid_of(generated_size(training, evaluation), model.patch),
                placement=placement,
                law=inference.law,
                law_scale=inference.law_scale,
                attention_scale=inference.attention_scale,
                batch=len(indices),
                device=device,
                time=time,
                sampler=training.positions.sampler,
                **drawn,
            )
            for drawn in uniforms
        ]

    time_aware = inference.law in TIME_AWARE
    return lambda t: at(float(t[0]) if time_aware else 0.0)


def _uniforms(training: Training, seed: int, draw: int, indices: range) -> dict[str, Tensor]:
    """What the position sampler needs for one draw of the placements of these images."""

    def of(what: str, count: int) -> Tensor:
        purpose = f"placement {what} {draw}"
        return torch.stack([uniform(seed, purpose, i, (count,)) for i in indices])

    rows, cols = position_lengths(training)
    return {
        "uniform_h": of("rows", rows),
        "uniform_w": of("columns", cols),
        "shared": of("rescale", 1)[:, 0],
    }


def micro_condition(training: Training, evaluation: Evaluation) -> list[float]:
    """(top, left, resized height, resized width) in pixels that the model is told.

    'neutral': nothing cut, resized to the training size: of the stage that trained the generated
    size where one has, else of the last so far. 'centre_crop': the central window of the training
    size in an image of the generated size, where that is larger.
    """
    size = generated_size(training, evaluation)
    sizes = trained_sizes(training, evaluation.evaluate.after)
    h, w = sizes[-1]
    if evaluation.inference.micro_condition == "neutral":
        return [0, 0, *(size if size in sizes else (h, w))]
    height, width = max(size[0], h), max(size[1], w)
    return [(height - h) / 2, (width - w) / 2, height, width]


def guided(
    model: DiT,
    training: Training,
    inference: Inference,
    labels: Tensor,
    micro: Tensor | None,
    geometries: Placed,
) -> Field:
    """The model's prediction with classifier-free guidance: null + g (label's - null's).

    Ho and Salimans 2022 (arXiv:2207.12598); g = 1 takes one model call. On the channels that are
    not guided it is the label's: DDPM's variance, and with 'first_three' the fourth channel, as in
    DiT's code (Peebles and Xie 2023). With several geometries it is the mean over them.
    """
    known, g = facts(training.data), inference.guidance
    null = torch.full_like(labels, known.classes)
    channels = known.channels
    if inference.guidance_channels == "first_three":
        channels = min(3, channels)

    def one(x: Tensor, t: Tensor, geometry: Geometry) -> Tensor:
        plain = prediction(model, training.objective, x, t, labels, geometry, micro)
        if g == 1:
            return plain
        nulls = prediction(model, training.objective, x, t, null, geometry, micro)
        strong = nulls + g * (plain - nulls)
        return torch.cat([strong[:, :channels], plain[:, channels:]], dim=1)

    def field(x: Tensor, t: Tensor) -> Tensor:
        drawn = geometries(t)
        return reduce(torch.add, (one(x, t, geometry) for geometry in drawn)) / len(drawn)

    return field


@torch.inference_mode()
def generate(
    model: DiT,
    training: Training,
    evaluation: Evaluation,
    seed: int,
    indices: range,
    device: torch.device,
) -> Tensor:
    """Images of these indices: uint8 [len(indices), C, *evaluation.evaluate.resolution].

    Args:
        training, evaluation: in their canonical form.

    Raises:
        ValueError: the model produced values that are not finite.
    """
    inference, asked = evaluation.inference, evaluation.evaluate
    size, known = generated_size(training, evaluation), facts(training.data)
    shape = (known.channels, *size)

    def noise(purpose: str) -> Tensor:
        return torch.stack([normal(seed, purpose, i, shape) for i in indices]).to(device)

    classes = labels_of(indices, known.classes, asked.labels, seed).to(device)
    micro = None
    if training.micro_conditioning.kind != "none":
        row = torch.tensor(micro_condition(training, evaluation), device=device)
        micro = row.float().expand(len(indices), 4)
    geometries = placed(training, evaluation, seed, indices, device)
    field = guided(model, training, inference, classes, micro, geometries)
    solver, shift = inference.solver, inference.timestep_shift
    assert solver is not None  # canonical
    assert shift != "sd3"
    a = 1.0 if shift == "none" else float(shift)
    if training.objective.kind == "flow":
        times = flow_times(inference.steps, a, device)
        images = integrate(field, noise("sample"), times, solver)
    else:
        chain = ddpm_chain(inference.steps, a, device)
        images = denoise(field, noise("sample"), chain, solver, lambda n: noise(f"ancestral {n}"))
    if inference.resize != "none":
        images = resize(images, asked.resolution, inference.resize)
    return to_uint8(images.clamp(-1, 1)).cpu()
