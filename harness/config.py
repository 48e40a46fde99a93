"""The configuration of a run and of an evaluation: typed, frozen, validated once at the edge.

`Training` decides what is trained and is hashed into the run's id, `Evaluation` decides how it is
sampled and measured and is hashed into the evaluation's id, and `job` decides only where and in
what portions the work is done, and is hashed nowhere.
What turns a file's values into it is in `harness.settings`.
`python -m harness.config` prints every key with its meaning.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from harness.errors import nearest
from harness.extractors import FACTS as EXTRACTORS
from models import names


def one_of(choices: tuple[str, ...]) -> AfterValidator:
    """A string out of `choices`; anything else is refused with the nearest of them."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"allowed are {', '.join(choices)}{nearest(value, choices)}")
        return value

    return AfterValidator(check)


def as_size(value: object) -> object:
    """`24` -> (24, 24) and `[16, 24]` -> (16, 24): height, width in pixels."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value)
    raise ValueError("must be a number of pixels, or [height, width]")


def as_pair(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value)
    raise ValueError("must be two numbers, such as [0.9, 0.99]")


def as_names(value: object) -> object:
    """`dinov2` -> ('dinov2',), and a list as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Positive = Annotated[int, Field(ge=1, le=10**12)]  # a larger count is a slip; most are tighter
Pixels = Annotated[Positive, Field(le=2**16)]
Size = Annotated[tuple[Pixels, Pixels], BeforeValidator(as_size)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Extractors = Annotated[
    tuple[Annotated[str, one_of(tuple(EXTRACTORS))], ...],
    Field(min_length=1),
    AfterValidator(lambda names: tuple(sorted(set(names)))),
]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    name: Annotated[str, one_of(("fashion_mnist",))] = Field(
        "fashion_mnist", description="data set; its content's digest is checked when it is read"
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
        description="base of the encoding's frequencies; null: 100 for rope (as in rope-vit), "
        "10000 for sincos (as in DiT)",
    )
    width: Annotated[Positive, Field(le=2**16)] = Field(64, description="token width (channels)")
    depth: Annotated[Positive, Field(le=1000)] = Field(4, description="number of blocks")
    heads: Annotated[Positive, Field(le=2**16)] = Field(
        2, description="attention heads; must divide the width"
    )
    mlp_ratio: Annotated[float, Field(gt=0)] = Field(
        4.0, description="hidden width of the MLP / width"
    )
    patch: Pixels = Field(2, description="side of a patch in pixels (or latents)")
    qk_norm: bool = Field(True, description="RMS-normalise queries and keys per head")


class Positions(Section):
    sampler: Annotated[str, one_of(names.SAMPLERS)] = Field(
        "consecutive", description="positions drawn while training; 'randomized' is RPE-2D"
    )
    range_multiplier: Annotated[float, Field(ge=1, le=64)] = Field(
        1.0,
        description="length of the position range / patches along the axis (L / n); "
        "the length is rounded, half to even",
    )


class Augmentation(Section):
    kind: Annotated[str, one_of(("none", "resize_crop"))] = Field(
        "none", description="'resize_crop': random resize, then random crop to the training size"
    )
    max_scale: Annotated[float, Field(ge=1)] = Field(
        2.0, description="resized side / training side is uniform in 1 .. max_scale"
    )


class MicroConditioning(Section):
    kind: Annotated[str, one_of(("none", "crop"))] = Field(
        "none",
        description="'crop': condition on (top, left, resized height, resized width), as "
        "multiples of the training size; neutral (0, 0, 1, 1) at inference",
    )


class Objective(Section):
    timesteps: Annotated[str, one_of(("logit_normal", "uniform"))] = Field(
        "logit_normal", description="density of the training timestep t in (0, 1); t = 1 is noise"
    )
    precondition: bool = Field(
        True, description="add the best linear guess of the velocity (EDM's skip, for velocities)"
    )
    label_dropout: Fraction = Field(0.1, description="share of labels replaced by the null label")


class Train(Section):
    images: Positive = Field(description="training length: images seen")
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
    placement: Annotated[str, one_of(names.PLACEMENTS)] | None = Field(
        None,
        description="where positions lie in the trained range; null: contiguous for a "
        "consecutive sampler, even for a randomized one",
    )
    attention_scale: Annotated[str, one_of(names.ATTENTION_SCALES)] = Field(
        "none", description="factor on the attention logits at other sizes"
    )
    resize: Annotated[str, one_of(("none", "bicubic"))] = Field(
        "none", description="'bicubic': generate at the training size, then resize the image"
    )
    guidance: Annotated[float, Field(ge=0)] = Field(
        1.0, description="classifier-free guidance; 1 is without"
    )
    guidance_channels: Annotated[str, one_of(("all", "first_three"))] = Field(
        "all", description="channels that guidance acts on; DiT's code guides the first three"
    )
    solver: Annotated[str, one_of(("euler", "heun"))] = Field("heun", description="ODE solver")
    steps: Annotated[Positive, Field(le=10_000)] = Field(
        6, description="solver steps (Heun evaluates the model twice a step)"
    )


class Evaluate(Section):
    resolution: Size = Field(
        (16, 16), description="size generated and measured: pixels, or [height, width]"
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
        2, description="times a run that was lost is started again"
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


def main() -> None:
    """Print every key with its default and meaning."""
    for key, field in KEYS.items():
        default = "required" if field.is_required() else f"= {field.default!r}"
        print(f"{key:32} {default:16} {field.description}")


if __name__ == "__main__":
    main()
