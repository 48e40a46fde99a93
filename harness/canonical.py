"""The canonical form: two configurations that lead to the same computation are written alike."""

import math
from functools import lru_cache

from harness.combinations import (
    SOLVERS,
    check_evaluation,
    check_measuring,
    check_sampling,
    check_training,
)
from harness.config import Data, Evaluation, Model, Objective, Positions, Training
from harness.dataset import facts
from harness.extractors import patch_side
from harness.identity import grid_of, lengths_of, position_lengths
from harness.stages import Size, trained_sizes
from models import names

# Axial RoPE and RoPE-Mixed's start of rope-vit; DiT's sin-cos; without an effect elsewhere.
THETA = {"rope": 100.0, "rope-mixed": 10.0, "sincos": 10_000.0, "learned": 100.0, "none": 100.0}
# Where positions lie at inference if nothing is said: as training showed them.
PLACEMENT = {
    "consecutive": "contiguous",
    "shift": "contiguous",
    "rescale": "centred",
    "jitter": "centred",
}


def canonical_training(training: Training) -> Training:
    """The same training, written in one way; settings without an effect take their neutral value.

    With stages the resolution is that of the last one and the images are those of all. A range
    multiplier is written as length / patches where both axes agree on it: on 6 patches, 2.01 is 2.

    Raises:
        CombinationError: a combination that cannot be trained; the message names the keys.
    """
    training = _with_stages(training)
    model, positions, augmentation = training.model, training.positions, training.augmentation
    objective = training.objective
    check_training(training)
    encoding = model.encoding
    if model.theta is None or encoding in ("none", "learned"):
        model = model.model_copy(update={"theta": THETA[encoding]})
    lengths, grid = position_lengths(training), grid_of(training.data.resolution, model.patch)
    plain = lengths == grid and positions.sampler in names.PLAIN_AT_ONE
    if encoding == "none" or (plain and _one_size(training)):
        positions = Positions()
    elif lengths[0] * grid[1] == lengths[1] * grid[0]:
        positions = positions.model_copy(update={"range_multiplier": lengths[0] / grid[0]})
    if positions.sampler == "consecutive":
        positions = positions.model_copy(update={"granularity": "sample"})
    if augmentation.kind == "none" or augmentation.max_scale == 1:
        augmentation = type(augmentation)()
    if objective.kind == "ddpm":
        usual = {"timesteps": "uniform", "precondition": False}
        objective = objective.model_copy(update=usual)
    if not objective.precondition:
        objective = objective.model_copy(update={"data_variance": Objective().data_variance})
    changed = {"model": model, "positions": positions, "augmentation": augmentation}
    return training.model_copy(update=changed | {"objective": objective})


def _with_stages(training: Training) -> Training:
    """Stages with nothing left open, and what follows of them; a single plain stage is none."""
    train = training.train
    if not train.stages:
        return training
    stages = tuple(
        stage.model_copy(
            update={
                key: getattr(train, key)
                for key in ("learning_rate", "warmup", "decay_from")
                if getattr(stage, key) is None
            }
        )
        for stage in train.stages
    )
    stages = (stages[0].model_copy(update={"optimizer": "keep"}), *stages[1:])
    last, images = stages[-1], sum(stage.images for stage in stages)
    if len(stages) == 1:
        own = {key: getattr(last, key) for key in ("learning_rate", "warmup", "decay_from")}
        train = train.model_copy(update=own | {"stages": (), "images": images})
    else:
        train = train.model_copy(update={"stages": stages, "images": images})
    data = training.data.model_copy(update={"resolution": last.resolution})
    return training.model_copy(update={"train": train, "data": data})


def _one_size(training: Training) -> bool:
    return all(stage.resolution == training.data.resolution for stage in training.train.stages)


def canonical_evaluation(training: Training, evaluation: Evaluation) -> Evaluation:
    """The same evaluation of a canonical training, written in one way.

    A resize to the training size is none, every law at scale 1 is 'extrapolate', all placements
    coincide where the grid fills the trained range, and without guidance, or on at most three
    channels, it makes no difference which channels are guided.

    Raises:
        CombinationError: what cannot be sampled or measured; the message names the keys.
    """
    check_evaluation(training, evaluation)
    conditioned = training.micro_conditioning.kind != "none"
    trained = trained_sizes(training, evaluation.evaluate.after)[-1]
    return _canonical_evaluation(
        training.data, trained, training.model, training.positions, training.objective, conditioned,
        evaluation,
    )  # fmt: skip


@lru_cache(maxsize=65536)  # keyed by what it depends on: few evaluations, many trainings
def _canonical_evaluation(
    data: Data,
    trained_size: Size,
    model: Model,
    positions: Positions,
    objective: Objective,
    micro_conditioned: bool,
    evaluation: Evaluation,
) -> Evaluation:
    inference, evaluate = evaluation.inference, evaluation.evaluate
    resolution = evaluate.resolution
    if inference.resize != "none" and resolution == trained_size:
        inference = inference.model_copy(update={"resize": "none"})
    solver = inference.solver or SOLVERS[objective.kind][0]
    if inference.placement is None:
        usual = PLACEMENT.get(positions.sampler, "even")
        inference = inference.model_copy(update={"placement": usual})
    evaluation = evaluation.model_copy(update={"inference": inference})
    generated = trained_size if inference.resize != "none" else resolution
    trained, grid = grid_of(trained_size, model.patch), grid_of(generated, model.patch)
    lengths = lengths_of(positions, grid_of(data.resolution, model.patch))
    check_sampling(trained, grid, lengths, model, positions, objective, evaluation)
    check_measuring(data, evaluation)

    placement, law, law_scale = inference.placement, inference.law, inference.law_scale
    if placement == "random" and positions.sampler == "consecutive":
        placement = "contiguous"  # that is what it draws
    fills = grid == lengths and (placement != "random" or positions.sampler in names.PLAIN_AT_ONE)
    if fills or model.encoding == "none":
        placement = "contiguous"
    beyond = placement not in names.COMPRESSING and (grid[0] > lengths[0] or grid[1] > lengths[1])
    if not beyond or model.encoding == "none":
        law = "extrapolate"
    alike = grid[0] * lengths[1] == grid[1] * lengths[0]
    tokens, trained_tokens = math.prod(grid), math.prod(trained)
    attention_scale = inference.attention_scale
    if attention_scale == "log-clamped" and tokens > trained_tokens:
        attention_scale = "log"
    # The yarn temperature sees the law's factor; FiTv2's code is not 1 at the training size.
    neutral = {
        "yarn": not beyond,
        "log": tokens == trained_tokens,
        "sqrt-log": tokens == trained_tokens,
        "log-clamped": tokens <= trained_tokens,
    }
    if neutral.get(attention_scale):
        attention_scale = "none"
    if law == "ei":
        law_scale = "per_axis"  # a table is resized to the grid
    elif law == "extrapolate" or alike:
        law_scale = "shared"
    shift = inference.timestep_shift
    if shift == "sd3":
        shift = math.sqrt(tokens / trained_tokens)
    if shift == 1:
        shift = "none"
    larger = generated[0] > trained_size[0] or generated[1] > trained_size[1]
    channels = inference.guidance_channels
    if inference.guidance == 1 or facts(data).channels <= 3:
        channels = "all"
    inference = inference.model_copy(
        update={
            "placement": placement,
            "draws": inference.draws if placement == "random" else 1,
            "law": law,
            "law_scale": law_scale,
            "attention_scale": attention_scale,
            "timestep_shift": shift,
            "micro_condition": (
                inference.micro_condition if micro_conditioned and larger else "neutral"
            ),
            "guidance_channels": channels,
            "solver": solver,
        }
    )
    sides = {patch_side(name, resolution) for name in evaluate.extractors}
    if sides == {evaluate.patch_size}:
        evaluate = evaluate.model_copy(update={"patch_size": None})
    return evaluation.model_copy(update={"inference": inference, "evaluate": evaluate})
