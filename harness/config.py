"""The configuration of a run and of an evaluation: typed, frozen, validated once at the edge.

`Training` decides what is trained and is hashed into the run's id, `Evaluation` decides how it is
sampled and measured and is hashed into the evaluation's id, and `job` decides only where and in
what portions the work is done, and is hashed nowhere.
What turns a file's values into it is in `harness.settings`.
`python -m harness.config [KEY ...]` prints every key with its meaning.
"""

import argparse
import os
import signal
import sys
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from harness.errors import nearest, short
from harness.facts import NAMES as DATA_SETS
from harness.kinds import (
    Decay,
    Extractors,
    Fraction,
    Pixels,
    Positive,
    Size,
    as_names,
    as_pair,
    as_shift,
    as_tuple,
    choices_of,
    kind_of,
    one_of,
    shown,
)
from models import names


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    name: Annotated[str, one_of(DATA_SETS)] = Field(
        "fashion_mnist", description="data set; its content's digest is checked when it is read"
    )
    folder: Annotated[str, Field(min_length=1), AfterValidator(os.path.abspath)] | None = Field(
        None,
        description="pictures of an image_folder; `python -m harness.folder FOLDER` indexes them "
        "once",
    )
    resolution: Size = Field(
        description="training resolution in pixels: one number, or [height, width]"
    )


class Model(Section):
    encoding: Annotated[str, one_of(names.ENCODINGS)] = Field(
        "rope", description="positional encoding family"
    )
    theta: Annotated[float, Field(gt=1)] | None = Field(
        None,
        description="base of the encoding's frequencies; null: 100 for rope and 10 for the start "
        "of rope-mixed (as in rope-vit), 10000 for sincos (as in DiT)",
    )
    width: Annotated[Positive, Field(le=2**16)] = Field(64, description="token width (channels)")
    depth: Annotated[Positive, Field(le=1000)] = Field(4, description="number of blocks")
    heads: Annotated[Positive, Field(le=2**16)] = Field(
        2, description="attention heads; must divide the width"
    )
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = Field(
        4.0, description="hidden width of the MLP / width"
    )
    patch: Pixels = Field(2, description="side of a patch in pixels (or latents)")
    qk_norm: bool = Field(True, description="RMS-normalise queries and keys per head")


class Positions(Section):
    sampler: Annotated[str, one_of(names.SAMPLERS)] = Field(
        "consecutive",
        description="positions drawn while training; 'randomized' (sorted, without replacement) "
        "is RPE-2D, the others are its controls",
    )
    range_multiplier: Annotated[float, Field(ge=1, le=64)] = Field(
        1.0,
        description="length of the position range / patches along the axis (L / n, of the last "
        "stage); the length is rounded, half to even",
    )
    granularity: Annotated[str, one_of(("sample", "batch", "layer"))] = Field(
        "sample",
        description="what shares a draw: all layers of a sample, a whole batch, or nothing "
        "('layer': a draw for each layer of each sample; rope families)",
    )


class Augmentation(Section):
    kind: Annotated[str, one_of(("none", "resize_crop"))] = Field(
        "none", description="'resize_crop': random resize, then random crop to the training size"
    )
    max_scale: Annotated[float, Field(ge=1, le=64)] = Field(
        2.0,
        description="resized side / training side is uniform in 1 .. max_scale, but at most the "
        "data's own side",
    )


class MicroConditioning(Section):
    kind: Annotated[str, one_of(("none", "crop"))] = Field(
        "none",
        description="'crop': condition on the crop and the size it was cut from: (top, left, "
        "resized height, resized width) in pixels",
    )


class Objective(Section):
    kind: Annotated[str, one_of(("flow", "ddpm"))] = Field(
        "flow",
        description="'flow': rectified flow; 'ddpm': epsilon and learned variance, DiT's recipe",
    )
    timesteps: Annotated[str, one_of(("logit_normal", "uniform"))] = Field(
        "logit_normal",
        description="density of the training timestep t in (0, 1), t = 1 is noise (ddpm: uniform)",
    )
    precondition: bool = Field(
        True,
        description="add a linear guess of the velocity (EDM's skip, for velocities); flow only",
    )
    data_variance: Annotated[float, Field(gt=0, le=1)] = Field(
        0.45,
        description="second moment of the pixels in -1..1 that the guess supposes; any value is "
        "right, the true one is best",
    )
    label_dropout: Fraction = Field(0.1, description="share of labels replaced by the null label")


class Stage(Section):
    resolution: Size = Field(description="training resolution of the stage")
    images: Positive = Field(description="images seen in the stage")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak learning rate of the stage; null: train.learning_rate"
    )
    warmup: Fraction | None = Field(
        None, description="share of the stage's images; null: train.warmup"
    )
    decay_from: Fraction | None = Field(
        None, description="share of the stage's images; null: train.decay_from"
    )
    optimizer: Annotated[str, one_of(("keep", "reset"))] = Field(
        "keep", description="AdamW's moments at the start of the stage"
    )


class Train(Section):
    images: Positive = Field(
        description="training length: images seen (with stages: what they sum to)"
    )
    stages: Annotated[tuple[Stage, ...], Field(max_length=100), BeforeValidator(as_tuple)] = Field(
        (),
        description="stages one after the other, each {resolution, images, learning_rate, warmup, "
        "decay_from, optimizer}; weights, averages and the image counter carry over; "
        "data.resolution is then that of the last",
    )
    snapshots: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        Field(max_length=1000),
        BeforeValidator(as_tuple),
        AfterValidator(lambda shares: tuple(sorted(set(shares)))),
    ] = Field(
        (),
        description="shares of the training after which the averaged weights are kept, for "
        "evaluate.after",
    )
    batch: Annotated[Positive, Field(le=2**20)] = Field(
        64, description="images a step, over all ranks and accumulated parts"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        2e-3, description="peak learning rate of AdamW"
    )
    betas: Annotated[tuple[Decay, Decay], BeforeValidator(as_pair)] = Field(
        (0.9, 0.99), description="AdamW's moment decays"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.01, description="AdamW's decoupled weight decay"
    )
    gradient_clip: Annotated[float, Field(ge=0)] = Field(
        1.0, description="largest gradient norm; 0 is off"
    )
    warmup: Fraction = Field(
        0.1, description="share of the images over which the rate rises linearly"
    )
    decay_from: Fraction = Field(
        0.6, description="share of the images after which the rate falls linearly"
    )
    final_rate: Fraction = Field(0.02, description="learning rate at the end / peak")
    ema: Decay = Field(0.998, description="decay of the weights' moving average a step")
    precision: Annotated[str, one_of(("fp32", "bf16"))] = Field(
        "fp32", description="arithmetic of the forward pass"
    )
    zero_stage: Annotated[int, Field(ge=0, le=3)] = Field(0, description="DeepSpeed's ZeRO stage")
    accumulation: Annotated[Positive, Field(le=2**20)] = Field(
        1, description="parts of a batch that are accumulated before a step"
    )


class Inference(Section):
    law: Annotated[str, one_of(names.LAWS)] = Field(
        "extrapolate", description="how the encoding's frequencies change beyond the trained range"
    )
    law_scale: Annotated[str, one_of(names.LAW_SCALES)] = Field(
        "shared",
        description="the law's factor: the larger one for both axes, or each axis its own (FiT's "
        "Vision forms)",
    )
    placement: Annotated[str, one_of(names.PLACEMENTS)] | None = Field(
        None,
        description="where positions lie in the trained range; null: contiguous for the samplers "
        "consecutive and shift, centred for rescale and jitter, even for the others",
    )
    draws: Annotated[Positive, Field(le=1000)] = Field(
        1, description="placement random: draws over which each prediction is averaged"
    )
    attention_scale: Annotated[str, one_of(names.ATTENTION_SCALES)] = Field(
        "none", description="factor on the attention logits at other sizes"
    )
    timestep_shift: Annotated[float | str, AfterValidator(as_shift)] = Field(
        "none",
        description="a in t' = a t / (1 + (a - 1) t) of the sampling times: 'none' is 1, 'sd3' "
        "sqrt(tokens / tokens in training), or a number",
    )
    micro_condition: Annotated[str, one_of(("neutral", "centre_crop"))] = Field(
        "neutral",
        description="crop that a micro-conditioned model is told: none, or the central window of "
        "an image of the generated size",
    )
    resize: Annotated[str, one_of(("none", "bicubic", "lanczos"))] = Field(
        "none", description="generate at the training size, then resize the image this way"
    )
    guidance: Annotated[float, Field(ge=0, le=1000)] = Field(
        1.0, description="classifier-free guidance; 1 is without"
    )
    guidance_channels: Annotated[str, one_of(("all", "first_three"))] = Field(
        "all", description="channels that guidance acts on; DiT's code guides the first three"
    )
    solver: Annotated[str, one_of(("euler", "heun", "ddpm", "ddim"))] | None = Field(
        None,
        description="ODE solver of a flow: euler or heun; of ddpm: ddpm (ancestral) or ddim; null: "
        "heun or ddpm",
    )
    steps: Annotated[Positive, Field(le=10_000)] = Field(
        6, description="solver steps (Heun evaluates the model twice a step; DiT takes 250 of ddpm)"
    )


class Evaluate(Section):
    resolution: Size = Field(
        (16, 16),
        description="size generated and measured: pixels, or [height, width]; among the columns "
        "also 1.5x, a multiple of the training size, which it is if nothing is said",
    )
    after: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the training after which it is measured: 1, or a train.snapshots"
    )
    samples: Annotated[Positive, Field(ge=10)] = Field(
        500, description="images generated and measured"
    )
    labels: Annotated[str, one_of(("balanced", "random"))] = Field(
        "balanced",
        description="classes of the images: image i has class i mod classes, or a draw of its own",
    )
    extractors: Annotated[Extractors, BeforeValidator(as_names)] = Field(
        ("fashion-cnn",),
        description="feature extractors, a list; a metric's name says which it is of "
        "(`python -m harness.extractors` lists them)",
    )
    patch_size: Pixels | None = Field(
        None,
        description="side in pixels of the random crops behind patch FID; null: half the image's "
        "shorter side, at most what the extractor takes in",
    )
    fid_infinity: bool = Field(
        False, description="also extrapolate each FID to infinitely many samples"
    )
    reference_images: Annotated[Positive, Field(ge=2)] = Field(
        20000, description="training images behind the reference mean and covariance"
    )
    manifold_images: Annotated[Positive, Field(ge=10)] = Field(
        5000, description="training images behind precision and recall"
    )


class Job(Section):
    cpus: Annotated[Positive, Field(le=10_000)] = Field(
        1, description="CPU cores a run takes (threads = cpus / ranks)"
    )
    gpus: Annotated[float, Field(ge=0, le=10_000)] = Field(
        0.0,
        description="GPUs a run reserves; a fraction shares one; at 0 a visible one is used too",
    )
    ranks: Annotated[Positive, Field(le=10_000)] = Field(
        1, description="processes that train one run together"
    )
    nodes: Annotated[Positive, Field(le=10_000)] = Field(
        1, description="machines that these ranks are spread over, as many on each"
    )
    checkpoint_every: Positive = Field(200, description="steps between checkpoints")
    log_every: Positive = Field(10, description="steps between lines of metrics.jsonl")
    sample_batch: Annotated[Positive, Field(le=2**20)] | None = Field(
        None,
        description="images generated at once (rounding only); null: as many as fit, at most 125",
    )
    keep: Annotated[str, one_of(("nothing", "features", "images"))] = Field(
        "nothing",
        description="what of the samples stays on disk: 'features' of every extractor, or these "
        "and the 'images'",
    )
    retries: Annotated[int, Field(ge=0, le=1000)] = Field(
        2, description="times in a row without progress that a run that was lost is started again"
    )
    scheduler: Annotated[str, one_of(("none", "asha"))] = Field(
        "none",
        description="'asha': at each of train.snapshots only runs among the best third by FID so "
        "far go on (launcher ray)",
    )


class Training(Section):
    """What is trained; with the seed, it is what a run's id stands for."""

    data: Data
    model: Model = Model()
    positions: Positions = Positions()
    augmentation: Augmentation = Augmentation()
    micro_conditioning: MicroConditioning = MicroConditioning()
    objective: Objective = Objective()
    train: Train


class Evaluation(Section):
    """How a trained run is sampled and measured; what an evaluation's id stands for."""

    inference: Inference = Inference()
    evaluate: Evaluate = Evaluate()


class Place(Section):
    """Where and in what portions the work is done; hashed nowhere."""

    job: Job = Job()


def _keys(part: type[Section]) -> dict[str, FieldInfo]:
    found = {}
    for section, field in part.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, Section)
        for name, inner in field.annotation.model_fields.items():
            found[f"{section}.{name}"] = inner
    return found


TRAINING_KEYS = _keys(Training)
EVALUATION_KEYS = _keys(Evaluation)
JOB_KEYS = _keys(Place)
KEYS = TRAINING_KEYS | EVALUATION_KEYS | JOB_KEYS
SECTIONS = tuple(dict.fromkeys(key.split(".")[0] for key in KEYS))


# A key whose default is the value of another.
FOLLOWS = {"evaluate.resolution": "data.resolution"}


def main(arguments: list[str] | None = None) -> int:
    """Print keys with their defaults, meanings and the names they may have; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.config",
        description="Every key of the configuration: its default, its meaning, its choices.",
    )
    parser.add_argument("keys", nargs="*", metavar="KEY", help="a key or section (default: all)")
    asked = parser.parse_args(arguments).keys
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    for word in asked:
        if word not in KEYS and word not in SECTIONS:
            known = [*SECTIONS, *KEYS]
            print(f"unknown key '{short(word)}'{nearest(word, known)}", file=sys.stderr)
            return 2
    for key, field in KEYS.items():
        if asked and key not in asked and key.split(".")[0] not in asked:
            continue
        default = (
            "required" if field.is_required() else f"= {FOLLOWS.get(key) or shown(field.default)}"
        )
        choices = ", ".join(choices_of(kind_of(field)))
        told = f" ({choices})" if choices else ""
        print(f"{key:32} {default:16} {field.description}{told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
