"""What a report says of a row that early stopping ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.files import write_json
from harness.record import run_folder
from reports.costs import cost_table, missing_table
from reports.load import Sweep, read
from reports.results import difference_table, metric_table
from reports.summary import paragraph

METRIC = "fid.fashion-cnn"
STOPPING = """
question: Which way?
base: base.yaml
set: {train.snapshots: [0.25]}
include:
  - {model.encoding: sincos}
  - {positions.sampler: randomized, positions.range_multiplier: 2}
seeds: SEEDS
evaluate: {resolution: [12], after: [0.25, 1]}
baseline: {model.encoding: rope, positions.sampler: consecutive}
"""
STOPPED_FID = {"RoPE": {12: 10.0}, "sin-cos": {12: 11.0}, "RPE-2D ×2 (RoPE)": {12: 9.0}}
STOPPED = 1  # its row


def stopped(record: dict[str, Any], fill: Callable[..., None], outputs: Path) -> Sweep:
    """Seed 0 of the row was stopped."""
    fill(record, outputs, STOPPED_FID)
    cell = record["cells"][STOPPED]
    run = run_folder(outputs, cell["runs"][0]["run_id"])
    run.done_file.unlink()
    run.result_file(cell["measurements"][1]["eval_id"]).unlink()
    run.samples_file(cell["measurements"][1]["eval_id"]).unlink()
    write_json(
        run.stopped_file, {"after": 0.25, "metric": METRIC, "value": 19.2, "place": 3, "of": 3}
    )
    return read(record, outputs)


def test_a_stopped_row_is_called_so_everywhere(
    grid: Callable[..., Any], fill: Callable[..., None], tmp_path: Path
) -> None:
    sweep = stopped(grid(text=STOPPING), fill, tmp_path)
    figures, differences = metric_table(sweep, [METRIC]), difference_table(sweep, [METRIC])
    assert [row[-1].text for row in figures.rows][STOPPED] == "stopped"
    assert [row[-1].text for row in differences.rows][STOPPED - 1] == "stopped"
    assert any(note.startswith("Stopped: ") for note in differences.notes)
    told = paragraph(sweep)
    assert "of the 2 of 3 rows that were not stopped early" in told
    assert "so far" not in told

    costs = cost_table(sweep).rows
    assert [cell.text for cell in costs[STOPPED]][1:3] == ["10,000", "25 s"]
    assert costs[-1][1].text == "90,000"
    assert costs[-1][-1].text == "2 of 3 trainings done, 1 stopped early"
    missing = missing_table(sweep)
    assert missing is not None
    assert [[cell.text for cell in row][2] for row in missing.rows] == ["stopped"]


def test_a_row_that_lost_one_seed_misses_only_what_that_one_lacks(
    grid: Callable[..., Any], fill: Callable[..., None], tmp_path: Path
) -> None:
    """The other seed is measured, and still no result of the row."""
    sweep = stopped(grid((0, 1), text=STOPPING), fill, tmp_path)
    assert [row[-1].text for row in metric_table(sweep, [METRIC]).rows][STOPPED] == "stopped"
    missing = missing_table(sweep)
    assert missing is not None
    assert [[cell.text for cell in row][1:3] for row in missing.rows] == [["0", "stopped"]]
