"""The figures of one set of samples by one extractor, each with its interval over the samples."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.extractors import KINDS, metric_name
from harness.features import see
from harness.metrics import frechet_distance, inception_score, kid, merged, moments, splits_of
from harness.neighbours import prdc
from harness.reference import Reference
from harness.uncertainty import (
    extrapolated,
    frechet_gradient,
    frechet_influence,
    interval,
    kid_influence,
    score_influence,
    shortfall,
    standard_error,
)

T = TypeVar("T")
Array = NDArray[np.float64]
Read = Callable[[str], Iterator[Tensor]]  # a view -> its arrays [n, width], block by block
Figures = dict[str, tuple[float, Array]]  # kind -> value and influence values [N]

DISTANCES = {"features": "fid", "patch": "patch-fid", "spatial": "sfid"}


@dataclass(frozen=True)
class Measured:
    """Figures by name, and what is to be known of each."""

    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %, over samples
    marks: dict[str, str] = field(default_factory=dict)  # why a figure is not to be trusted
    influence: dict[str, Array] = field(default_factory=dict)  # [N], of each sample on the figure

    def __or__(self, other: "Measured") -> "Measured":
        return Measured(
            self.metrics | other.metrics,
            self.intervals | other.intervals,
            self.marks | other.marks,
            self.influence | other.influence,
        )


def seen_by(
    models: Mapping[str, nn.Module], patches: Mapping[str, int | None], images: Tensor, first: int
) -> dict[str, Tensor]:
    """What each extractor sees in images number `first` and on: `<extractor>/<view>` -> [n, width].

    Args:
        patches: extractor -> side of its random crops, None for no crops.
    """
    return {
        f"{name}/{view}": array
        for name, model in models.items()
        for view, array in see(model, images, patches[name], first).items()
    }


def _score(read: Read, _real: Reference, _device: torch.device | None) -> Figures:
    logits = list(read("logits"))
    if not logits:
        return {}
    every = torch.cat(logits)
    splits = splits_of(len(every))
    return {"is": (inception_score(every, splits), score_influence(every, splits))}


def _prdc(read: Read, real: Reference, device: torch.device | None) -> Figures:
    if real.manifold is None:
        return {}
    features = torch.cat(list(read("features")))
    return prdc(features, real.manifold, real_radii=real.radii, device=device)


def _kid(read: Read, real: Reference, _device: torch.device | None) -> Figures:
    if real.manifold is None:
        return {}
    features = torch.cat(list(read("features")))
    return {"kid": (kid(features, real.manifold), kid_influence(features, real.manifold))}


OTHERS = {("is",): _score, ("precision", "recall", "density", "coverage"): _prdc, ("kid",): _kid}


def _mark(marks: dict[str, str], kind: str, samples: int, real: int | None, width: int) -> None:
    """Mark a figure of too few samples, or of a reference of too few (None: unknown)."""
    if few := shortfall(kind, samples, width):
        marks[kind] = few
    elif real is not None and (few := shortfall(kind, real, width)):
        marks[kind] = f"the reference has {few}"


def measure(
    read: Read, real: Reference, infinity: bool = False, device: torch.device | None = None
) -> Measured:
    """All figures that the reference allows for.

    The Fréchet distances pass twice over the samples, block by block, so their memory does not
    grow with the count N; the inception score holds the logits of all samples, precision, recall,
    density, coverage and KID the features of all samples and of the reference's M: (N + M) x width
    float64 numbers, and blocks of the matrix of distances.

    Args:
        infinity: also extrapolate the distances to infinitely many samples.
        device: where distances between features are computed; None is the CPU.

    Raises:
        ValueError: fewer than 2 samples, or features that are not finite. What else keeps a metric
            from being computed is left as a mark in its place.
    """
    found: Figures = {}
    beyond: dict[str, tuple[float, float]] = {}  # with its standard error
    marks: dict[str, str] = {}
    for view, kind in DISTANCES.items():
        if view not in real.mean:
            continue
        mean, covariance = real.mean[view], real.covariance[view]
        own = reduce(merged, (moments(block) for block in read(view)))
        gradient = frechet_gradient(own.mean, own.covariance, mean, covariance)
        influence = np.concatenate([frechet_influence(block, gradient) for block in read(view)])
        value = frechet_distance(own.mean, own.covariance, mean, covariance)
        found[kind] = value, influence
        behind = real.counts[view]
        _mark(marks, kind, own.count, behind, len(mean))
        if infinity and kind != "sfid":
            every = torch.cat(list(read(view)))
            try:
                beyond[f"{kind}-infinity"] = extrapolated(every, mean, covariance)
                _mark(marks, f"{kind}-infinity", own.count, behind, len(mean))
            except ValueError as error:
                marks[f"{kind}-infinity"] = str(error)
    samples = own.count
    if real.manifold is not None:
        _mark(marks, "kid", samples, len(real.manifold), 0)
    for kinds, compute in OTHERS.items():
        try:
            found |= compute(read, real, device)
        except ValueError as error:  # too few samples, say: the others stand all the same
            marks |= dict.fromkeys(kinds, str(error))

    errors = {kind: (value, standard_error(u)) for kind, (value, u) in found.items()} | beyond
    around = {
        kind: interval(kind, value, error, samples) for kind, (value, error) in errors.items()
    }

    def named(values: Mapping[str, T]) -> dict[str, T]:
        return {metric_name(k, real.extractor): values[k] for k in KINDS if k in values}

    return Measured(
        named({kind: value for kind, (value, _) in (found | beyond).items()}),
        named({kind: ends for kind, ends in around.items() if ends}),
        named(marks),
        named({kind: influence for kind, (_, influence) in found.items()}),
    )
