"""The grid of an ablation: its cells, each with the ids of its runs and evaluations. Pure."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from harness.ablation import Ablation
from harness.canonical import canonical_evaluation, canonical_training
from harness.combinations import CombinationError
from harness.config import TRAINING_KEYS, Evaluation, Inference, Job, Place, Training
from harness.doubts import doubts
from harness.errors import UserError, nearest, short
from harness.files import FORMAT
from harness.identity import digest, eval_id_of, group_id_of, run_id_of
from harness.kinds import shown
from harness.multiples import of_training
from harness.points import MAX_CELLS, Choices, Fields, alone, count_cells, product, under
from harness.settings import build, check_value
from harness.yamlfile import Value, plain

MAX_EVALUATIONS = 10_000_000

Size = tuple[int, int]
Asked = tuple[Choices, Evaluation]  # a column's axes, and the evaluation as asked


@dataclass(frozen=True)
class Measurement:
    """One evaluation of a cell: a column of its row."""

    eval_id: str
    evaluation: Evaluation
    column: tuple[tuple[str, Any], ...]  # the axes of evaluation and their values


@dataclass(frozen=True)
class Cell:
    """One point of the grid without the seed: one row of the report."""

    cell_id: str
    choices: Mapping[str, Any]  # the values that this cell sets on top of base and set
    training: Training
    inference: Inference  # as asked; a measurement has its canonical form
    group_id: str
    runs: tuple[tuple[int, str], ...]  # (seed, run id)
    measurements: tuple[Measurement, ...]

    @property
    def label(self) -> str:
        """`model.encoding=rope inference.law=pi`: what --only matches."""
        return " ".join(f"{key}={shown(value)}" for key, value in self.choices.items()) or "base"


@dataclass(frozen=True)
class Grid:
    ablation: Ablation
    cells: tuple[Cell, ...]
    job: Job
    dropped: Mapping[str, int]  # exclude rule -> cells that it dropped
    notes: tuple[str, ...]  # what was merged
    baseline: str | None  # the cell id of the row that others are compared with


def to_json(grid: Grid) -> dict[str, Any]:
    """The grid as plain data: what the tracker and the reports read, with no YAML in sight."""
    return {
        "format": FORMAT,
        "name": grid.ablation.name,
        "file": str(grid.ablation.path),
        "changes": list(grid.ablation.changes),
        "question": grid.ablation.question,
        "seeds": list(grid.ablation.seeds),
        "baseline": grid.baseline,
        "dropped": dict(grid.dropped),
        "notes": list(grid.notes),
        "cells": [
            {
                "cell_id": cell.cell_id,
                "label": cell.label,
                "choices": dict(cell.choices),
                "group_id": cell.group_id,
                "config": cell.training.model_dump(mode="json"),
                "inference": cell.inference.model_dump(mode="json"),
                "runs": [{"seed": seed, "run_id": run_id} for seed, run_id in cell.runs],
                "measurements": [
                    {
                        "eval_id": m.eval_id,
                        "column": dict(m.column),
                        "config": m.evaluation.model_dump(mode="json"),
                    }
                    for m in cell.measurements
                ],
            }
            for cell in grid.cells
        ],
    }


def expand(ablation: Ablation, only: str | None = None) -> Grid:
    """All cells of an ablation; identical ones merge.

    Args:
        only: keep the cells whose label holds this text (or matches it, with * and ?).

    Raises:
        UserError: a value or a combination that is not allowed, more than a million cells or ten
            million evaluations, a baseline that is no cell, nothing left.
    """
    fields = Fields(ablation.fixed)
    _check_size(ablation, fields)
    dropped = {rule.name: 0 for rule in ablation.exclude}
    points: list[Choices] = []
    for point in itertools.chain.from_iterable(
        under(ablation.when, point, fields)
        for point in product([*alone(ablation.axes), *ablation.zips])
    ):
        rule = next((r for r in ablation.exclude if fields.hold(r.condition, point)), None)
        if rule is None:
            points.append(point)
        else:
            dropped[rule.name] += 1
    notes: list[str] = []
    if not points:
        told = ", ".join(f"{short(name)} dropped {n}" for name, n in dropped.items())
        if not ablation.include:
            raise UserError(f"{ablation.path}: 'exclude' drops every cell ({told}); loosen a rule")
        notes.append(
            f"'exclude' drops every cell of the axes ({told}); only included ones are left"
        )
    product_size = len(points)
    points += ablation.include

    cells: dict[str, Cell] = {}
    written: list[tuple[Choices, str]] = []  # every point as written -> its cell
    job = build(Place, ablation.fixed).job
    cached = _Cached(ablation.fixed, list(product(alone(ablation.evaluate))))
    merged = 0
    for index, point in enumerate(points):
        cell = _cell(ablation, point, cached)
        _check_ranks(ablation, cell, job)
        written.append((point, cell.cell_id))
        twin = cells.get(cell.cell_id)
        if twin is None:
            cells[cell.cell_id] = cell
        elif index >= product_size:
            notes.append(f"include: '{cell.label}' is the same cell as '{twin.label}': merged")
        else:
            merged += 1
    if merged:
        equal = "cells that equal" if merged > 1 else "cell that equals"
        notes.append(f"{merged} {equal} another one: merged")
    notes += doubts((c.training, m.evaluation) for c in cells.values() for m in c.measurements)
    baseline = _baseline(ablation, written, cells, fields)
    kept = tuple(cell for cell in cells.values() if only is None or _matches(cell, only))
    if not kept:
        labels = [cell.label for cell in cells.values()]
        raise UserError(
            f"--only '{only}' matches none of the {len(labels)} cells{nearest(only or '', labels)} "
            f"(a cell is written '{labels[0]}')"
        )
    return Grid(ablation, kept, job, dropped, tuple(notes), baseline)


def _check_size(ablation: Ablation, fields: Fields) -> None:
    count = count_cells(ablation, fields)
    if count > MAX_CELLS:
        raise UserError(
            f"{ablation.path}: the grid has at least {count:,} cells; {MAX_CELLS:,} are allowed: "
            "take values from its axes"
        )
    seeds = len(ablation.seeds)
    columns = math.prod(len(values) for values in ablation.evaluate.values())
    if count * seeds * columns > MAX_EVALUATIONS:
        raise UserError(
            f"{ablation.path}: {count:,} cells x {seeds:,} seeds x {columns:,} columns are "
            f"{count * seeds * columns:,} evaluations; at most {MAX_EVALUATIONS:,} are allowed: "
            "take some away"
        )


def _check_ranks(ablation: Ablation, cell: Cell, job: Job) -> None:
    train = cell.training.train
    if job.ranks % job.nodes:
        raise UserError(
            f"{ablation.path}: job.ranks {job.ranks} is not divisible by job.nodes {job.nodes}; "
            "change one of them"
        )
    if train.batch % (job.ranks * train.accumulation):
        raise UserError(
            f"{ablation.path}: cell '{short(cell.label)}': train.batch {train.batch} is not "
            f"divisible by job.ranks {job.ranks} x train.accumulation {train.accumulation}; "
            "change one of them"
        )


class _Cached:
    """Validated parts of cells; a part that many cells share is built once."""

    def __init__(self, fixed: Mapping[str, Value], columns: list[Choices]) -> None:
        self.fixed, self.columns = fixed, columns
        self.trainings: dict[str, tuple[Training, str]] = {}
        self.evaluations: dict[str, tuple[Inference, list[Asked]]] = {}

    def training(self, point: Choices) -> tuple[Training, str]:
        """The canonical training of a point, and its group id."""
        own = {key: value for key, value in point.items() if key in TRAINING_KEYS}
        key = repr([(name, plain(value)) for name, value in own.items()])
        if key not in self.trainings:
            training = canonical_training(build(Training, {**self.fixed, **own}))
            self.trainings[key] = training, group_id_of(training)
        return self.trainings[key]

    def evaluation(self, point: Choices, trained: Size) -> tuple[Inference, list[Asked]]:
        """The inference that a point asks for, and each column's axes with its evaluation."""
        own = {key: value for key, value in point.items() if key not in TRAINING_KEYS}
        key = repr([trained, *((name, plain(value)) for name, value in own.items())])
        if key not in self.evaluations:
            size = Value(list(trained), "data.resolution")
            own = {"evaluate.resolution": size, **self.fixed, **own}
            asked = build(Evaluation, own).inference
            columns = [
                {name: of_training(value, trained) for name, value in column.items()}
                for column in self.columns
            ]
            self.evaluations[key] = (
                asked,
                [(c, build(Evaluation, {**own, **c})) for c in columns],
            )
        return self.evaluations[key]


def _cell(ablation: Ablation, point: Choices, cached: _Cached) -> Cell:
    try:
        training, group_id = cached.training(point)
        _check_stages(point, training)
        asked, columns = cached.evaluation(point, training.data.resolution)
        canonical = [canonical_evaluation(training, evaluation) for _, evaluation in columns]
    except CombinationError as error:
        where = next((v.where for v in reversed(point.values())), str(ablation.path))
        label = " ".join(f"{key}={shown(plain(value))}" for key, value in point.items())
        raise UserError(f"{where}: cell '{label or 'base'}': {error}") from None
    measurements = tuple(
        Measurement(
            eval_id_of(training.data, evaluation),
            evaluation,
            tuple((key, plain(value)) for key, value in column.items()),
        )
        for evaluation, (column, _) in zip(canonical, columns, strict=True)
    )
    return Cell(
        cell_id=digest([group_id, [m.eval_id for m in measurements]]),
        choices={key: plain(value) for key, value in point.items()},
        training=training,
        inference=asked,
        group_id=group_id,
        runs=tuple((seed, run_id_of(group_id, seed)) for seed in ablation.seeds),
        measurements=measurements,
    )


def _check_stages(point: Choices, training: Training) -> None:
    """Stages say how long and at which sizes is trained; a row must not claim something else."""
    if training.train.stages:
        for key, told in (
            ("train.images", training.train.images),
            ("data.resolution", training.data.resolution),
        ):
            if key in point and check_value(key, point[key]) != told:
                raise CombinationError(
                    f"{key} has no effect with train.stages, which end at {shown(told)}; vary "
                    "train.stages"
                )


def _matches(cell: Cell, pattern: str) -> bool:
    return pattern in cell.label or fnmatchcase(cell.label, pattern) or pattern == cell.cell_id


def _baseline(
    ablation: Ablation,
    written: list[tuple[Choices, str]],
    cells: Mapping[str, Cell],
    fields: Fields,
) -> str | None:
    wanted = {key: [check_value(key, value)] for key, value in ablation.baseline.items()}
    if not wanted:
        return None
    where = next(iter(ablation.baseline.values())).where
    found = {cell_id: None for point, cell_id in written if fields.hold(wanted, point)}
    asked = " ".join(f"{key}={shown(plain(value))}" for key, value in ablation.baseline.items())
    if not found:
        raise UserError(
            f"{where}: baseline '{asked}' is no cell of the grid"
            f"{nearest(asked, [cell.label for cell in cells.values()])}"
        )
    if len(found) > 1:
        first, second, *_ = (cells[cell_id].label for cell_id in found)
        raise UserError(
            f"{where}: baseline '{asked}' is {len(found)} cells ('{first}', '{second}', ...); "
            "name more of its values"
        )
    return next(iter(found))
