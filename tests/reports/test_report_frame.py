"""The long table."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reports.frame import long_frame
from reports.load import read
from tests.reports.small_sweep import CODE, FID, write_result

METRIC = "fid.fashion-cnn"

Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]


def lines_of(record: dict[str, Any], outputs: Path) -> list[dict[str, str]]:
    text = long_frame(read(record, outputs)).to_csv(index=False)
    return list(csv.DictReader(text.splitlines()))


def test_it_has_a_line_for_every_figure(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid((0, 1))
    fill(record, tmp_path)
    lines = lines_of(record, tmp_path)
    assert len(lines) == 5 * 3 * 2 * 9
    wanted = {"method": "RPE-2D ×2 (RoPE)", "column": "24x24", "seed": "1", "metric": METRIC}
    (line,) = (one for one in lines if wanted.items() <= one.items())
    cell = record["cells"][4]
    value = FID["RPE-2D ×2 (RoPE)"][24] + 0.5
    assert line == wanted | {
        "cell_id": cell["cell_id"], "settings": cell["label"], "height": "24", "width": "24",
            "after": "1.0", "upsampled": "0.0", "training_images": "40000",
            "training_flops": "5760000000", "training_seconds": "100.0",
        "value": str(value), "low": str(value * 0.95), "high": str(value * 1.05), "mark": "",
        "floor": "0.5", "floor_low": "0.475", "floor_high": "0.525", "samples": "500",
        "labels": "balanced", "reference": "ref24", "reference_images": "20000",
        "manifold": "man24", "manifold_images": "5000", "patch": "12",
        "extractor": "fashion-cnn", "extractor_sha256": "5" * 64, "code_id": CODE, "state": "done",
        "eval_id": cell["measurements"][2]["eval_id"], "run_id": cell["runs"][1]["run_id"],
    }  # fmt: skip


def test_marks_are_told(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][4]
    few = {"sfid": "too few"}
    write_result(tmp_path, cell, cell["runs"][0], cell["measurements"][2], 5.0, marks=few)
    marked = [one for one in lines_of(record, tmp_path) if one["mark"]]
    assert [(one["metric"], one["mark"]) for one in marked] == [("sfid.fashion-cnn", "too few")]


def test_a_metric_that_could_not_be_computed_has_a_line_with_its_reason(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][4]
    few = {"precision": "too few"}
    write_result(
        tmp_path, cell, cell["runs"][0], cell["measurements"][2], 5.0, marks=few,
        without=("precision",),
    )  # fmt: skip
    (line,) = (one for one in lines_of(record, tmp_path) if one["mark"])
    assert (line["metric"], line["value"], line["mark"]) == (
        "precision.fashion-cnn", "", "too few"
    )  # fmt: skip
