import torch

from harness.config import (
    Data,
    Inference,
    MicroConditioning,
    Model,
    Objective,
    Positions,
    Train,
    Training,
)
from harness.identity import canonical_training
from harness.sample import (
    MOST_AT_ONCE,
    batch_that_fits,
    generate,
    geometry_for,
    guided,
    integrate,
    labels_of,
)
from harness.train import make_model

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
    return Inference(solver="euler", steps=2, placement="contiguous", **given)  # type: ignore[arg-type]


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
    assert batch_that_fits(made(), inference(), (8, 8), CPU) == MOST_AT_ONCE
    huge = made(model=Model(width=2**16, depth=1, heads=1), data=Data(resolution=(32, 32)))
    small = batch_that_fits(huge, inference(), (32, 32), CPU)
    assert 1 <= small < MOST_AT_ONCE
    assert batch_that_fits(huge, inference(), (2**16, 2**16), CPU) == 1


def test_an_image_depends_on_seed_and_index_alone() -> None:
    training = made()
    model = network(training)
    all_at_once = generate(model, training, inference(), (12, 8), "balanced", 0, range(6), CPU)
    assert all_at_once.shape == (6, 1, 12, 8)
    assert all_at_once.dtype == torch.uint8
    later = generate(model, training, inference(), (12, 8), "balanced", 0, range(4, 6), CPU)
    assert (later.int() - all_at_once[4:].int()).abs().max() <= 1  # rounding between batches
    other = generate(model, training, inference(), (12, 8), "balanced", 1, range(6), CPU)
    assert not torch.equal(other, all_at_once)


def test_the_solvers_follow_a_known_field() -> None:
    """dx/dt = x from t = 1 to 0 multiplies by exp(-1)."""
    x = torch.ones(1, 1, 1, 1)
    exact = torch.tensor(-1.0).exp()
    errors = {
        solver: [abs(integrate(lambda x, t: x, x, solver, n) - exact).item() for n in (20, 40)]
        for solver in ("euler", "heun")
    }
    assert 1.8 < errors["euler"][0] / errors["euler"][1] < 2.2  # first order
    assert 3.6 < errors["heun"][0] / errors["heun"][1] < 4.4  # second order


def test_times_run_from_noise_to_data() -> None:
    seen = []

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t[0].item())
        return torch.zeros_like(x)

    integrate(field, torch.ones(2, 1, 1, 1), "heun", 2)
    assert seen == [1.0, 0.5, 0.5, 0.0]


def test_guidance_extrapolates_from_the_null_label() -> None:
    training = made()
    model = network(training)
    x, t, labels = torch.randn(3, 1, 8, 8), torch.full((3,), 0.5), torch.tensor([0, 1, 2])
    geometry = geometry_for(training, inference(), (8, 8), 3, CPU)
    with torch.no_grad():
        plain, strong, null = (
            guided(model, training, y, geometry, g)(x, t)
            for y, g in ((labels, 1.0), (labels, 3.0), (torch.full((3,), 10), 1.0))
        )
    assert torch.allclose(strong, null + 3 * (plain - null), atol=1e-5)


def test_guidance_can_leave_the_fourth_channel_alone() -> None:
    """As DiT's code does, whose latents have four."""

    def model(x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, *_: object) -> torch.Tensor:
        return x + labels.view(-1, 1, 1, 1)

    training = made(objective=Objective(precondition=False))
    x, t, labels = torch.randn(2, 4, 8, 8), torch.full((2,), 0.5), torch.tensor([1, 2])
    geometry = geometry_for(training, inference(), (8, 8), 2, CPU)
    plain, everywhere, first_three = (
        guided(model, training, labels, geometry, g, channels)(x, t)  # type: ignore[arg-type]
        for g, channels in ((1.0, "all"), (3.0, "all"), (3.0, "first_three"))
    )
    assert torch.equal(first_three[:, :3], everywhere[:, :3])
    assert torch.equal(first_three[:, 3], plain[:, 3])
    assert (everywhere[:, 3] != plain[:, 3]).all()


def test_upsampling_generates_the_training_size() -> None:
    training = made()
    model = network(training)
    small = generate(model, training, inference(), (8, 8), "balanced", 0, range(3), CPU)
    large = generate(
        model, training, inference(resize="bicubic"), (16, 16), "balanced", 0, range(3), CPU
    )
    assert large.shape == (3, 1, 16, 16)
    pooled = torch.nn.functional.avg_pool2d(large.float(), 2)
    assert (pooled - small.float()).abs().mean() < 12


def test_micro_conditions_are_neutral_at_every_size() -> None:
    training = made(micro_conditioning=MicroConditioning(kind="crop"))
    model = network(training)
    assert generate(model, training, inference(), (16, 12), "balanced", 0, range(2), CPU).shape[
        2:
    ] == (16, 12)


def test_randomized_training_reaches_its_whole_range() -> None:
    training = made(positions=Positions(sampler="randomized", range_multiplier=2))
    even = Inference(placement="even")
    geometry = geometry_for(training, even, (8, 16), 2, CPU)
    assert torch.allclose(geometry.rows[0], torch.tensor([0, 7 / 3, 14 / 3, 7]))
    assert geometry.cols[0].tolist() == list(range(8))
