import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.config import Data, Inference, MicroConditioning, Model, Positions, Train, Training
from harness.identity import canonical_training
from harness.sample import chunks_of, generate, geometry_for, guided, integrate, labels_of
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


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 5))
def test_ranks_share_the_chunks_of_one_rank(samples: int, chunk: int, ranks: int) -> None:
    alone = list(chunks_of(samples, chunk, 0, 1))
    shared = [part for rank in range(ranks) for part in chunks_of(samples, chunk, rank, ranks)]
    assert sorted(shared, key=lambda part: part.start) == alone
    assert [i for part in alone for i in part] == list(range(samples))


def test_labels_are_balanced() -> None:
    assert torch.bincount(labels_of(range(50), 10)).tolist() == [5] * 10
    assert torch.equal(labels_of(range(7, 9), 10), labels_of(range(9), 10)[7:])


def test_an_image_depends_on_seed_and_index_alone() -> None:
    training = made()
    model = network(training)
    all_at_once = generate(model, training, inference(), (12, 8), 0, range(6), CPU)
    assert all_at_once.shape == (6, 1, 12, 8)
    assert all_at_once.dtype == torch.uint8
    later = generate(model, training, inference(), (12, 8), 0, range(4, 6), CPU)
    assert (later.int() - all_at_once[4:].int()).abs().max() <= 1  # rounding between batches
    other = generate(model, training, inference(), (12, 8), 1, range(6), CPU)
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


def test_upsampling_generates_the_training_size() -> None:
    training = made()
    model = network(training)
    small = generate(model, training, inference(), (8, 8), 0, range(3), CPU)
    large = generate(model, training, inference(resize="bicubic"), (16, 16), 0, range(3), CPU)
    assert large.shape == (3, 1, 16, 16)
    pooled = torch.nn.functional.avg_pool2d(large.float(), 2)
    assert (pooled - small.float()).abs().mean() < 12


def test_micro_conditions_are_neutral_at_every_size() -> None:
    training = made(micro_conditioning=MicroConditioning(kind="crop"))
    model = network(training)
    assert generate(model, training, inference(), (16, 12), 0, range(2), CPU).shape[2:] == (16, 12)


def test_randomized_training_reaches_its_whole_range() -> None:
    training = made(positions=Positions(sampler="randomized", range_multiplier=2))
    even = Inference(placement="even")
    geometry = geometry_for(training, even, (8, 16), 2, CPU)
    assert torch.allclose(geometry.rows[0], torch.tensor([0, 7 / 3, 14 / 3, 7]))
    assert geometry.cols[0].tolist() == list(range(8))
