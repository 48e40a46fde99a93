import threading
from itertools import islice
from typing import Any

import pytest
import torch

from harness.batches import Batches, Part
from harness.canonical import canonical_training
from harness.config import (
    Augmentation,
    Data,
    MicroConditioning,
    Model,
    Objective,
    Positions,
    Stage,
    Train,
    Training,
)
from harness.engine import World

BATCH, DEPTH = 8, 3
RPE = {"sampler": "randomized", "range_multiplier": 2.0}


def world(rank: int = 0, size: int = 1) -> World:
    return World(rank, size, torch.device("cpu"), None)


def made(positions: dict[str, Any], **train: Any) -> Training:
    """10 steps at 8x8, then 10 at 8x16, of a model of three layers."""
    stages = (Stage(resolution=8, images=80), Stage(resolution=(8, 16), images=80))
    return canonical_training(
        Training(
            data=Data(resolution=8),
            model=Model(width=16, depth=DEPTH, heads=1),
            positions=Positions(**positions),
            augmentation=Augmentation(kind="resize_crop"),
            micro_conditioning=MicroConditioning(kind="crop"),
            objective=Objective(label_dropout=0.2),
            train=Train(images=1, batch=BATCH, stages=stages, **train),
        )
    )


def whole(training: Training, step: int) -> Part:
    (part,) = Batches(training, 3, world()).parts(step)
    return part


def tensors(part: Part) -> list[torch.Tensor]:
    assert part.micro is not None
    return [*part[:-1], part.geometry.rows, part.geometry.cols]


@pytest.mark.parametrize("granularity", ["sample", "batch", "layer"])
def test_ranks_and_accumulated_parts_share_one_batch(granularity: str) -> None:
    positions = RPE | {"granularity": granularity}
    one = tensors(whole(made(positions), 12))
    batches = [Batches(made(positions, accumulation=2), 3, world(rank, 2)) for rank in (0, 1)]
    parts = [batch.parts(12) for batch in batches]
    in_order = [tensors(parts[rank][a]) for a in (0, 1) for rank in (0, 1)]
    for name, expected, *cut in zip(Part._fields[:-1], one, *in_order, strict=False):
        assert torch.equal(torch.cat(cut), expected), name
    for index in (-2, -1):  # rows and columns: samples are the last axis but one
        assert torch.equal(torch.cat([t[index] for t in in_order], dim=-2), one[index])


def test_what_shares_a_draw_of_positions() -> None:
    sample, batch, layer = (
        whole(made(RPE | {"granularity": kind}), 12).geometry
        for kind in ("sample", "batch", "layer")
    )
    assert sample.rows.shape == (BATCH, 4)
    assert len(sample.rows.unique(dim=0)) > 4
    assert torch.equal(batch.rows, sample.rows[:1].expand(BATCH, 4))
    assert torch.equal(batch.cols, sample.cols[:1].expand(BATCH, 8))
    assert layer.rows.shape == (DEPTH, BATCH, 4)
    assert layer.cols.shape == (DEPTH, BATCH, 8)
    assert len(layer.cols.flatten(0, 1).unique(dim=0)) == DEPTH * BATCH


def test_one_factor_rescales_both_axes_and_jitter_has_two() -> None:
    def factors(sampler: str, granularity: str) -> tuple[torch.Tensor, torch.Tensor]:
        positions = {"sampler": sampler, "range_multiplier": 2.0, "granularity": granularity}
        found = whole(made(positions), 2).geometry  # 4x4 patches, in a range of 8x16
        return found.rows.diff(dim=-1).mean(-1), found.cols.diff(dim=-1).mean(-1)

    for granularity in ("sample", "batch", "layer"):
        rows, cols = factors("rescale", granularity)  # f = (L/n)^(2u - 1) with L/n of 2 and of 4
        assert torch.allclose(cols.log2(), 2 * rows.log2(), atol=1e-4)
        rows, cols = factors("jitter", granularity)
        assert not torch.allclose(cols.log2(), 2 * rows.log2(), atol=1e-2)


def test_a_stage_has_its_size_and_the_range_of_the_last() -> None:
    first, second = (whole(made(RPE), step) for step in (9, 10))
    assert first.x.shape[-2:] == first.noise.shape[-2:] == (8, 8)
    assert second.x.shape[-2:] == (8, 16)
    for part, size in ((first, (8, 8)), (second, (8, 16))):
        assert part.micro is not None
        _, _, height, width = part.micro.T
        assert (height.min() >= size[0]) & (height.max() <= 2 * size[0])
        assert (width.min() >= size[1]) & (width.max() <= 2 * size[1])
    many = torch.cat([whole(made(RPE), step).geometry.cols for step in range(10)])
    assert many.shape == (10 * BATCH, 4)
    assert (many.min(), many.max()) == (0, 15)


def test_without_an_encoding_stages_may_shrink() -> None:
    shrinking = Train(
        images=64, stages=(Stage(resolution=(12, 16), images=64), Stage(resolution=8, images=64))
    )
    bare = Training(data=Data(resolution=8), model=Model(encoding="none"), train=shrinking)
    sizes = [whole(canonical_training(bare), step).x.shape[-2:] for step in (0, 1)]
    assert sizes == [(12, 16), (8, 8)]


def test_stages_see_the_images_that_one_stage_would() -> None:
    staged = made({})
    plain = canonical_training(
        staged.model_copy(
            update={"train": Train(images=160, batch=BATCH), "data": Data(resolution=16)}
        )
    )
    for step in (0, 9, 10, 19):
        one, other = whole(staged, step), whole(plain, step)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.t, other.t)


def test_what_is_made_ahead_is_the_same() -> None:
    batches = Batches(made(RPE), 3, world())
    ahead = list(batches.ahead(range(8, 12)))
    assert [step for step, _ in ahead] == [8, 9, 10, 11]
    for step, (part,) in ahead:
        for one, other in zip(tensors(part), tensors(whole(made(RPE), step)), strict=True):
            assert torch.equal(one, other)
    assert list(batches.ahead(range(5, 5))) == []


def test_an_error_in_the_thread_is_raised_where_the_batch_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = Batches(made({}), 3, world())
    real = batches.parts

    def failing(step: int) -> list[Part]:
        if step == 2:
            raise OSError("the disk is gone")
        return real(step)

    monkeypatch.setattr(batches, "parts", failing)
    ahead = batches.ahead(range(5))
    assert [step for step, _ in islice(ahead, 2)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
    assert not [t for t in threading.enumerate() if t.name.startswith("next batch")]
