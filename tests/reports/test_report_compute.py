"""Figures against training compute: what it costs to be as good as the baseline, and the plot."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.record import run_folder
from reports.compute import compute_figure, compute_plot, cost_table, followed, reached
from reports.load import Sweep, read
from reports.tables import markdown
from tests.reports.small_sweep import STAGED, STAGED_FID, write_result

METRIC, PATCH = "fid.fashion-cnn", "patch-fid.fashion-cnn"
Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]


def staged(grid: Grid, fill: Fill, outputs: Path, seeds: tuple[int, ...] = (0,)) -> Any:
    """The staged sweep's record, its runs written."""
    record = grid(seeds, STAGED)
    fill(record, outputs, STAGED_FID, samples=False)
    return record


def column(sweep: Sweep, metric: str, place: int) -> list[str]:
    found = cost_table(sweep, metric)
    assert found is not None
    return [row[place].text for row in found.rows]


def test_cost_to_reach_the_baseline(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    staged(grid, fill, tmp_path, (0, 1))
    sweep = read(record := grid((0, 1), STAGED), tmp_path)
    assert [one.title for one in followed(sweep)] == ["12×12", "18×18", "24×24", "36×36", "48×48"]
    found = cost_table(sweep, METRIC)
    assert found is not None
    # 24 x 24 pixels x 1000 x 40,000 = 23 GFLOP; half of it at 12 x 12 is (1 + 1/4) / 2 as much
    assert (
        markdown(found)
        == """\
| method | 24×24: ≤ 12.2 · compute | 24×24: ≤ 12.2 · images | 24×24: ≤ 12.2 · time | 36×36 §: ≤ 24.2 · compute | 36×36 §: ≤ 24.2 · images | 36×36 §: ≤ 24.2 · time | 48×48 §: ≤ 48.2 · compute | 48×48 §: ≤ 48.2 · images | 48×48 §: ≤ 48.2 · time |
|:---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| RoPE, trained at 12 | not reached | – | – |  |  |  |  |  |  |
| RoPE, trained at 24 (baseline) | 23.0 GFLOP (1.00×) | 40,000 | 1.67 min | 23.0 GFLOP (1.00×) | 40,000 | 1.67 min | 23.0 GFLOP (1.00×) | 40,000 | 1.67 min |
| RoPE, trained at 12 then 24 | **14.4 GFLOP (0.62×)** | 40,000 | 1.67 min | **8.64 GFLOP (0.38×)** | 30,000 | 75 s | not reached | – | – |
| RPE-2D ×2 (RoPE), trained at 12 then 24 | not reached | – | – | **8.64 GFLOP (0.38×)** | 30,000 | 75 s | **1.44 GFLOP (0.06×)** | 10,000 | 25 s |
"""  # noqa: E501
    )
    assert found.notes[0].startswith("What a training had cost at its first snapshot whose FID")
    assert found.notes[1:] == (
        "By means over n = 2 seeds.",
        "The baseline has no figure at 12×12 and 18×18 that others can be held to.",
        "§ The reference of 36×36 and 48×48 is 100 % upsampled from smaller originals: such "
        "figures favour blur.",
        "Blank: the row has no such column, so nothing is missing.",
    )
    assert reached(sweep, METRIC) == [
        "FID (fashion-cnn) 12.2 at 24×24, the baseline's at the end of its training, costs least "
        "with RoPE, trained at 12 then 24: 14.4 GFLOP, 0.62 times the baseline's whole training"
    ]
    none = dataclasses.replace(sweep, baseline=None)
    assert cost_table(none, METRIC) is None
    assert reached(none, METRIC) == []
    assert record["baseline"] == sweep.baseline


def test_a_baseline_that_had_been_better_before_is_told(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = staged(grid, fill, tmp_path)
    base = record["cells"][1]
    early = base["measurements"][0]
    assert early["config"]["evaluate"]["after"] == 0.25
    write_result(tmp_path, base, base["runs"][0], early, 11.0)
    sweep = read(record, tmp_path)
    found = cost_table(sweep, METRIC)
    assert found is not None
    before = "the baseline had been better before, 11.0 after 25 %"
    assert f"At 24×24 {before}, so what it costs to reach says little." in found.notes
    assert not any("At 36×36" in note for note in found.notes)
    assert reached(sweep, METRIC)[0].endswith(f"whole training; {before}")


def test_a_missing_or_marked_snapshot_reaches_nothing(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = staged(grid, fill, tmp_path)
    rpe = record["cells"][3]  # of its columns at 48x48 the last four
    run = rpe["runs"][0]
    write_result(
        tmp_path, rpe, run, rpe["measurements"][8], 1.0, marks={"fid": "few"}, upsampled=1.0
    )
    assert column(read(record, tmp_path), METRIC, 7)[3] == "2.88 GFLOP (0.12×)"
    run_folder(tmp_path, run["run_id"]).result_file(rpe["measurements"][9]["eval_id"]).unlink()
    sweep = read(record, tmp_path)
    assert column(sweep, METRIC, 7)[3] == "–"
    assert column(sweep, PATCH, 7)[3] == "1.44 GFLOP (0.06×)"
    found = cost_table(sweep, METRIC)
    assert found is not None
    assert found.notes[1] == "n = 1 seed: how much of it is chance is not known."


@pytest.mark.parametrize("other", [{"labels": "random"}, {"marks": {"fid": "few"}}])
def test_nobody_is_held_to_a_figure_that_cannot_be_compared(
    grid: Grid, fill: Fill, tmp_path: Path, other: dict[str, Any]
) -> None:
    record = staged(grid, fill, tmp_path)
    base = record["cells"][1]
    write_result(tmp_path, base, base["runs"][0], base["measurements"][3], 12.0, **other)
    found = cost_table(read(record, tmp_path), METRIC)
    assert found is not None
    assert found.header[1] == "36×36 §: ≤ 24.0\ncompute"
    assert found.notes[2].startswith("The baseline has no figure at 12×12, 18×18 and 24×24 that")


def test_figure_has_a_panel_for_each_resolution_and_metric(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = staged(grid, fill, tmp_path)
    sweep = read(record, tmp_path)
    canvas = compute_figure(sweep.narrowed(sweep.columns[8:]), [METRIC, PATCH])
    assert canvas is not None
    assert [axes.get_title() for axes in canvas.axes] == [
        "24×24", "24×24", "36×36 §", "36×36 §", "48×48 §", "48×48 §"
    ]  # fmt: skip
    first = canvas.axes[0]
    assert first.get_xlabel() == "training compute so far, GFLOP"
    assert first.get_xscale() == "log"
    lines = {str(one.get_label()): one[0].get_data() for one in first.containers}
    x, y = lines["RoPE, trained at 12 then 24"]
    assert list(x) == [1.44e9, 2.88e9, 8.64e9, 14.4e9]
    assert list(y) == [11 * 1.75, 11 * 1.5, 11 * 1.25, 11]
    assert compute_figure(sweep.trained, [METRIC]) is None
    assert compute_plot(sweep.trained, [METRIC]) is None
