import pytest
import torch

from harness.config import Data, Model, Train, Training
from harness.ema import Ema
from harness.identity import canonical_training
from harness.train import learning_rate, make_model, steps_of, training_flops


def settings(**given: object) -> Train:
    return Train(images=1000, batch=10, learning_rate=1.0, **given)  # type: ignore[arg-type]


def test_the_learning_rate_rises_stays_and_falls() -> None:
    train = settings(warmup=0.1, decay_from=0.6, final_rate=0.02)
    assert learning_rate(train, 0) == 0
    assert learning_rate(train, 50) == pytest.approx(0.5)
    assert learning_rate(train, 100) == 1
    assert learning_rate(train, 600) == 1
    assert learning_rate(train, 800) == pytest.approx(0.51)
    assert learning_rate(train, 1000) == pytest.approx(0.02)
    assert learning_rate(train, 1005) == pytest.approx(0.02)  # the last, rounded-up batch


def test_a_constant_rate() -> None:
    train = settings(warmup=0.0, decay_from=1.0)
    assert {learning_rate(train, images) for images in range(0, 1001, 10)} == {1.0}


def test_images_are_rounded_up_to_whole_batches() -> None:
    assert steps_of(Train(images=100, batch=32)) == 4
    assert steps_of(Train(images=128, batch=32)) == 4


def test_flops_grow_with_the_images_and_the_size() -> None:
    def made(images: int, side: int) -> Training:
        data, train = Data(resolution=(side, side)), Train(images=images, batch=32)
        return canonical_training(Training(data=data, train=train, model=Model(width=16, heads=1)))

    assert training_flops(made(640, 8)) == 2 * training_flops(made(320, 8))
    assert training_flops(made(640, 16)) > 4 * training_flops(made(640, 8)) * 0.9


def test_variants_of_one_seed_start_from_the_same_weights() -> None:
    weights = []
    for encoding in ("rope", "sincos", "none"):
        torch.manual_seed(3)
        training = Training(
            data=Data(resolution=(8, 8)),
            train=Train(images=640),
            model=Model(width=16, heads=1, encoding=encoding),
        )
        weights.append(torch.cat([p.flatten() for p in make_model(training).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_the_average_is_the_recursion_written_out() -> None:
    layer = torch.nn.Linear(3, 2)
    ema = Ema(layer, decay=0.9)
    expected = layer.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            layer.weight.normal_()
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    assert torch.allclose(ema.averages["weight"], expected, atol=1e-6)
    assert torch.equal(ema.whole()["weight"], ema.averages["weight"])


def test_an_average_taken_over_goes_on_the_same() -> None:
    layer = torch.nn.Linear(3, 2)
    one, two = Ema(layer, 0.9), Ema(layer, 0.9)
    one.update(0)
    with torch.no_grad():
        layer.weight.add_(1)
    one.update(1)
    two.load(one.averages)
    for ema in (one, two):
        ema.update(2)
    assert torch.equal(one.averages["weight"], two.averages["weight"])
