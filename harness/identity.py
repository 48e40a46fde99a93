"""Identity: which trainings and which evaluations are the same one.

Two configurations that lead to the same computation get the same canonical form, and an id is the
hash of the full canonical form (not of its difference from the defaults). So one training serves
every method that differs only at inference, and one evaluation every law at scale 1.
"""

import hashlib
import json
from functools import lru_cache
from typing import Any

from harness.config import Data, Evaluation, Model, Positions, Training
from harness.dataset import FACTS
from harness.errors import UserError
from harness.extractors import patch_side, weights_sha256
from models import names

FORMAT = 1  # of the run folder; a folder with a larger one is refused

THETA = {"rope": 100.0, "sincos": 10_000.0}  # axial RoPE of rope-vit; DiT's sin-cos

Pair = tuple[int, int]
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class CombinationError(UserError):
    """Values that are each allowed but not together; the caller adds which cell it was."""


def digest(value: object) -> str:
    """16 hex digits (64 bits) of the SHA-256 of `value` as JSON with sorted keys."""
    return hashlib.sha256(_ENCODER.encode(value).encode()).hexdigest()[:16]


def grid_of(resolution: Pair, patch: int) -> Pair:
    """Patches along height and width."""
    return resolution[0] // patch, resolution[1] // patch


def position_lengths(training: Training) -> Pair:
    """Length L of the position range along each axis: range multiplier x patches, half to even."""
    height, width = grid_of(training.data.resolution, training.model.patch)
    multiplier = training.positions.range_multiplier
    return round(multiplier * height), round(multiplier * width)


def canonical_training(training: Training) -> Training:
    """The same training, written in one way; settings without an effect take their neutral value.

    A range multiplier is written as length / patches where both axes agree on it: on 6 patches,
    2.01 is 2.

    Raises:
        CombinationError: a combination that cannot be trained; the message names the keys.
    """
    model, positions, augmentation = training.model, training.positions, training.augmentation
    _check_training(training)
    if model.encoding == "none":
        model = model.model_copy(update={"theta": THETA["rope"]})  # unused
        positions = Positions()
    elif model.theta is None:
        model = model.model_copy(update={"theta": THETA[model.encoding]})
    lengths, grid = position_lengths(training), grid_of(training.data.resolution, model.patch)
    if lengths == grid:
        positions = Positions()
    elif model.encoding != "none" and lengths[0] * grid[1] == lengths[1] * grid[0]:
        positions = positions.model_copy(update={"range_multiplier": lengths[0] / grid[0]})
    if augmentation.kind == "none" or augmentation.max_scale == 1:
        augmentation = type(augmentation)()
    return training.model_copy(
        update={"model": model, "positions": positions, "augmentation": augmentation}
    )


def _check_training(training: Training) -> None:
    data, model, train = training.data, training.model, training.train
    side, patch = FACTS[data.name].side, model.patch
    if data.resolution[0] % patch or data.resolution[1] % patch:
        raise CombinationError(
            f"data.resolution {_size(data.resolution)} is not divisible by model.patch {patch}; "
            f"use a multiple of {patch}"
        )
    if max(data.resolution) > side:
        raise CombinationError(
            f"data.resolution {_size(data.resolution)} is larger than {data.name}'s images "
            f"({side}x{side}); use at most {side}"
        )
    if model.width % model.heads:
        raise CombinationError(
            f"model.width {model.width} is not divisible by model.heads {model.heads}"
        )
    if model.encoding == "rope" and (model.width // model.heads) % 4:
        raise CombinationError(
            f"model.width / model.heads = {model.width // model.heads} must be a multiple of 4 for "
            "rope (two axes, each in pairs)"
        )
    if model.encoding == "sincos" and model.width % 4:
        raise CombinationError(f"model.width {model.width} must be a multiple of 4 for sincos")
    if training.positions.sampler == "consecutive" and training.positions.range_multiplier != 1:
        raise CombinationError(
            f"positions.range_multiplier {training.positions.range_multiplier:g} has no effect "
            "with positions.sampler consecutive; set positions.sampler: randomized"
        )
    if train.batch % train.accumulation:
        raise CombinationError(
            f"train.batch {train.batch} is not divisible by train.accumulation {train.accumulation}"
        )
    if train.images < train.batch:
        raise CombinationError(
            f"train.images {train.images} is less than one train.batch {train.batch}"
        )
    if train.warmup > train.decay_from:
        raise CombinationError(
            f"train.warmup {train.warmup} ends after train.decay_from {train.decay_from}; "
            "make it smaller"
        )
    if train.precision == "bf16" and train.zero_stage == 0:
        raise CombinationError(
            "train.precision bf16 needs train.zero_stage 1 or more (DeepSpeed's stage 0 rounds the "
            "weights themselves)"
        )


def canonical_evaluation(training: Training, evaluation: Evaluation) -> Evaluation:
    """The same evaluation of a canonical training, written in one way.

    A resize to the training size is none, every law at scale 1 is 'extrapolate', all placements
    coincide where the grid fills the trained range, and without guidance, or on at most three
    channels, it makes no difference which channels are guided.

    Raises:
        CombinationError: what cannot be sampled or measured; the message names the keys.
    """
    guidance = evaluation.inference.guidance
    if guidance != 1 and training.objective.label_dropout == 0:
        raise CombinationError(
            f"inference.guidance {guidance:g} needs the null label, which objective.label_dropout "
            "0 never trains; set a label_dropout such as 0.1, or guidance 1"
        )
    return _canonical_evaluation(training.data, training.model, training.positions, evaluation)


@lru_cache(maxsize=65536)  # keyed by what it depends on: few evaluations, many trainings
def _canonical_evaluation(
    data: Data, model: Model, positions: Positions, evaluation: Evaluation
) -> Evaluation:
    inference, evaluate = evaluation.inference, evaluation.evaluate
    _check_evaluation(data, model, evaluation)
    resolution = evaluate.resolution
    if inference.resize != "none" and resolution == data.resolution:
        inference = inference.model_copy(update={"resize": "none"})
    generated = data.resolution if inference.resize != "none" else resolution
    grid, trained = grid_of(generated, model.patch), grid_of(data.resolution, model.patch)
    lengths = tuple(round(positions.range_multiplier * n) for n in trained)

    placement = inference.placement
    if placement is None:
        placement = "contiguous" if positions.sampler == "consecutive" else "even"
    if grid == lengths or model.encoding == "none":
        placement = "contiguous"
    beyond = placement in ("contiguous", "centred") and (
        grid[0] > lengths[0] or grid[1] > lengths[1]
    )
    law = inference.law if beyond and model.encoding != "none" else "extrapolate"
    attention_scale = inference.attention_scale
    if grid == trained or (attention_scale == "yarn" and not beyond):
        attention_scale = "none"
    channels = inference.guidance_channels
    if inference.guidance == 1 or FACTS[data.name].channels <= 3:
        channels = "all"
    inference = inference.model_copy(
        update={
            "placement": placement,
            "law": law,
            "attention_scale": attention_scale,
            "guidance_channels": channels,
        }
    )
    usual = {patch_side(name, resolution) for name in evaluate.extractors}
    if usual == {evaluate.patch_size}:
        evaluate = evaluate.model_copy(update={"patch_size": None})
    return evaluation.model_copy(update={"inference": inference, "evaluate": evaluate})


def _check_evaluation(data: Data, model: Model, evaluation: Evaluation) -> None:
    inference, evaluate = evaluation.inference, evaluation.evaluate
    resolution, side = evaluate.resolution, FACTS[data.name].side
    if inference.resize == "none" and (resolution[0] % model.patch or resolution[1] % model.patch):
        raise CombinationError(
            f"evaluate.resolution {_size(resolution)} is not divisible by model.patch "
            f"{model.patch}; use a multiple of {model.patch}"
        )
    if max(resolution) > side:
        raise CombinationError(
            f"evaluate.resolution {_size(resolution)} has no real images to compare with: "
            f"{data.name} is {side}x{side}; use at most {side}"
        )
    laws = names.LAWS_FOR[model.encoding]
    if inference.law not in laws:
        raise CombinationError(
            f"inference.law {inference.law} does not exist for model.encoding {model.encoding} "
            f"(it has {', '.join(laws)}); drop such cells with 'exclude', or use 'when'"
        )
    channels = model.width // model.heads // 2
    if inference.law == "ntk" and channels <= 2:
        raise CombinationError(
            f"inference.law ntk needs more than 2 channels an axis (model.width / heads / 2), "
            f"got {channels}; widen the model or use another law"
        )
    if "log" in inference.attention_scale and data.resolution == (model.patch, model.patch):
        raise CombinationError(
            f"inference.attention_scale {inference.attention_scale} needs at least 2 tokens in "
            "training, got 1 (data.resolution is one model.patch); use a smaller patch"
        )
    if inference.resize != "none" and (
        resolution[0] < data.resolution[0] or resolution[1] < data.resolution[1]
    ):
        raise CombinationError(
            f"inference.resize {inference.resize} is upsampling only: evaluate.resolution "
            f"{_size(resolution)} is smaller than data.resolution {_size(data.resolution)}"
        )
    if evaluate.patch_size is not None and evaluate.patch_size > min(resolution):
        raise CombinationError(
            f"evaluate.patch_size {evaluate.patch_size} does not fit into evaluate.resolution "
            f"{_size(resolution)}; use at most {min(resolution)}, or null for half of it"
        )
    facts = FACTS[data.name]
    if evaluate.manifold_images > evaluate.reference_images:
        raise CombinationError(
            f"evaluate.manifold_images {evaluate.manifold_images} is more than "
            f"evaluate.reference_images {evaluate.reference_images}, which they are the first of"
        )
    for key, count, available, what in (
        ("reference_images", evaluate.reference_images, facts.training, "training images"),
        (
            "samples",
            evaluate.samples,
            facts.held_out + facts.training - evaluate.reference_images,
            "real images that are not in the reference (the floor needs as many)",
        ),
    ):
        if count > available:
            raise CombinationError(
                f"evaluate.{key} {count} is more than {data.name}'s {available} {what}"
            )


def _size(resolution: Pair) -> str:
    return f"{resolution[0]}x{resolution[1]}"


def training_json(training: Training) -> dict[str, Any]:
    """What a group's id is the hash of: the canonical training and its data's digest."""
    return {
        "format": FORMAT,
        "config": training.model_dump(mode="json"),
        "data_digest": FACTS[training.data.name].digest,
    }


def group_id_of(training: Training) -> str:
    """Id of a canonical training without its seed."""
    return digest(training_json(training))


def run_id_of(group_id: str, seed: int) -> str:
    """Id of one training run: its group and its seed."""
    return digest({"group": group_id, "seed": seed})


def protocol_of(data: Data, evaluation: Evaluation) -> dict[str, Any]:
    """By what an evaluation measures: for each extractor its weights, reference and crops."""
    evaluate = evaluation.evaluate
    size = evaluate.resolution
    return {
        "extractors": {
            name: {
                "sha256": weights_sha256(name),
                "reference": reference_id(data, size, evaluate.reference_images),
                "manifold": reference_id(data, size, evaluate.manifold_images),
                "patch": evaluate.patch_size or patch_side(name, size),
            }
            for name in evaluate.extractors
        }
    }


@lru_cache(maxsize=65536)
def reference_id(data: Data, resolution: Pair, images: int) -> str:
    """Id of `images` real training images at `resolution`: content, size and count."""
    return digest([FACTS[data.name].digest, "train", list(resolution), images])


@lru_cache(maxsize=65536)
def eval_id_of(data: Data, evaluation: Evaluation) -> str:
    """Id of a canonical evaluation, within its run's folder."""
    return digest(
        {
            "format": FORMAT,
            "config": evaluation.model_dump(mode="json"),
            "protocol": protocol_of(data, evaluation),
        }
    )
