"""Tables compared whole with expected text."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.record import run_folder
from reports.costs import cost_table, missing_table
from reports.load import read
from reports.origin import code_notes, machine_table, protocol_table
from reports.tables import (
    Cell,
    Table,
    difference_table,
    escaped,
    latex,
    long_frame,
    markdown,
    metric_table,
    table,
)
from tests.reports.small_sweep import CODE, FID, OTHER_CODE, write_result, write_training

METRIC = "fid.fashion-cnn"
Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]

# Seeds 0, 1, 2 lie 0.5 apart, so a spread of 0.5 is common to all rows and cancels in differences.
LIFT = {("RPE-2D ×2 (RoPE)", 1): 3.0, ("RPE-2D ×2 (RoPE)", 2): -3.0}


def test_fid_of_one_seed(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    found = metric_table(read(record, tmp_path), METRIC)
    assert found.title == "FID (fashion-cnn) ↓"
    assert (
        markdown(found)
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE (baseline) | **10.0** | 20.0 | 40.0 |
| RoPE, PI | **10.0** | 25.0 | 30.0 |
| RoPE, generated at 12 then bicubic | **10.0** | 16.0 | 21.5 |
| sin-cos | 11.0 | 60.0 | 123 |
| RPE-2D ×2 (RoPE) | 12.0 | **15.0** | **20.9** |
| real images (floor) | 0.500 | 0.500 | 0.500 |
"""
    )
    assert found.notes == (
        "n = 1 seed: no spread between seeds is known.",
        "Each figure is of 500 generated images; FID is to 20000 real ones.",
    )


def test_other_metrics_have_their_decimals_and_the_highest_is_best(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    sweep = read(record, tmp_path)
    assert (
        markdown(metric_table(sweep, "is.fashion-cnn"))
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE (baseline) | **9.90** | 9.80 | 9.60 |
| RoPE, PI | **9.90** | 9.75 | 9.70 |
| RoPE, generated at 12 then bicubic | **9.90** | 9.84 | 9.79 |
| sin-cos | 9.89 | 9.40 | 8.77 |
| RPE-2D ×2 (RoPE) | 9.88 | **9.85** | **9.79** |
| real images (floor) | 9.25 | 9.25 | 9.25 |
"""
    )
    assert (
        markdown(metric_table(sweep, "recall.fashion-cnn"))
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE (baseline) | 0.025 | 0.050 | 0.100 |
| RoPE, PI | 0.025 | 0.062 | 0.075 |
| RoPE, generated at 12 then bicubic | 0.025 | 0.040 | 0.054 |
| sin-cos | 0.028 | **0.150** | **0.308** |
| RPE-2D ×2 (RoPE) | **0.030** | 0.037 | 0.052 |
| real images (floor) | 0.625 | 0.625 | 0.625 |
"""
    )


def test_three_seeds_and_the_difference_to_the_baseline(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid((0, 1, 2))
    fill(record, tmp_path, lift=LIFT)
    sweep = read(record, tmp_path)
    assert (
        markdown(metric_table(sweep, METRIC))
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE (baseline) | **10.5 ± 0.5** | 20.5 ± 0.5 | 40.5 ± 0.5 |
| RoPE, PI | **10.5 ± 0.5** | 25.5 ± 0.5 | 30.5 ± 0.5 |
| RoPE, generated at 12 then bicubic | **10.5 ± 0.5** | 16.5 ± 0.5 | 22.0 ± 0.5 |
| sin-cos | 11.5 ± 0.5 | 60.5 ± 0.5 | 124 ± 0.5 |
| RPE-2D ×2 (RoPE) | 12.5 ± 0.5 | **15.5 ± 2.8** | **21.4 ± 2.8** |
| real images (floor) | 0.500 | 0.500 | 0.500 |
"""
    )
    difference = difference_table(sweep, METRIC)
    # 3 x t(0.975, 2 degrees) / sqrt(3) = 3 x 4.3027 / 1.7321 = 7.45
    assert (
        markdown(difference)
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE, PI | = | +5.0 [+5.0, +5.0] | −10.0 [−10.0, −10.0] |
| RoPE, generated at 12 then bicubic | = | −4.0 [−4.0, −4.0] | −18.5 [−18.5, −18.5] |
| sin-cos | +1.0 [+1.0, +1.0] | +40.0 [+40.0, +40.0] | +83.4 [+83.4, +83.4] |
| RPE-2D ×2 (RoPE) | +2.0 [+2.0, +2.0] | −5.0 [−12.5, +2.5] | −19.1 [−26.5, −11.6] |
"""
    )
    assert difference.notes[2] == "= is the baseline's own evaluation: the methods coincide there."


def test_one_seed_has_a_difference_without_interval(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    difference = markdown(difference_table(read(record, tmp_path), METRIC))
    assert "| sin-cos | +1.0 (n = 1, no interval) | +40.0 (n = 1, no interval) |" in difference


def test_where_all_rows_coincide_none_is_best(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path, fid={name: {12: 10.0, 18: 11.0, 24: 12.0} for name in FID})
    found = metric_table(read(record, tmp_path), METRIC)
    assert not any(cell.best for row in found.rows for cell in row)


def test_missing_results_are_dashes_with_their_reasons(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid((0, 1))
    fill(record, tmp_path)
    rope, _, _, sincos, rpe = record["cells"]
    folder = run_folder(tmp_path, sincos["runs"][1]["run_id"])
    folder.path.rename(tmp_path / "elsewhere")
    for run in rpe["runs"]:
        folder = run_folder(tmp_path, run["run_id"])
        folder.result_file(rpe["measurements"][2]["eval_id"]).unlink()
    sweep = read(record, tmp_path)
    found = metric_table(sweep, METRIC)
    assert (
        markdown(found)
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE (baseline) | **10.2 ± 0.4** | 20.2 ± 0.4 | 40.2 ± 0.4 |
| RoPE, PI | **10.2 ± 0.4** | 25.2 ± 0.4 | 30.2 ± 0.4 |
| RoPE, generated at 12 then bicubic | **10.2 ± 0.4** | 16.2 ± 0.4 | **21.8 ± 0.4** |
| sin-cos | 11.0 (n = 1) | 60.0 (n = 1) | 123 (n = 1) |
| RPE-2D ×2 (RoPE) | 12.2 ± 0.4 | **15.2 ± 0.4** | – |
| real images (floor) | 0.500 | 0.500 | 0.500 |
"""
    )
    assert found.notes[0] == (
        "Mean ± standard deviation over n = 2 seeds, where a figure does not say that it has fewer."
    )
    missing = missing_table(sweep)
    assert missing is not None
    ids = [sincos["runs"][1]["run_id"], *(run["run_id"] for run in rpe["runs"])]
    one = "| RPE-2D ×2 (RoPE) | {} | new | trained; 1 of 3 evaluations are missing | 1 of 3: 24×24 (2×) | RPE-2D ×2 (RoPE) | {} |\n"  # noqa: E501
    assert markdown(missing) == (
        "| training | seed | state | reason | evaluations missing | rows | run |\n"
        "|:---|:---|:---|:---|:---|:---|:---|\n"
        "| sin-cos | 1 | new | not yet trained | 3 of 3: 12×12 (1×), 18×18 (1.5×), 24×24 (2×) "
        f"| sin-cos | {ids[0]} |\n" + one.format(0, ids[1]) + one.format(1, ids[2])
    )
    assert rope["cell_id"] == sweep.baseline


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
| RoPE | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | with 2 rows |
| RoPE, PI | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | with 2 rows |
| RoPE, generated at 12 then bicubic | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | with 2 rows |
| sin-cos | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | no |
| RPE-2D ×2 (RoPE) | 40,000 | 1.67 min | 1.00 PFLOP | 75 s | no |
| all (shared once) | 120,000 | 5.00 min | 3.00 PFLOP | 5.42 min | 3 of 3 trainings done |
"""
    )


def test_results_of_two_code_ids_are_marked(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][3]
    write_training(tmp_path, cell, cell["runs"][0], code=OTHER_CODE)
    sweep = read(record, tmp_path)
    names = [row[0].text for row in metric_table(sweep, METRIC).rows]
    assert [name for name in names if name.endswith("†")] == ["sin-cos †"]
    assert code_notes(sweep) == [
        f"Code that trained or measured: {OTHER_CODE} (3 evaluations) and {CODE} (13 evaluations). "
        f"Code that is here now: {CODE}.",
        "Stale: this report has results of other code than the one that is here now.",
        "† The results of sin-cos were made, in part or whole, by other code than the other rows: "
        "a difference to them may be the code's.",
    ]


def test_results_of_one_other_code_are_stale_but_not_marked(
    grid: Grid, fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = grid()
    fill(record, tmp_path)
    monkeypatch.setattr("reports.load.code_id", lambda: OTHER_CODE)
    sweep = read(record, tmp_path)
    assert not any("†" in row[0].text for row in metric_table(sweep, METRIC).rows)
    assert [note.partition(":")[0] for note in code_notes(sweep)] == [
        "Code that trained or measured",
        "Stale",
    ]


def test_figures_of_two_protocols_are_not_compared(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][4]
    write_result(tmp_path, cell, cell["runs"][0], cell["measurements"][2], 5.0, samples=5000)
    sweep = read(record, tmp_path)
    found = metric_table(sweep, METRIC)
    assert [row[3].text for row in found.rows] == [
        "40.0 [C]", "30.0 [C]", "21.5 [C]", "123 [C]", "5.00 [D]", "0.500 [C]; 0.500 [D]"
    ]  # fmt: skip
    assert not any(row[3].best for row in found.rows)
    assert found.notes[-1] == (
        "At 24×24 (2×) the figures are of different protocols [letters: see Provenance] and must "
        "not be compared; none is marked as best."
    )
    assert {row[3].text for row in difference_table(sweep, METRIC).rows} == {"not compared"}
    known = protocol_table(sweep)
    assert known is not None
    assert [(row[0].text, row[1].text, row[4].text) for row in known.rows] == [
        ("A", "12×12 (1×)", "500"),
        ("B", "18×18 (1.5×)", "500"),
        ("C", "24×24 (2×)", "500"),
        ("D", "24×24 (2×)", "5000"),
    ]


def test_provenance_tells_commit_and_machine(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    found = machine_table(read(record, tmp_path))
    assert found is not None
    assert (
        markdown(found)
        == """\
| commit | state | device | host | python | packages | runs |
|:---|:---|:---|:---|:---|:---|:---|
| abababababab | clean | cpu | node1 | 3.11.2 | torch 2.14.0 | 3 |
"""
    )


def test_the_long_table_has_a_line_for_every_figure(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid((0, 1))
    fill(record, tmp_path)
    text = long_frame(read(record, tmp_path)).to_csv(index=False)
    lines = list(csv.DictReader(text.splitlines()))
    assert len(lines) == 5 * 3 * 2 * 4
    wanted = {"method": "RPE-2D ×2 (RoPE)", "column": "24x24", "seed": "1", "metric": METRIC}
    (line,) = (one for one in lines if wanted.items() <= one.items())
    cell = record["cells"][4]
    assert line == wanted | {
        "cell_id": cell["cell_id"], "settings": cell["label"], "height": "24", "width": "24",
        "value": str(FID["RPE-2D ×2 (RoPE)"][24] + 0.5), "floor": "0.5", "samples": "500",
        "reference": "ref24", "reference_images": "20000", "extractor": "fashion-cnn",
        "extractor_sha256": "5" * 64, "code_id": CODE, "state": "done",
        "eval_id": cell["measurements"][2]["eval_id"], "run_id": cell["runs"][1]["run_id"],
    }  # fmt: skip


def test_latex() -> None:
    shown = Table("T", ("method", "24×24"), ((Cell("a_b & c"), Cell("1.0 ± 0.1", best=True)),
                  (Cell("real images (floor)"), Cell("–"))), ("50 % of it",))  # fmt: skip
    assert latex(shown) == (
        "% T\n% 50 \\% of it\n\\begin{tabular}{lr}\n\\toprule\n"
        "method & 24$\\times$24 \\\\\n\\midrule\n"
        "a\\_b \\& c & \\textbf{1.0 $\\pm$ 0.1} \\\\\n\\midrule\n"
        "real images (floor) & -- \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def test_text_is_taken_literally() -> None:
    assert escaped("<script> a|b *c* `d`") == ("&lt;script&gt; a&#124;b &#42;c&#42; &#96;d&#96;")
    assert escaped("![x](http://y) [1, 2] a_b _c_") == ("![x&#93;(http://y) [1, 2] a_b &#95;c&#95;")
    assert markdown(table("T", ["a"], [["x|y"]])) == "| a |\n|:---|\n| x&#124;y |\n"
