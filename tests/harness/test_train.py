from pathlib import Path

import pytest
import torch

from harness.canonical import canonical_training
from harness.checkpoint import CheckpointError
from harness.config import Data, Model, Stage, Train, Training
from harness.ema import Ema
from harness.engine import World
from harness.files import checksum
from harness.record import RunFolder
from harness.train import check_snapshots, make_model, reset, spent, training_flops

ALONE = World(0, 1, torch.device("cpu"), None)


def test_flops_grow_with_the_images_and_the_size() -> None:
    def made(images: int, side: int) -> Training:
        data, train = Data(resolution=(side, side)), Train(images=images, batch=32)
        return canonical_training(Training(data=data, train=train, model=Model(width=16, heads=1)))

    assert training_flops(made(640, 8)) == 2 * training_flops(made(320, 8))
    assert training_flops(made(640, 16)) > 4 * training_flops(made(640, 8)) * 0.9


def staged(**train: object) -> Training:
    """40 steps at 8x8, then 60 at 16x16."""
    stages = (Stage(resolution=8, images=1280), Stage(resolution=16, images=1920))
    settings = Train(images=1, batch=32, stages=stages, **train)  # type: ignore[arg-type]
    model = Model(width=16, heads=1)
    return canonical_training(Training(data=Data(resolution=8), train=settings, model=model))


def test_flops_are_the_sum_of_the_stages() -> None:
    training, model = staged(), Model(width=16, heads=1)

    def alone(side: int, images: int) -> int:
        data, train = Data(resolution=side), Train(images=images, batch=32)
        return training_flops(canonical_training(Training(data=data, train=train, model=model)))

    assert training_flops(training) == alone(8, 1280) + alone(16, 1920)
    assert training_flops(training, 50) == alone(8, 1280) + alone(16, 320)
    assert training_flops(training, 40) == alone(8, 1280)
    assert training_flops(training, 0) == 0


def test_what_a_share_of_a_training_has_cost(tmp_path: Path) -> None:
    run, training = RunFolder(tmp_path), staged()
    run.metrics_file.write_text(
        '{"step": 40, "images": 1280, "images_per_second": 640}\n'  # two seconds
        '{"step": 60, "images": 1920, "images_per_second": 64}\n'  # ten
        '{"step": 100, "images": 3200, "images_per_second": 128}\n'  # ten
    )
    assert [spent(run, training, share)["seconds"] for share in (0.2, 0.4, 0.5, 0.8, 1.0)] == [
        1, 2, 7, 17, 22,
    ]  # fmt: skip
    half = spent(run, training, 0.5)
    assert (half["images"], half["flops"]) == (1600, training_flops(training, 50))


def test_a_training_does_not_go_on_without_its_snapshots(tmp_path: Path) -> None:
    run, training = RunFolder(tmp_path), staged(snapshots=(0.25, 0.5))
    check_snapshots(run, training, 24, {}, ALONE)  # before the first
    run.snapshot_file(25).write_bytes(b"as written")
    sums = {"weights-00000025.safetensors": checksum(b"as written")}
    check_snapshots(run, training, 49, sums, ALONE)
    with pytest.raises(CheckpointError, match=r"weights-00000050.*missing.*--retry-failed"):
        check_snapshots(run, training, 50, sums, ALONE)
    run.snapshot_file(25).write_bytes(b"as damaged")
    with pytest.raises(CheckpointError, match=r"weights-00000025.*damaged.*--retry-failed"):
        check_snapshots(run, training, 25, sums, ALONE)


def test_a_reset_optimizer_is_a_new_one() -> None:
    torch.manual_seed(0)
    used = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(used.parameters(), lr=0.1, fused=True)

    def step(layer: torch.nn.Linear, optimizer: torch.optim.AdamW) -> torch.Tensor:
        optimizer.zero_grad()
        layer(torch.ones(3)).square().sum().backward()
        optimizer.step()
        return layer.weight.detach().clone()

    for _ in range(5):
        step(used, optimizer)
    fresh = torch.nn.Linear(3, 2)
    fresh.load_state_dict(used.state_dict())
    new = torch.optim.AdamW(fresh.parameters(), lr=0.1, fused=True)
    reset(optimizer)
    for _ in range(3):
        assert torch.equal(step(used, optimizer), step(fresh, new))


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
    for name, span in two.spans().items():
        span.values.copy_(one.spans()[name].values)
    for ema in (one, two):
        ema.update(2)
    assert torch.equal(one.averages["weight"], two.averages["weight"])
