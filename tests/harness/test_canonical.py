"""Which computations are written alike, and so are one; which combinations are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.canonical import canonical_evaluation, canonical_training
from harness.combinations import CombinationError
from harness.config import (
    Augmentation,
    Data,
    Evaluate,
    Evaluation,
    Inference,
    MicroConditioning,
    Model,
    Objective,
    Positions,
    Stage,
    Train,
    Training,
)
from harness.errors import UserError
from harness.identity import eval_id_of, group_id_of, position_lengths
from models import names


def training(**parts: object) -> Training:
    given = {"data": Data(resolution=(12, 12)), "train": Train(images=640)} | parts
    return Training(**given)  # type: ignore[arg-type]


def evaluation(resolution: tuple[int, int] = (24, 24), **inference: object) -> Evaluation:
    return Evaluation(
        inference=Inference(**inference),  # type: ignore[arg-type]
        evaluate=Evaluate(resolution=resolution),
    )


def staged(*sides: int, images: int = 320, **fields: object) -> tuple[Stage, ...]:
    return tuple(
        Stage(resolution=(side, side), images=images, **fields)  # type: ignore[arg-type]
        for side in sides
    )


def canonical(trained: Training, asked: Evaluation) -> Inference:
    trained = canonical_training(trained)
    found = canonical_evaluation(trained, asked)
    return found.inference


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


@given(st.sampled_from(names.LAWS_FOR["rope"]), st.sampled_from(names.PLACEMENTS))
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
        (Model(patch=12), (12, 12), evaluation(attention_scale="fitv2-code"), "at least 2 tok"),
        (Model(), (12, 12), evaluation(solver="ddim"), "ddim does not go with objective.kind flow"),
        (
            Model(encoding="learned"),
            (12, 12),
            evaluation(),
            "a learned table of 6x6 positions ends",
        ),
        (Model(encoding="learned"), (12, 12), evaluation(law="pi"), "does not exist for model.enc"),
        (Model(encoding="rope-mixed"), (12, 12), evaluation(law="ntk"), "does not exist for"),
        (Model(), (12, 12), evaluation((132, 132)), "more than 4 times fashion_mnist's images"),
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
        ({"data": Data(name="image_folder", resolution=(8, 8))}, "needs data.folder"),
        ({"data": Data(folder="x", resolution=(8, 8))}, "data.folder has no effect"),
        (
            {
                "model": Model(encoding="sincos"),
                "positions": Positions(sampler="randomized", granularity="layer"),
            },
            "granularity layer does not exist for model.encoding sincos",
        ),
        (
            {
                "data": Data(resolution=(32, 32)),
                "augmentation": Augmentation(kind="resize_crop"),
            },
            "resize_crop has nothing to crop at 32x32",
        ),
        ({"train": Train(images=640, stages=staged(16, 8))}, "stages.0..resolution 16x16 has 8x8"),
        ({"train": Train(images=640, stages=staged(8, 7))}, "stages.1..resolution 7x7 is not div"),
        (
            {"train": Train(images=640, stages=(Stage(resolution=(8, 8), images=5),))},
            "train.images 5 is less than one train.batch 64",
        ),
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


def test_an_extractor_of_other_data_is_refused() -> None:
    trained = canonical_training(training(data=Data(name="glyphs", resolution=(12, 12))))
    with pytest.raises(CombinationError, match=r"fashion-cnn knows fashion_mnist only.*glyph-cnn"):
        canonical_evaluation(trained, protocol())
    canonical_evaluation(trained, protocol(extractors=("dinov2", "glyph-cnn")))


def test_more_samples_than_held_out_images_are_fine() -> None:
    assert eval_id(protocol(samples=50_000)) != eval_id(protocol())


def test_stages_say_the_resolution_and_the_images() -> None:
    train = Train(images=640, stages=staged(8, 16, images=1280), warmup=0.2)
    found = canonical_training(training(train=train))
    assert found.data.resolution == (16, 16)
    assert found.train.images == 2560
    assert {stage.warmup for stage in found.train.stages} == {0.2}
    assert found.train.stages[0].optimizer == "keep"
    assert canonical_training(found) == found
    written = Train(images=5, stages=staged(8, 16, images=1280, warmup=0.2, learning_rate=2e-3))
    written = written.model_copy(update={"warmup": 0.2})
    assert canonical_training(training(train=written)) == found


def test_one_stage_is_plain_training() -> None:
    train = Train(images=64, stages=staged(16, images=640, learning_rate=1e-3))
    plain = training(train=Train(images=640, learning_rate=1e-3), data=Data(resolution=(16, 16)))
    assert canonical_training(training(train=train)) == canonical_training(plain)


def test_a_range_of_one_is_wider_than_an_earlier_smaller_stage() -> None:
    train = Train(images=640, stages=staged(8, 16))
    drawn = training(train=train, positions=Positions(sampler="randomized"))
    found = canonical_training(drawn)
    assert found.positions.sampler == "randomized"
    assert position_lengths(found) == (8, 8)
    assert canonical_training(training(train=train)) != found


def test_before_the_last_stage_the_training_size_is_the_stages() -> None:
    train = Train(images=64, stages=staged(8, 16), snapshots=(0.5,))
    trained = canonical_training(training(train=train))

    def at(after: float, size: tuple[int, int], **inference: object) -> Inference:
        asked = Evaluation(
            inference=Inference(**inference),  # type: ignore[arg-type]
            evaluate=Evaluate(resolution=size, after=after),
        )
        return canonical_evaluation(trained, asked).inference

    for after, same, other in ((0.5, (8, 8), (16, 16)), (1.0, (16, 16), (8, 8))):
        assert at(after, same, resize="bicubic").resize == "none"
        assert at(after, other, resize="bicubic").resize == "bicubic"
        assert at(after, same, timestep_shift="sd3").timestep_shift == "none"
        assert at(after, other, timestep_shift="sd3").timestep_shift == other[0] / same[0]
        assert at(after, same, attention_scale="log").attention_scale == "none"
        assert at(after, other, attention_scale="log").attention_scale == "log"


@pytest.mark.parametrize("sampler", names.SAMPLERS[1:])
def test_controls_that_still_draw_at_a_range_of_one_stay(sampler: str) -> None:
    found = canonical_training(training(positions=Positions(sampler=sampler)))
    plain = found == canonical_training(training())
    assert plain == (sampler in names.PLAIN_AT_ONE)


def test_where_positions_lie_by_default() -> None:
    for sampler in names.SAMPLERS:
        wide = 1.0 if sampler == "consecutive" else 4.0
        drawn = training(positions=Positions(sampler=sampler, range_multiplier=wide))
        found = canonical(drawn, evaluation((18, 18))).placement
        middle = {"consecutive": "contiguous", "shift": "contiguous"}
        middle |= {"rescale": "centred", "jitter": "centred"}
        assert found == middle.get(sampler, "even")


def test_a_random_placement_draws_as_training_did() -> None:
    asked = {"placement": "random", "draws": 3}
    assert canonical(training(), evaluation((18, 18), **asked)).placement == "contiguous"
    wide = training(positions=Positions(sampler="randomized", range_multiplier=2))
    found = canonical(wide, evaluation((18, 18), **asked))
    assert (found.placement, found.draws) == ("random", 3)
    assert canonical(wide, evaluation((24, 24), **asked)).draws == 1  # all are 0..L-1
    with pytest.raises(CombinationError, match="cannot draw 13x13 patches out of 12x12"):
        canonical(wide, evaluation((26, 26), **asked))


def test_one_factor_for_both_axes_where_they_agree() -> None:
    asked = {"law": "pi", "law_scale": "per_axis"}
    assert canonical(training(), evaluation((24, 24), **asked)).law_scale == "shared"
    assert canonical(training(), evaluation((12, 24), **asked)).law_scale == "per_axis"
    coded = training(model=Model(encoding="sincos"))
    for kind in names.LAW_SCALES:  # a table is resized to the grid
        resized = canonical(coded, evaluation((12, 24), law="ei", law_scale=kind))
        assert resized.law_scale == "per_axis"


def test_shifts_and_micro_conditions_without_effect() -> None:
    assert (
        canonical(training(), evaluation((12, 12), timestep_shift="sd3")).timestep_shift == "none"
    )
    assert canonical(training(), evaluation(timestep_shift=1.0)).timestep_shift == "none"
    assert canonical(training(), evaluation(timestep_shift="sd3")).timestep_shift == 2
    odd = canonical(training(), evaluation((18, 24), timestep_shift="sd3")).timestep_shift
    assert odd == pytest.approx((9 * 12 / 36) ** 0.5)
    told = training(micro_conditioning=MicroConditioning(kind="crop"))
    asked = {"micro_condition": "centre_crop"}
    assert canonical(training(), evaluation(**asked)).micro_condition == "neutral"
    assert canonical(told, evaluation(**asked)).micro_condition == "centre_crop"
    assert canonical(told, evaluation((8, 12), **asked)).micro_condition == "neutral"


def test_attention_scales_that_coincide_are_one() -> None:
    wide = training(data=Data(resolution=(8, 8)))
    for scale in ("log", "sqrt-log", "log-clamped"):  # as many tokens on another grid
        found = canonical(wide, evaluation((4, 16), attention_scale=scale, law="pi"))
        assert found.attention_scale == "none"
    fewer = canonical(training(), evaluation((8, 8), attention_scale="log-clamped"))
    more = canonical(training(), evaluation((16, 16), attention_scale="log-clamped"))
    assert (fewer.attention_scale, more.attention_scale) == ("none", "log")


def test_solvers_follow_the_objective() -> None:
    ddpm = training(objective=Objective(kind="ddpm"))
    assert canonical(training(), evaluation()).solver == "heun"
    assert canonical(ddpm, evaluation()).solver == "ddpm"
    assert not canonical_training(ddpm).objective.precondition
    with pytest.raises(CombinationError, match=r"heun does not go with objective\.kind ddpm"):
        canonical(ddpm, evaluation(solver="heun"))
    with pytest.raises(CombinationError, match="1001 is more than the 1000 training steps"):
        canonical(ddpm, evaluation(steps=1001))


def test_fitv2s_code_is_not_one_at_the_training_size() -> None:
    found = canonical(training(), evaluation((12, 12), attention_scale="fitv2-code"))
    assert found.attention_scale == "fitv2-code"


def test_only_what_was_kept_can_be_measured() -> None:
    kept = training(train=Train(images=640, snapshots=(0.5, 0.25, 0.5)))
    assert kept.train.snapshots == (0.25, 0.5)
    half = Evaluation(evaluate=Evaluate(resolution=(12, 12), after=0.5))
    assert canonical_evaluation(canonical_training(kept), half).evaluate.after == 0.5
    with pytest.raises(CombinationError, match=r"after 0\.5 is not kept: train\.snap"):
        canonical_evaluation(canonical_training(training()), half)


def test_a_size_above_the_datas_own_can_be_measured() -> None:
    assert canonical(training(), evaluation((64, 64), law="pi")).law == "pi"
