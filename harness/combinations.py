"""Combinations of values that are each allowed but not together, refused with what to change."""

from harness import extractors
from harness.config import Data, Evaluation, Model, Objective, Positions, Training
from harness.dataset import facts
from harness.errors import UserError
from harness.identity import grid_of, position_lengths
from models import names

MAX_ENLARGED = 4  # a reference may be so many times as large as the data's own images
SOLVERS = {"flow": ("heun", "euler"), "ddpm": ("ddpm", "ddim")}  # the first is the default

Pair = tuple[int, int]


class CombinationError(UserError):
    """Values that are each allowed but not together; the caller adds which cell it was."""


def check_training(training: Training) -> None:
    """Refuse what cannot be trained.

    Raises:
        CombinationError: the message names the keys.
    """
    data, model, train = training.data, training.model, training.train
    positions = training.positions
    if (data.name == "image_folder") != (data.folder is not None):
        raise CombinationError(
            "data.name image_folder needs data.folder, the folder of the pictures"
            if data.folder is None
            else f"data.folder has no effect with data.name {data.name}; set data.name: "
            "image_folder"
        )
    side, patch = facts(data).side, model.patch
    stages = [(f"train.stages[{i}].resolution", s.resolution) for i, s in enumerate(train.stages)]
    for key, resolution in stages or [("data.resolution", data.resolution)]:
        if resolution[0] % patch or resolution[1] % patch:
            raise CombinationError(
                f"{key} {_size(resolution)} is not divisible by model.patch {patch}; "
                f"use a multiple of {patch}"
            )
        if max(resolution) > side:
            raise CombinationError(
                f"{key} {_size(resolution)} is larger than {data.name}'s images "
                f"({side}x{side}); use at most {side}"
            )
    _check_model(model)
    if positions.sampler == "consecutive" and positions.range_multiplier != 1:
        raise CombinationError(
            f"positions.range_multiplier {positions.range_multiplier:g} has no effect "
            "with positions.sampler consecutive; set positions.sampler: randomized"
        )
    if positions.granularity == "layer" and model.encoding in names.ABSOLUTE:
        raise CombinationError(
            f"positions.granularity layer does not exist for model.encoding {model.encoding}, "
            "whose code is added once; use sample or batch"
        )
    for key, resolution in stages if model.encoding != "none" else ():
        grid, lengths = grid_of(resolution, patch), position_lengths(training)
        if grid[0] > lengths[0] or grid[1] > lengths[1]:
            raise CombinationError(
                f"{key} {_size(resolution)} has {_size(grid)} patches, the range of positions "
                f"{_size(lengths)} (range multiplier x the last stage's); widen "
                "positions.range_multiplier, with a sampler other than consecutive"
            )
    sizes = [resolution for _, resolution in stages] or [data.resolution]
    if training.augmentation.kind == "resize_crop" and all(min(s) >= side for s in sizes):
        raise CombinationError(
            f"augmentation.kind resize_crop has nothing to crop at {_size(sizes[-1])}: "
            f"{data.name}'s images are {side}x{side}; train smaller, or set none"
        )
    _check_lengths(training)


def _check_model(model: Model) -> None:
    if model.width % model.heads:
        raise CombinationError(
            f"model.width {model.width} is not divisible by model.heads {model.heads}"
        )
    if model.encoding == "rope" and (model.width // model.heads) % 4:
        raise CombinationError(
            f"model.width / model.heads = {model.width // model.heads} must be a multiple of 4 for "
            "rope (two axes, each in pairs)"
        )
    if model.encoding == "rope-mixed" and (model.width // model.heads) % 4:
        raise CombinationError(
            f"model.width / model.heads = {model.width // model.heads} must be a multiple of 4 for "
            "rope-mixed (pairs of channels, half of them started along each direction)"
        )
    if model.encoding == "sincos" and model.width % 4:
        raise CombinationError(f"model.width {model.width} must be a multiple of 4 for sincos")


def _check_lengths(training: Training) -> None:
    """Batches, images and the shares of a schedule."""
    train = training.train
    if train.batch % train.accumulation:
        raise CombinationError(
            f"train.batch {train.batch} is not divisible by train.accumulation {train.accumulation}"
        )
    parts = [
        (f"train.stages[{i}].", stage.images, stage.warmup, stage.decay_from)
        for i, stage in enumerate(train.stages)
    ] or [("train.", train.images, train.warmup, train.decay_from)]
    for where, images, warmup, decay_from in parts:
        if images < train.batch:
            raise CombinationError(
                f"{where}images {images} is less than one train.batch {train.batch}"
            )
        assert warmup is not None  # canonical
        assert decay_from is not None
        if warmup > decay_from:
            raise CombinationError(
                f"{where}warmup {warmup} ends after {where}decay_from {decay_from}; make it smaller"
            )
    if train.precision == "bf16" and train.zero_stage == 0:
        raise CombinationError(
            "train.precision bf16 needs train.zero_stage 1 or more (DeepSpeed's stage 0 rounds the "
            "weights themselves)"
        )


def check_evaluation(training: Training, evaluation: Evaluation) -> None:
    """Refuse what this training gives no weights for.

    Raises:
        CombinationError: the message names the keys.
    """
    guidance, after = evaluation.inference.guidance, evaluation.evaluate.after
    if guidance != 1 and training.objective.label_dropout == 0:
        raise CombinationError(
            f"inference.guidance {guidance:g} needs the null label, which objective.label_dropout "
            "0 never trains; set a label_dropout such as 0.1, or guidance 1"
        )
    kept = (*training.train.snapshots, 1.0)
    if after not in kept:
        raise CombinationError(
            f"evaluate.after {after:g} is not kept: train.snapshots has "
            f"{', '.join(f'{share:g}' for share in kept[:-1]) or 'none'} (and 1, the end); add it"
        )


def check_sampling(
    trained: Pair,
    grid: Pair,
    lengths: Pair,
    model: Model,
    positions: Positions,
    objective: Objective,
    evaluation: Evaluation,
) -> None:
    """Refuse what cannot be sampled; `inference.placement` is given.

    Args:
        trained, grid, lengths: patches in training, patches generated, and the trained ranges.

    Raises:
        CombinationError: the message names the keys.
    """
    inference, resolution = evaluation.inference, evaluation.evaluate.resolution
    resized = inference.resize != "none"
    if not resized and (resolution[0] % model.patch or resolution[1] % model.patch):
        raise CombinationError(
            f"evaluate.resolution {_size(resolution)} is not divisible by model.patch "
            f"{model.patch}; use a multiple of {model.patch}"
        )
    solvers = SOLVERS[objective.kind]
    if inference.solver not in (None, *solvers):
        raise CombinationError(
            f"inference.solver {inference.solver} does not go with objective.kind "
            f"{objective.kind} (it has {', '.join(solvers)}); change one of them, or give both "
            "under 'zip'"
        )
    if objective.kind == "ddpm" and inference.steps > names.DDPM_STEPS:
        raise CombinationError(
            f"inference.steps {inference.steps} is more than the {names.DDPM_STEPS} training steps "
            "of ddpm; use at most as many"
        )
    laws = names.LAWS_FOR[model.encoding]
    if inference.law not in laws:
        raise CombinationError(
            f"inference.law {inference.law} does not exist for model.encoding {model.encoding} "
            f"(it has {', '.join(laws)}); drop such cells with 'exclude', or use 'when'"
        )
    channels = model.width // model.heads // 2
    if inference.law in ("ntk", "dype-ntk") and channels <= 2:
        raise CombinationError(
            f"inference.law {inference.law} needs more than 2 channels an axis (model.width / "
            f"heads / 2), got {channels}; widen the model or use another law"
        )
    logarithmic = "log" in inference.attention_scale or inference.attention_scale == "fitv2-code"
    if logarithmic and trained == (1, 1):
        raise CombinationError(
            f"inference.attention_scale {inference.attention_scale} needs at least 2 tokens in "
            "training, got 1 (one model.patch); use a smaller patch"
        )
    outgrown = grid[0] > lengths[0] or grid[1] > lengths[1]
    if inference.placement == "random" and outgrown and positions.sampler != "consecutive":
        raise CombinationError(
            f"inference.placement random cannot draw {_size(grid)} patches out of "
            f"{_size(lengths)} positions; use another placement, or widen "
            "positions.range_multiplier"
        )
    if (
        model.encoding == "learned"
        and outgrown
        and inference.law != "ei"
        and inference.placement in ("contiguous", "centred")
    ):
        raise CombinationError(
            f"a learned table of {_size(lengths)} positions ends before the {_size(grid)} patches "
            f"of {_size(resolution)}; set inference.law: ei (resize it), or inference.placement: "
            "even"
        )


def check_measuring(data: Data, evaluation: Evaluation) -> None:
    """Refuse what cannot be measured.

    Raises:
        CombinationError: the message names the keys.
    """
    evaluate, resolution = evaluation.evaluate, evaluation.evaluate.resolution
    known = facts(data)
    for name in evaluate.extractors:
        of = extractors.facts(name).data
        if data.name != "image_folder" and of not in (None, data.name):  # these have their own
            right = [n for n, own in extractors.FACTS.items() if own.data == data.name]
            raise CombinationError(
                f"evaluate.extractors {name} knows {of} only, the data are {data.name}; set "
                f"evaluate.extractors: {', '.join(right)}, or take --base base/{data.name}.yaml"
            )
    if evaluate.patch_size is not None and evaluate.patch_size > min(resolution):
        raise CombinationError(
            f"evaluate.patch_size {evaluate.patch_size} does not fit into evaluate.resolution "
            f"{_size(resolution)}; use at most {min(resolution)}, or null for half of it"
        )
    if max(resolution) > MAX_ENLARGED * known.side:
        raise CombinationError(
            f"evaluate.resolution {_size(resolution)} is more than {MAX_ENLARGED} times "
            f"{data.name}'s images ({known.side}x{known.side}); use at most "
            f"{MAX_ENLARGED * known.side}"
        )
    if evaluate.manifold_images > evaluate.reference_images:
        raise CombinationError(
            f"evaluate.manifold_images {evaluate.manifold_images} is more than "
            f"evaluate.reference_images {evaluate.reference_images}, which they are the first of"
        )
    for key, count, available, what in (
        ("reference_images", evaluate.reference_images, known.training, "training images"),
        (
            "samples",
            evaluate.samples,
            known.held_out + known.training - evaluate.reference_images,
            "real images that are not in the reference (the floor needs as many)",
        ),
    ):
        if count > available:
            raise CombinationError(
                f"evaluate.{key} {count} is more than {data.name}'s {available} {what}"
            )


def _size(pair: Pair) -> str:
    return f"{pair[0]}x{pair[1]}"
