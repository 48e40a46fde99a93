import math
from dataclasses import replace

import pytest
import torch

from harness.canonical import canonical_training
from harness.config import (
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
from harness.dataset import facts
from harness.diffusion import ancestral_step
from harness.draws import normal, uniform
from harness.images import to_uint8
from harness.sample import (
    MOST_AT_ONCE,
    batch_that_fits,
    generate,
    generated_size,
    guided,
    labels_of,
    micro_condition,
    placed,
)
from harness.solvers import ddpm_chain
from harness.train import make_model
from models.geometry import inference_geometry
from models.positions.samplers import SAMPLERS

CPU = torch.device("cpu")


def made(**parts: object) -> Training:
    given = {
        "data": Data(resolution=(8, 8)),
        "model": Model(width=16, depth=1, heads=1),
        "train": Train(images=640),
    } | parts
    return canonical_training(Training(**given))  # type: ignore[arg-type]


def network(training: Training) -> torch.nn.Module:
    torch.manual_seed(0)
    model = make_model(training)
    for parameter in model.parameters():  # adaLN-Zero starts as a constant: shake it awake
        torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def inference(**given: object) -> Inference:
    usual = {"solver": "euler", "steps": 2, "placement": "contiguous"}
    return Inference(**(usual | given))  # type: ignore[arg-type]


def asked(size: tuple[int, int], after: float = 1.0, **how: object) -> Evaluation:
    return Evaluation(inference=inference(**how), evaluate=Evaluate(resolution=size, after=after))


def images_of(training: Training, size: tuple[int, int], indices: range, **how: object):
    return generate(network(training), training, asked(size, **how), 0, indices, CPU)


def geometries(training: Training, size: tuple[int, int], indices: range, **how: object):
    return placed(training, asked(size, **how), 0, indices, CPU)


def field_of(training: Training, model, labels: torch.Tensor, **how: object):
    """The guided field for images of 8x8."""
    at = geometries(training, (8, 8), range(len(labels)), **how)
    return guided(model, training, inference(**how), labels, None, at)


def test_labels_are_balanced() -> None:
    assert torch.bincount(labels_of(range(50), 10, "balanced", 0)).tolist() == [5] * 10
    later = labels_of(range(7, 9), 10, "balanced", 0)
    assert torch.equal(later, labels_of(range(9), 10, "balanced", 1)[7:])


def test_random_labels_are_a_function_of_seed_and_index() -> None:
    drawn = labels_of(range(5000), 10, "random", 0)
    assert torch.equal(labels_of(range(70, 90), 10, "random", 0), drawn[70:90])
    assert not torch.equal(labels_of(range(5000), 10, "random", 1), drawn)
    counts = torch.bincount(drawn, minlength=10)
    assert ((counts - 500) ** 2 / 500).sum() < 27.9  # chi-square, 9 degrees, p = 0.001
    assert counts.tolist() != [500] * 10


def test_a_batch_fits_into_memory() -> None:
    assert batch_that_fits(made(), asked((8, 8)), CPU) == MOST_AT_ONCE
    huge = made(model=Model(width=2**16, depth=1, heads=1), data=Data(resolution=(32, 32)))
    small = batch_that_fits(huge, asked((32, 32)), CPU)
    assert 1 <= small < MOST_AT_ONCE
    assert batch_that_fits(huge, asked((2**16, 2**16)), CPU) == 1


RANDOMIZED = Positions(sampler="randomized", range_multiplier=2)
DDPM = Objective(kind="ddpm")
WAYS = {
    "flow": ({}, {}),
    "random placements": ({"positions": RANDOMIZED}, {"placement": "random", "draws": 2}),
    "ddpm": ({"objective": DDPM}, {"solver": "ddpm", "steps": 3}),
    "ddim": ({"objective": DDPM}, {"solver": "ddim", "steps": 3, "guidance": 1.5}),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_image_depends_on_seed_and_index_alone(way: str) -> None:
    parts, how = WAYS[way]
    training, given = made(**parts), asked((12, 8), **how)
    model = network(training)
    all_at_once = generate(model, training, given, 0, range(6), CPU)
    assert all_at_once.shape == (6, 1, 12, 8)
    assert all_at_once.dtype == torch.uint8
    later = generate(model, training, given, 0, range(4, 6), CPU)
    assert (later.int() - all_at_once[4:].int()).abs().max() <= 1  # rounding between batches
    other = generate(model, training, given, 1, range(6), CPU)
    assert not torch.equal(other, all_at_once)


def test_ancestral_noise_is_drawn_by_sample_and_step() -> None:
    """A chain of two steps, done by hand."""
    training = made(objective=DDPM)
    model, indices = network(training), range(3, 5)
    chain = ddpm_chain(2, 1.0, CPU)
    (geometry,) = geometries(training, (8, 8), indices)(torch.ones(2))
    start, later = (
        torch.stack([normal(0, purpose, i, (1, 8, 8)) for i in indices])
        for purpose in ("sample", "ancestral 0")
    )
    with torch.inference_mode():
        output = model(start, torch.full((2,), 0.999), torch.tensor([3, 4]), geometry)
        x = ancestral_step(chain, start, output, torch.ones(2, dtype=torch.long), later)
        output = model(x, torch.zeros(2), torch.tensor([3, 4]), geometry)
        x = ancestral_step(chain, x, output, torch.zeros(2, dtype=torch.long), None)
    made_here = images_of(training, (8, 8), indices, solver="ddpm")
    assert torch.equal(made_here, to_uint8(x.clamp(-1, 1)))


def test_guidance_extrapolates_from_the_null_label() -> None:
    training = made()
    model = network(training)
    x, t, labels = torch.randn(3, 1, 8, 8), torch.full((3,), 0.5), torch.tensor([0, 1, 2])
    with torch.no_grad():
        plain, strong, null = (
            field_of(training, model, y, guidance=g)(x, t)
            for y, g in ((labels, 1.0), (labels, 3.0), (torch.full((3,), 10), 1.0))
        )
    assert torch.allclose(strong, null + 3 * (plain - null), atol=1e-5)


def by_label(channels: int):
    """A model whose output is its label, in so many channels."""

    def model(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, *_: object) -> torch.Tensor:
        return labels.view(-1, 1, 1, 1).expand(-1, channels, 8, 8).float()

    return model


def test_guidance_can_leave_the_fourth_channel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As DiT's code does, whose latents have four."""
    four = replace(facts(Data(resolution=(8, 8))), channels=4)
    monkeypatch.setattr("harness.sample.facts", lambda data: four)
    training = made(objective=Objective(precondition=False))
    x, t, labels = torch.randn(2, 4, 8, 8), torch.full((2,), 0.5), torch.tensor([1, 2])
    plain, everywhere, first_three = (
        field_of(training, by_label(4), labels, guidance=g, guidance_channels=channels)(x, t)
        for g, channels in ((1.0, "all"), (3.0, "all"), (3.0, "first_three"))
    )
    assert torch.equal(everywhere, 10 + 3 * (plain - 10))
    assert torch.equal(first_three[:, :3], everywhere[:, :3])
    assert torch.equal(first_three[:, 3], plain[:, 3])


def test_guidance_leaves_ddpms_variance_to_the_label() -> None:
    training = made(objective=DDPM)
    x, t, labels = torch.randn(2, 1, 8, 8), torch.full((2,), 0.5), torch.tensor([1, 2])
    out = field_of(training, by_label(2), labels, guidance=3.0, solver="ddpm")(x, t)
    assert out[:, 0, 0, 0].tolist() == [10 + 3 * (1 - 10), 10 + 3 * (2 - 10)]
    assert out[:, 1, 0, 0].tolist() == [1, 2]


def test_random_placements_are_averaged() -> None:
    training = made(positions=RANDOMIZED)
    model, labels = network(training), torch.tensor([0, 1, 2])
    x, t = torch.randn(3, 1, 8, 8), torch.full((3,), 0.5)
    how = {"placement": "random", "draws": 3, "guidance": 2.0}
    drawn = geometries(training, (8, 8), range(3), **how)(t)
    assert len(drawn) == 3
    with torch.no_grad():
        each = [
            guided(model, training, inference(**how), labels, None, lambda t, g=g: [g])(x, t)
            for g in drawn
        ]
        mean = field_of(training, model, labels, **how)(x, t)
    torch.testing.assert_close(mean, torch.stack(each).mean(0))
    assert not torch.allclose(each[0], each[1])


def test_random_placements_are_the_samplers_by_sample() -> None:
    training = made(positions=RANDOMIZED)
    drawn = geometries(training, (8, 4), range(5, 8), placement="random", draws=2)(torch.ones(3))
    for k, geometry in enumerate(drawn):
        for axis, purpose, n in ((geometry.rows, "rows", 4), (geometry.cols, "columns", 2)):
            for b, i in enumerate(range(5, 8)):
                order = uniform(0, f"placement {purpose} {k}", i, (8,))
                expected = SAMPLERS["randomized"](n, 8, order[None], torch.zeros(1))
                assert torch.equal(axis[b], expected[0])


@pytest.mark.parametrize("law", ["lumina", "dype-yarn"])
def test_only_time_aware_laws_see_the_time(law: str) -> None:
    def frequencies(name: str) -> list[torch.Tensor]:
        at = geometries(made(), (16, 16), range(2), law=name)
        return [at(torch.full((2,), t))[0].frequencies_h for t in (0.9, 0.4)]

    early, late = frequencies(law)
    assert not torch.equal(early, late)
    early, late = frequencies("yarn")
    assert early is late  # computed once


def test_the_time_of_ddpm_is_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    times = []

    def watched(**given: object):
        times.append(given["time"])
        return inference_geometry(**given)  # type: ignore[arg-type]

    monkeypatch.setattr("harness.sample.inference_geometry", watched)
    training = made(objective=DDPM)
    images_of(training, (16, 16), range(2), solver="ddim", steps=3, law="lumina")
    assert times == pytest.approx([0.999, 0.5, 0.0])
    times.clear()
    images_of(made(), (16, 16), range(2), solver="heun", law="dype-pi")
    assert times == [1.0, 0.5, 0.0]
    times.clear()
    images_of(made(), (16, 16), range(2), solver="heun", law="ntk")
    assert len(times) == 1


def test_a_shift_changes_the_times_and_so_the_images() -> None:
    training = made()
    plain, shifted = (
        images_of(training, (16, 16), range(2), steps=3, timestep_shift=a) for a in ("none", 1.7)
    )
    assert not torch.equal(plain, shifted)


def test_upsampling_generates_the_training_size() -> None:
    training = made()
    small = images_of(training, (8, 8), range(3))
    large = images_of(training, (16, 16), range(3), resize="bicubic")
    assert large.shape == (3, 1, 16, 16)
    pooled = torch.nn.functional.avg_pool2d(large.float(), 2)
    assert (pooled - small.float()).abs().mean() < 12


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_resizing_serves_ddpm_and_both_directions(solver: str) -> None:
    training = made(objective=DDPM)
    for size in ((16, 12), (4, 6)):
        images = images_of(training, size, range(2), solver=solver, resize="lanczos")
        assert images.shape == (2, 1, *size)


def test_micro_conditions_are_neutral_or_the_central_window() -> None:
    training = made(micro_conditioning=MicroConditioning(kind="crop"))
    centre = {"micro_condition": "centre_crop"}
    assert micro_condition(training, asked((16, 12))) == [0, 0, 8, 8]
    assert micro_condition(training, asked((16, 12), **centre)) == [4, 2, 16, 12]
    assert micro_condition(training, asked((16, 4), **centre)) == [4, 0, 16, 8]
    assert micro_condition(training, asked((8, 8), **centre)) == [0, 0, 8, 8]
    neutral, told = (
        images_of(training, (16, 12), range(2), micro_condition=kind)
        for kind in ("neutral", "centre_crop")
    )
    assert neutral.shape == (2, 1, 16, 12)
    assert not torch.equal(neutral, told)


STAGED = Train(
    images=640,
    stages=(Stage(resolution=8, images=320), Stage(resolution=(12, 16), images=320)),
    snapshots=(0.5,),
)


def test_a_size_of_an_earlier_stage_is_told_as_that_stage_told_it() -> None:
    training = made(train=STAGED, micro_conditioning=MicroConditioning(kind="crop"))
    assert micro_condition(training, asked((8, 8))) == [0, 0, 8, 8]
    assert micro_condition(training, asked((10, 8))) == [0, 0, 12, 16]
    assert micro_condition(training, asked((12, 16))) == [0, 0, 12, 16]
    assert micro_condition(training, asked((12, 16), after=0.5)) == [0, 0, 8, 8]


def test_the_training_size_is_that_of_the_stage_so_far() -> None:
    training = made(train=STAGED)
    for after, size in ((0.5, (8, 8)), (1.0, (12, 16))):
        assert generated_size(training, asked((24, 24), after, resize="bicubic")) == size
        assert generated_size(training, asked((24, 24), after)) == (24, 24)
        at = geometries(training, (24, 24), range(2), after=after, attention_scale="log")
        tokens = size[0] * size[1]
        expected = math.log(24 * 24 / 4) / math.log(tokens / 4)
        assert at(torch.ones(2))[0].logit_scale == pytest.approx(expected)


def test_randomized_training_reaches_its_whole_range() -> None:
    training = made(positions=Positions(sampler="randomized", range_multiplier=2))
    (geometry,) = geometries(training, (8, 16), range(2), placement="even")(torch.ones(2))
    assert torch.allclose(geometry.rows[0], torch.tensor([0, 7 / 3, 14 / 3, 7]))
    assert geometry.cols[0].tolist() == list(range(8))
