"""What rows cost and what is missing, compared whole with expected text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.record import run_folder
from reports.costs import cost_table, missing_table
from reports.load import read
from reports.tables import markdown

Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]


def test_cost_counts_shared_work_once(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    sweep = read(record, tmp_path)
    assert missing_table(sweep) is None
    # 13 distinct evaluations of 25 s: at 12x12 the three RoPE rows share one.
    assert (
        markdown(cost_table(sweep))
        == """\
| method | training images | training time | training compute | evaluation time | training shared |
|:---|---:|---:|---:|---:|---:|
| RoPE, extrapolated | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | with 2 rows |
| RoPE, PI | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | with 2 rows |
| RoPE, generated at 12 then bicubic | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | with 2 rows |
| sin-cos | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | no |
| RPE-2D ×2 (RoPE) | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | no |
| all (shared once) | 120,000 | 5.00 min | 3.00 PFLOP | 5.42 min | 3 of 3 trainings done |
"""
    )


def test_what_is_missing_has_its_reasons(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid((0, 1))
    fill(record, tmp_path)
    _, _, _, sincos, rpe = record["cells"]
    folder = run_folder(tmp_path, sincos["runs"][1]["run_id"])
    folder.path.rename(tmp_path / "elsewhere")
    for run in rpe["runs"]:
        folder = run_folder(tmp_path, run["run_id"])
        folder.result_file(rpe["measurements"][2]["eval_id"]).unlink()
    missing = missing_table(read(record, tmp_path))
    assert missing is not None
    ids = [sincos["runs"][1]["run_id"], *(run["run_id"] for run in rpe["runs"])]
    one = "| RPE-2D ×2 (RoPE) | {} | new | trained; 1 of 3 evaluations are missing | 1 of 3: 24×24 (2×) | RPE-2D ×2 (RoPE) | {} |\n"  # noqa: E501
    assert markdown(missing) == (
        "| training | seed | state | reason | evaluations missing | rows | run |\n"
        "|:---|:---|:---|:---|:---|:---|:---|\n"
        "| sin-cos | 1 | new | not yet trained | 3 of 3: 12×12 (1×), 18×18 (1.5×), 24×24 (2×) "
        f"| sin-cos | {ids[0]} |\n" + one.format(0, ids[1]) + one.format(1, ids[2])
    )
