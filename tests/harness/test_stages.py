import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.canonical import canonical_training
from harness.config import Data, Model, Stage, Train, Training
from harness.stages import (
    learning_rate,
    stage_at,
    stages_of,
    steps_of,
    steps_until,
    trained_sizes,
)


def made(*stages: Stage, **settings: object) -> Training:
    train = {"images": 1000, "batch": 10, "learning_rate": 1.0} | settings
    given_train = Train(stages=stages, **train)  # type: ignore[arg-type]
    # Without an encoding, so that no range of positions limits the sizes.
    model = Model(encoding="none")
    return canonical_training(Training(data=Data(resolution=16), model=model, train=given_train))


def test_the_learning_rate_rises_stays_and_falls() -> None:
    training = made(warmup=0.1, decay_from=0.6, final_rate=0.02)
    assert learning_rate(training, 0) == 0
    assert learning_rate(training, 5) == pytest.approx(0.5)
    assert learning_rate(training, 10) == 1
    assert learning_rate(training, 60) == 1
    assert learning_rate(training, 80) == pytest.approx(0.51)
    assert learning_rate(training, 99) == pytest.approx(0.02 + 0.98 * 0.01 / 0.4)


def test_a_rounded_up_batch_learns_at_the_final_rate() -> None:
    training = made(images=101, batch=100, decay_from=0.5, warmup=0.0, final_rate=0.1)
    assert learning_rate(training, 1) == pytest.approx(0.1 + 0.9 * (1 - 100 / 101) / 0.5)


def test_a_constant_rate() -> None:
    training = made(warmup=0.0, decay_from=1.0)
    assert {learning_rate(training, step) for step in range(100)} == {1.0}


def test_images_are_rounded_up_to_whole_batches() -> None:
    assert steps_of(made(images=100, batch=32)) == 4
    assert steps_of(made(images=128, batch=32)) == 4


def test_each_stage_has_a_schedule_and_a_size_of_its_own() -> None:
    training = made(
        Stage(resolution=8, images=95, learning_rate=0.5, warmup=0.5),
        Stage(resolution=(12, 16), images=40, decay_from=0.25, optimizer="reset"),
        warmup=0.0,
        decay_from=1.0,
        final_rate=0.0,
    )
    first, second = stages_of(training)
    assert (first.first, first.end, first.resolution, first.resets) == (0, 10, (8, 8), False)
    assert (second.first, second.end, second.resolution, second.resets) == (10, 14, (12, 16), True)
    rates = [learning_rate(training, step) for step in range(14)]
    # Warm-up over 47.5 images, 10 a step; then from image 10 of 40 on to nothing.
    expected = [0.5 * min(1, 10 * k / 47.5) for k in range(10)] + [1, 1, 2 / 3, 1 / 3]
    assert rates == pytest.approx(expected)


def test_sizes_that_were_trained_until_then() -> None:
    training = made(Stage(resolution=8, images=100), Stage(resolution=(12, 16), images=100))
    assert trained_sizes(training, 0.25) == trained_sizes(training, 0.5) == ((8, 8),)
    assert trained_sizes(training, 0.55) == trained_sizes(training, 1) == ((8, 8), (12, 16))
    assert trained_sizes(made(), 0.1) == ((16, 16),)


sizes = st.lists(st.integers(70, 500), min_size=1, max_size=4)


@given(sizes, st.integers(1, 70))
def test_stages_share_the_steps_without_a_gap(images: list[int], batch: int) -> None:
    training = made(*(Stage(resolution=8 * (k + 1), images=n) for k, n in enumerate(images)),
                    batch=batch)  # fmt: skip
    stages = stages_of(training)
    assert [stage.end - stage.first for stage in stages] == [math.ceil(n / batch) for n in images]
    assert [stage.first for stage in stages] == [0, *(stage.end for stage in stages[:-1])]
    assert steps_of(training) == stages[-1].end
    for stage in stages:
        assert stage_at(training, stage.first) == stage_at(training, stage.end - 1) == stage


@given(st.integers(10, 5000), st.floats(0, 1, exclude_min=True))
def test_a_share_of_a_training_is_whole_steps_of_it(images: int, share: float) -> None:
    training = made(images=images)
    assert 1 <= steps_until(training, share) <= steps_of(training) == steps_until(training, 1.0)
    assert abs(steps_until(training, share) - share * steps_of(training)) <= 1
