"""The stages of a training: which step has which size, learning rate and optimizer. No torch.

A training without `train.stages` is one stage. Each stage takes whole batches, so its images are
rounded up; steps are counted through all of them.
"""

import math
from dataclasses import dataclass

from harness.config import Stage, Train, Training

Size = tuple[int, int]


@dataclass(frozen=True)
class Span:
    """The steps `first` .. `end` - 1 of one stage; warmup and decay_from are shares of `images`."""

    first: int
    end: int
    resolution: Size
    images: int
    learning_rate: float
    warmup: float
    decay_from: float
    resets: bool  # the optimizer's state, before the first step


def stages_of(training: Training) -> tuple[Span, ...]:
    """The stages of a canonical training, one after the other."""
    train = training.train

    def span(first: int, images: int, resolution: Size, own: Train | Stage, resets: bool) -> Span:
        assert own.learning_rate is not None  # canonical
        assert own.warmup is not None
        assert own.decay_from is not None
        end = first + math.ceil(images / train.batch)
        rates = own.learning_rate, own.warmup, own.decay_from
        return Span(first, end, resolution, images, *rates, resets)

    if not train.stages:
        return (span(0, train.images, training.data.resolution, train, resets=False),)
    spans: list[Span] = []
    for stage in train.stages:
        first = spans[-1].end if spans else 0
        resets = stage.optimizer == "reset"
        spans.append(span(first, stage.images, stage.resolution, stage, resets))
    return tuple(spans)


def stage_at(training: Training, step: int) -> Span:
    """The stage of step number `step`, from 0."""
    return next(stage for stage in stages_of(training) if step < stage.end)


def steps_of(training: Training) -> int:
    """Optimizer steps of the whole training."""
    return stages_of(training)[-1].end


def steps_until(training: Training, share: float) -> int:
    """Steps after which this share of the training is done: at least one, all at share 1."""
    return max(1, round(share * steps_of(training)))


def trained_sizes(training: Training, share: float) -> tuple[Size, ...]:
    """Sizes that this share of the training has seen, stage by stage; the last is the present."""
    steps = steps_until(training, share)
    return tuple(stage.resolution for stage in stages_of(training) if stage.first < steps)


def learning_rate(training: Training, step: int) -> float:
    """The rate of a step: linear warm-up, constant, linear decay to final_rate x peak.

    Each stage has a schedule of its own over its images.
    """
    stage, train = stage_at(training, step), training.train
    share = (step - stage.first) * train.batch / stage.images
    if share < stage.warmup:
        return stage.learning_rate * share / stage.warmup
    if share <= stage.decay_from or stage.decay_from == 1:
        return stage.learning_rate
    left = (1 - share) / (1 - stage.decay_from)
    return stage.learning_rate * (train.final_rate + (1 - train.final_rate) * max(0.0, left))
