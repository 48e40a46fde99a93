"""Which computations are the same one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import (
    Data,
    Evaluate,
    Evaluation,
    Inference,
    Model,
    Objective,
    Positions,
    Train,
    Training,
)
from harness.errors import UserError
from harness.identity import (
    CombinationError,
    canonical_evaluation,
    canonical_training,
    digest,
    eval_id_of,
    group_id_of,
    position_lengths,
    run_id_of,
)
from models import names


def training(**parts: object) -> Training:
    given = {"data": Data(resolution=(12, 12)), "train": Train(images=640)} | parts
    return Training(**given)  # type: ignore[arg-type]


def evaluation(resolution: tuple[int, int] = (24, 24), **inference: object) -> Evaluation:
    return Evaluation(
        inference=Inference(**inference),  # type: ignore[arg-type]
        evaluate=Evaluate(resolution=resolution),
    )


def canonical(trained: Training, asked: Evaluation) -> Inference:
    trained = canonical_training(trained)
    found = canonical_evaluation(trained, asked)
    return found.inference


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2.5}) == digest({"b": 2.5, "a": 1})
    assert len(digest(3)) == 16


def test_a_range_of_one_is_plain_training() -> None:
    plain = canonical_training(training())
    rpe = training(positions=Positions(sampler="randomized", range_multiplier=1))
    assert canonical_training(rpe) == plain
    nearly = training(positions=Positions(sampler="randomized", range_multiplier=1.05))
    assert canonical_training(nearly) == plain  # 6 x 1.05 rounds to 6 positions
    wide = training(positions=Positions(sampler="randomized", range_multiplier=2))
    assert canonical_training(wide) != plain
    assert position_lengths(wide) == (12, 12)


def test_ranges_of_one_length_are_one_training() -> None:
    def of(multiplier: float, size: tuple[int, int] = (12, 12)) -> Training:
        positions = Positions(sampler="randomized", range_multiplier=multiplier)
        return canonical_training(training(data=Data(resolution=size), positions=positions))

    assert group_id_of(of(2.01)) == group_id_of(of(2))
    assert of(2.01).positions.range_multiplier == 2
    assert of(1.4).positions.range_multiplier == 8 / 6
    assert canonical_training(of(1.4)) == of(1.4)
    assert position_lengths(of(1.4)) == (8, 8)
    assert position_lengths(of(1.5, (14, 14))) == (10, 10)  # 10.5 to the even
    assert of(1.4, (12, 16)).positions.range_multiplier == 1.4  # 8 of 6 and 11 of 8


def test_ids_of_plain_multipliers_stay() -> None:
    known = {
        1: "d83443b42923e000",
        1.5: "4436f96bb3bb5793",
        2: "25d10da7c13c1c34",
        4: "d8a2be6140b104c3",
    }
    for multiplier, group_id in known.items():
        positions = Positions(sampler="randomized", range_multiplier=multiplier)
        assert group_id_of(canonical_training(training(positions=positions))) == group_id


def test_settings_without_effect_change_no_identity() -> None:
    one = training(model=Model(encoding="none", theta=5.0))
    two = training(
        model=Model(encoding="none"),
        positions=Positions(sampler="randomized", range_multiplier=2),
    )
    assert group_id_of(canonical_training(one)) == group_id_of(canonical_training(two))


def test_the_default_theta_is_written_out() -> None:
    assert canonical_training(training()).model.theta == 100
    assert canonical_training(training(model=Model(encoding="sincos"))).model.theta == 10_000
    given = training(model=Model(theta=100.0))
    assert group_id_of(canonical_training(given)) == group_id_of(canonical_training(training()))


@given(st.sampled_from(names.LAWS), st.sampled_from(names.PLACEMENTS))
def test_every_law_is_one_at_the_training_size(law: str, placement: str) -> None:
    found = canonical(training(), evaluation((12, 12), law=law, placement=placement))
    assert (found.law, found.placement, found.attention_scale) == (
        "extrapolate", "contiguous", "none",
    )  # fmt: skip


def test_laws_differ_beyond_the_range_only() -> None:
    rpe = training(positions=Positions(sampler="randomized", range_multiplier=2))
    assert canonical(training(), evaluation(law="pi")).law == "pi"
    assert canonical(rpe, evaluation(law="pi")).law == "extrapolate"
    assert canonical(rpe, evaluation((30, 30), law="pi", placement="contiguous")).law == "pi"
    assert canonical(rpe, evaluation((18, 18))).placement == "even"
    assert canonical(rpe, evaluation((24, 24))).placement == "contiguous"  # the whole range
    assert canonical(rpe, evaluation((12, 24))).placement == "even"


def test_attention_scales() -> None:
    asked = evaluation(law="yarn", attention_scale="yarn")
    assert canonical(training(), asked).attention_scale == "yarn"
    rpe = training(positions=Positions(sampler="randomized", range_multiplier=2))
    assert canonical(rpe, asked).attention_scale == "none"
    tokens = evaluation(attention_scale="sqrt-log")
    assert canonical(rpe, tokens).attention_scale == "sqrt-log"


def test_a_resize_to_the_training_size_is_none() -> None:
    assert canonical(training(), evaluation((12, 12), resize="bicubic")).resize == "none"
    found = canonical(training(), evaluation((24, 24), resize="bicubic", law="pi"))
    assert (found.resize, found.law) == ("bicubic", "extrapolate")


def test_a_resize_may_go_to_a_size_that_the_patch_does_not_divide() -> None:
    canonical(training(), evaluation((13, 13), resize="bicubic"))
    with pytest.raises(UserError, match="not divisible"):
        canonical(training(), evaluation((13, 13)))


def test_ids_tell_seeds_and_protocols_apart() -> None:
    group = group_id_of(canonical_training(training()))
    assert len({run_id_of(group, seed) for seed in range(1000)}) == 1000
    data = Data(resolution=(12, 12))
    one = evaluation()
    more = Evaluation(inference=one.inference, evaluate=Evaluate(resolution=(24, 24), samples=600))
    assert eval_id_of(data, one) != eval_id_of(data, more)


def test_guidance_needs_a_null_label() -> None:
    unconditional = training(objective=Objective(label_dropout=0))
    assert canonical(unconditional, evaluation()).guidance == 1
    with pytest.raises(CombinationError, match=r"guidance 1\.5 needs the null label"):
        canonical(unconditional, evaluation(guidance=1.5))


@pytest.mark.parametrize(
    ("model", "size", "asked", "told"),
    [
        (Model(width=8), (12, 12), evaluation(law="ntk"), "ntk needs more than 2 channels"),
        (Model(patch=12), (12, 12), evaluation(attention_scale="log"), "at least 2 tokens"),
        (Model(patch=12), (12, 12), evaluation(attention_scale="sqrt-log"), "at least 2 tokens"),
        (Model(patch=12), (12, 12), evaluation(attention_scale="log-clamped"), "at least 2 tok"),
        (Model(), (12, 12), evaluation((8, 8), resize="bicubic"), "upsampling only"),
        (Model(), (12, 12), evaluation((24, 8), resize="bicubic"), "upsampling only"),
    ],
)
def test_what_cannot_be_sampled(
    model: Model, size: tuple[int, int], asked: Evaluation, told: str
) -> None:
    with pytest.raises(CombinationError, match=told):
        canonical(training(model=model, data=Data(resolution=size)), asked)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"model": Model(width=10, heads=4)}, "not divisible by model.heads"),
        ({"model": Model(width=12, heads=2)}, "must be a multiple of 4 for rope"),
        ({"model": Model(width=18, heads=2, encoding="sincos")}, "multiple of 4 for sincos"),
        ({"data": Data(resolution=(40, 40))}, "larger than fashion_mnist's images"),
        ({"train": Train(images=10)}, "less than one train.batch"),
        ({"train": Train(images=640, precision="bf16")}, "needs train.zero_stage 1 or more"),
        ({"train": Train(images=640, warmup=0.9)}, "ends after train.decay_from"),
    ],
)
def test_what_cannot_be_trained(parts: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        canonical_training(training(**parts))


def protocol(**evaluate: object) -> Evaluation:
    given = {"resolution": (12, 12)} | evaluate
    return Evaluation(evaluate=Evaluate(**given))  # type: ignore[arg-type]


def eval_id(asked: Evaluation) -> str:
    trained = canonical_training(training())
    return eval_id_of(trained.data, canonical_evaluation(trained, asked))


def test_which_channels_are_guided_matters_only_beyond_three() -> None:
    """Fashion-MNIST has one channel, and without guidance nothing is guided."""
    for guidance in (1.0, 2.0):
        asked = evaluation(guidance=guidance, guidance_channels="first_three")
        assert canonical(training(), asked).guidance_channels == "all"


def test_the_usual_crop_written_out_is_the_same_evaluation() -> None:
    assert eval_id(protocol(patch_size=6)) == eval_id(protocol())
    assert eval_id(protocol(patch_size=8)) != eval_id(protocol())
    assert eval_id(protocol(labels="random")) != eval_id(protocol())
    assert eval_id(protocol(fid_infinity=True)) != eval_id(protocol())


@pytest.mark.parametrize(
    ("evaluate", "told"),
    [
        ({"patch_size": 13}, "evaluate.patch_size 13 does not fit into evaluate.resolution 12x12"),
        (
            {"samples": 50_001},
            "fashion_mnist's 50000 real images that are not in the",
        ),
        ({"reference_images": 60_001}, "reference_images 60001 is more than fashion_mnist's 60000"),
        ({"reference_images": 100, "manifold_images": 200}, "which they are the first of"),
    ],
)
def test_what_cannot_be_measured_is_refused(evaluate: dict[str, object], told: str) -> None:
    with pytest.raises(CombinationError, match=told):
        eval_id(protocol(**evaluate))


def test_more_samples_than_held_out_images_are_fine() -> None:
    assert eval_id(protocol(samples=50_000)) != eval_id(protocol())
