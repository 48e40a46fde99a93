"""Multiples: of a base's unit, of its images, of a cell's own training size."""

from collections.abc import Callable
from fractions import Fraction

import pytest

from harness.ablation import read_ablation
from harness.errors import UserError
from harness.grid import Grid, expand
from harness.multiples import factor
from tests.tiny import Write

HEAD = "question: What?\nbase: unit.yaml\n"
Made = Callable[..., Grid]


@pytest.fixture
def grid_of(write: Write) -> Made:
    def made(text: str, *changes: str, unit: str = "unit: 8\n") -> Grid:
        write("unit.yaml", f"base: base.yaml\n{unit}")
        return expand(read_ablation(write("a.yaml", HEAD + text), changes))

    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1x", Fraction(1)), ("1.5x", Fraction(3, 2)), ("x", None), ("-1x", None), ("0x10", None),
     (2, None), ("1.5 x", None)],
)  # fmt: skip
def test_what_a_multiple_is(text: object, expected: Fraction | None) -> None:
    assert factor(text) == expected


def test_columns_are_multiples_of_each_rows_own_training_size(grid_of: Made) -> None:
    grid = grid_of(
        "axes: {data.resolution: [1x, 2x, [1x, 2x]]}\nevaluate: {resolution: [1x, 1.5x, 16]}\n"
        "baseline: {data.resolution: 2x}\n"
    )
    found = {
        cell.training.data.resolution: [m.evaluation.evaluate.resolution for m in cell.measurements]
        for cell in grid.cells
    }
    assert found == {
        (8, 8): [(8, 8), (12, 12), (16, 16)],
        (16, 16): [(16, 16), (24, 24), (16, 16)],
        (8, 16): [(8, 16), (12, 24), (16, 16)],
    }
    assert dict(grid.cells[0].measurements[1].column) == {"evaluate.resolution": 12}
    assert grid.baseline == grid.cells[1].cell_id


def test_a_column_may_have_a_multiple_a_side(grid_of: Made) -> None:
    cell = grid_of("evaluate: {resolution: [[1x, 2x], [1.5x, 1.5x]]}\n").cells[0]
    sizes = [m.evaluation.evaluate.resolution for m in cell.measurements]
    assert sizes == [(8, 16), (12, 12)]


def test_images_are_multiples_of_what_lies_below(grid_of: Made) -> None:
    text = "set:\n  train.images: 0.5x\n  train.stages: [{resolution: 1x, images: 0.5x}, "
    text += "{resolution: 2x, images: 1x}]\n"
    train = grid_of(text).cells[0].training.train
    assert [stage.images for stage in train.stages] == [160, 320]  # the base has 640
    kept = grid_of("", "train.snapshots=[0.5, 0.25]", "train.stages=[{resolution: 1x, images: 2x}]")
    assert kept.cells[0].training.train.snapshots == (0.25, 0.5)
    assert kept.cells[0].training.train.images == 1280
    longer = grid_of(text, "train.images=3x").cells[0].training.train
    assert [stage.images for stage in longer.stages] == [480, 960]  # of 0.5 x 640 x 3


@pytest.mark.parametrize(
    ("text", "unit", "told"),
    [
        ("set: {data.resolution: 2x}\n", "", "a.yaml:3: data.resolution: got '2x', but the base"),
        ("set: {data.resolution: 1.3x}\n", "unit: 8\n", "10.4 pixels of the base's unit of 8"),
        ("evaluate: {resolution: [1.3x]}\n", "unit: 8\n", "10.4 pixels of the training size 8x8"),
        ("", "unit: 0\n", "unit.yaml:2: unit: got 0; give the pixels"),
        ("", "unit: big\n", "unit: got 'big'"),
        ("unit: 8\n", "", "unknown key 'unit'"),
        ("set: {train.batch: 2x}\n", "unit: 8\n", "train.batch: got '2x'"),
    ],
)
def test_errors_say_what_to_do(grid_of: Made, text: str, unit: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        grid_of(text, unit=unit)
    assert told in str(raised.value)
