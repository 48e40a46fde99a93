"""The tables of figures, compared whole with expected text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.record import run_folder
from reports.load import Sweep, read
from reports.results import all_protocols, difference_table, metric_table
from reports.summary import headline, paragraph
from reports.tables import Table, markdown
from tests.reports.small_sweep import (
    ABLATION,
    FID,
    SIZES,
    SIZES_FID,
    STAGED,
    STAGED_FID,
    Record,
    write_result,
)

METRIC, PATCH = "fid.fashion-cnn", "patch-fid.fashion-cnn"
BOTH = (METRIC, PATCH)
Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]

# Seeds 0, 1, 2 lie 0.5 apart, so a spread of 0.5 is common to all rows and cancels in differences.
LIFT = {("RPE-2D ×2 (RoPE)", 1): 3.0, ("RPE-2D ×2 (RoPE)", 2): -3.0}


def texts(table: Table, place: int) -> list[str]:
    """A column without its name."""
    return [row[place].text for row in table.rows]


def change(outputs: Path, record: Record, index: int, fid: float, **other: Any) -> Sweep:
    """The report's content after the last resolution of a cell was measured otherwise."""
    cell = record["cells"][index]
    write_result(outputs, cell, cell["runs"][0], cell["measurements"][-1], fid, **other)
    return read(record, outputs)


def test_fid_stands_beside_patch_fid(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    found = metric_table(read(record, tmp_path), BOTH)
    assert found.title == "FID and patch FID (fashion-cnn) ↓"
    assert (
        markdown(found)
        == """\
| method | 12×12 (1×) · FID | 12×12 (1×) · patch FID | 18×18 (1.5×) · FID | 18×18 (1.5×) · patch FID | 24×24 (2×) · FID | 24×24 (2×) · patch FID |
|:---|---:|---:|---:|---:|---:|---:|
| RoPE, extrapolated (baseline) | **10.0 [9.5, 10.5]** | **20.0 [19.0, 21.0]** | 20.0 [19.0, 21.0] | 40.0 [38.0, 42.0] | 40.0 [38.0, 42.0] | 80.0 [76.0, 84.0] |
| RoPE, PI | **10.0 [9.5, 10.5]** | **20.0 [19.0, 21.0]** | 25.0 [23.8, 26.2] | 50.0 [47.5, 52.5] | 30.0 [28.5, 31.5] | 60.0 [57.0, 63.0] |
| RoPE, generated at 12 then bicubic | **10.0 [9.5, 10.5]** | **20.0 [19.0, 21.0]** | 16.0 [15.2, 16.8] | 48.0 [45.6, 50.4] | 21.5 [20.4, 22.6] | 64.5 [61.3, 67.7] |
| sin-cos | 11.0 [10.4, 11.6] | 22.0 [20.9, 23.1] | 60.0 [57.0, 63.0] | 120 [114, 126] | 123 [117, 130] | 247 [234, 259] |
| RPE-2D ×2 (RoPE) | 12.0 [11.4, 12.6] | 24.0 [22.8, 25.2] | **15.0 [14.2, 15.8]** | **30.0 [28.5, 31.5]** | **20.9 [19.9, 22.0]** | **41.9 [39.8, 44.0]** |
| real images (floor) | 0.500 [0.475, 0.525] | 1.00 [0.95, 1.05] | 0.500 [0.475, 0.525] | 1.00 [0.95, 1.05] | 0.500 [0.475, 0.525] | 1.00 [0.95, 1.05] |
"""  # noqa: E501
    )
    assert found.notes == (
        "n = 1 seed: no spread between seeds is known. In brackets is the 95 % interval over the "
        "samples (infinitesimal jackknife, the reference held fixed).",
        "Each figure is of 500 generated images, against 20000 real ones.",
    )


def test_other_metrics_have_their_decimals_and_the_highest_is_best(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    sweep = read(record, tmp_path)
    kid = metric_table(sweep, ["kid.fashion-cnn"])
    assert kid.title == "KID ×10³ (fashion-cnn) ↓"
    assert kid.notes[1] == "Each figure is of 500 generated images, against 5000 real ones."
    assert texts(kid, 2) == [
        "2.00 [1.90, 2.10]", "2.50 [2.38, 2.62]", "1.60 [1.52, 1.68]", "6.00 [5.70, 6.30]",
        "1.50 [1.43, 1.57]", "0.0500 [0.0475, 0.0525]",
    ]  # fmt: skip
    score = metric_table(sweep, ["is.fashion-cnn"])
    assert score.notes[1] == "Each figure is of 500 generated images."
    assert (
        markdown(score)
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE, extrapolated (baseline) | **9.90 [9.40, 10.40]** | 9.80 [9.31, 10.29] | 9.60 [9.12, 10.08] |
| RoPE, PI | **9.90 [9.40, 10.40]** | 9.75 [9.26, 10.24] | 9.70 [9.21, 10.19] |
| RoPE, generated at 12 then bicubic | **9.90 [9.40, 10.40]** | 9.84 [9.35, 10.33] | 9.79 [9.30, 10.27] |
| sin-cos | 9.89 [9.40, 10.38] | 9.40 [8.93, 9.87] | 8.77 [8.33, 9.20] |
| RPE-2D ×2 (RoPE) | 9.88 [9.39, 10.37] | **9.85 [9.36, 10.34]** | **9.79 [9.30, 10.28]** |
| real images (floor) | 9.99 [9.50, 10.49] | 9.99 [9.50, 10.49] | 9.99 [9.50, 10.49] |
"""  # noqa: E501
    )
    recall = metric_table(sweep, ["recall.fashion-cnn"])
    assert texts(recall, 3)[-2:] == ["0.052 [0.050, 0.055]", "0.001 [0.001, 0.001]"]


def test_three_seeds_and_the_difference_to_the_baseline(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid((0, 1, 2))
    fill(record, tmp_path, lift=LIFT)
    sweep = read(record, tmp_path)
    found = metric_table(sweep, [METRIC])
    assert (
        markdown(found)
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE, extrapolated (baseline) | **10.5 ± 0.5** | 20.5 ± 0.5 | 40.5 ± 0.5 |
| RoPE, PI | **10.5 ± 0.5** | 25.5 ± 0.5 | 30.5 ± 0.5 |
| RoPE, generated at 12 then bicubic | **10.5 ± 0.5** | 16.5 ± 0.5 | 22.0 ± 0.5 |
| sin-cos | 11.5 ± 0.5 | 60.5 ± 0.5 | 124 ± 0.5 |
| RPE-2D ×2 (RoPE) | 12.5 ± 0.5 | **15.5 ± 2.8** | **21.4 ± 2.8** |
| real images (floor) | 0.500 [0.475, 0.525] | 0.500 [0.475, 0.525] | 0.500 [0.475, 0.525] |
"""
    )
    # 5 % of 10 and of 124.4, which are the smallest and the largest FID of any seed
    assert found.notes[0] == "Mean ± standard deviation over n = 3 seeds."
    assert found.notes[2] == "Over samples: ± 0.50 to ± 6.2 (FID)."
    difference = difference_table(sweep, BOTH)
    # 3 x t(0.975, 2 degrees) / sqrt(3) = 3 x 4.3027 / 1.7321 = 7.45; patch FID is twice FID, or of
    # an upsampled image 3 times, so that its seeds differ by 0.5 more than the baseline's
    assert (
        markdown(difference)
        == """\
| method | 12×12 (1×) · FID | 12×12 (1×) · patch FID | 18×18 (1.5×) · FID | 18×18 (1.5×) · patch FID | 24×24 (2×) · FID | 24×24 (2×) · patch FID |
|:---|---:|---:|---:|---:|---:|---:|
| RoPE, PI | = | = | +5.0 [+5.0, +5.0] | +10.0 [+10.0, +10.0] | −10.0 [−10.0, −10.0] | −20.0 [−20.0, −20.0] |
| RoPE, generated at 12 then bicubic | = | = | −4.0 [−4.0, −4.0] | +8.5 [+7.3, +9.7] | −18.5 [−18.5, −18.5] | −15.0 [−16.2, −13.8] |
| sin-cos | +1.0 [+1.0, +1.0] | +2.0 [+2.0, +2.0] | +40.0 [+40.0, +40.0] | +80.0 [+80.0, +80.0] | +83.4 [+83.4, +83.4] | +166.8 [+166.8, +166.8] |
| RPE-2D ×2 (RoPE) | +2.0 [+2.0, +2.0] | +4.0 [+4.0, +4.0] | −5.0 [−12.5, +2.5] | −10 [−25, +5] | −19.1 [−26.5, −11.6] | −38 [−53, −23] |
"""  # noqa: E501
    )
    assert difference.notes[1].startswith("Mean over seeds [95 % t interval")
    assert difference.notes[2] == "= is the baseline's own evaluation: the methods coincide there."


def test_one_seed_has_differences_with_intervals_over_samples(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    found = difference_table(read(record, tmp_path), [METRIC])
    # Half widths a and b with correlation 0.64: the difference has sqrt(a^2 + b^2 - 1.28 a b), for
    # the last figure sqrt(1.047^2 + 2^2 - 1.28 x 1.047 x 2) = 1.55.
    assert (
        markdown(found)
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE, PI | = | +5.00 [+4.02, +5.98] | −10.0 [−11.6, −8.4] |
| RoPE, generated at 12 then bicubic | = | −4.00 [−4.78, −3.22] | −18.5 [−20.1, −16.9] |
| sin-cos | +1.00 [+0.55, +1.45] | +40.0 [+37.5, +42.5] | +83.4 [+78.3, +88.5] |
| RPE-2D ×2 (RoPE) | +2.00 [+1.52, +2.48] | −5.00 [−5.78, −4.22] | −19.1 [−20.6, −17.5] |
"""
    )
    assert found.notes[1] == (
        "One seed: in brackets is the 95 % interval over the samples, sample i of one row paired "
        "with sample i of the other. How much training seeds differ is not in it."
    )


def test_without_influence_values_one_seed_has_no_interval_of_a_difference(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    for file in tmp_path.glob("runs/*/eval/*.influence.safetensors"):
        file.unlink()
    found = difference_table(read(record, tmp_path), [METRIC])
    assert texts(found, 3)[2] == "+83.4 (n = 1, no interval)"
    assert not any("in brackets" in note for note in found.notes)


def test_where_all_rows_coincide_none_is_best(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path, fid={name: {12: 10.0, 18: 11.0, 24: 12.0} for name in FID})
    found = metric_table(read(record, tmp_path), [METRIC])
    assert not any(cell.best for row in found.rows for cell in row)


def test_where_more_than_three_rows_coincide_none_is_best(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    alike = {12: 10.0, 18: 11.0, 24: 12.0}
    fill(record, tmp_path, fid=dict.fromkeys(FID, alike) | {"sin-cos": FID["sin-cos"]})
    found = metric_table(read(record, tmp_path), [METRIC])
    assert not any(cell.best for row in found.rows for cell in row)


def test_rows_without_a_column_are_blank_there_and_have_no_difference(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid(text=STAGED)
    fill(record, tmp_path, STAGED_FID, samples=False)
    run = run_folder(tmp_path, record["cells"][3]["runs"][0]["run_id"])
    run.result_file(record["cells"][3]["measurements"][7]["eval_id"]).unlink()
    sweep = read(record, tmp_path).trained
    found = metric_table(sweep, [METRIC])
    assert found.header == ("method", "12×12", "18×18", "24×24", "36×36 §", "48×48 §")
    assert [[cell.text.partition(" ")[0] for cell in row[1:]] for row in found.rows] == [
        ["10.0", "20.0", "40.0", "", ""],
        ["", "", "12.0", "24.0", "48.0"],
        ["", "", "11.0", "16.0", "90.0"],
        ["", "", "14.0", "–", "20.0"],
        ["0.500"] * 5,
    ]
    assert [cell.best for cell in found.rows[0]] == [False] * 6  # alone in its columns
    assert found.rows[2][4].best
    upsampled = (
        "§ The reference of 36×36 and 48×48 is 100 % upsampled from smaller originals: such "
        "figures favour blur."
    )
    blank = "Blank: the row has no such column, so nothing is missing."
    assert found.notes[-2:] == (upsampled, blank)
    score = metric_table(sweep, ["is.fashion-cnn"])
    assert score.header[-1] == "48×48"
    assert upsampled not in score.notes
    differences = difference_table(sweep, [METRIC])
    assert differences.header == ("method", "24×24", "36×36 §", "48×48 §")
    assert [[cell.text.partition(" ")[0] for cell in row[1:]] for row in differences.rows] == [
        ["+28.0", "", ""],
        ["−1.000", "−8.00", "+42.0"],
        ["+2.00", "–", "−28.0"],
    ]
    assert differences.notes[1] == (
        "The baseline has no column 12×12 and 18×18, so there are no differences there."
    )
    assert differences.notes[-2:] == (upsampled, blank)


def test_where_the_baseline_has_no_column_its_twin_of_another_training_size_stands_in(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    fill(record := grid(text=SIZES), tmp_path, SIZES_FID, samples=False)
    sweep = read(record, tmp_path)
    found = difference_table(sweep, [METRIC])
    assert found.header == ("method", "12×12", "24×24", "48×48 §")
    assert [[cell.text.partition(" ")[0] for cell in row[1:]] for row in found.rows] == [
        ["=", "+10.00", ""],
        ["", "−8.00", "="],
        ["", "−8.00", "−10.00"],
    ]
    assert found.notes[1] == (
        "At 48×48, which the baseline does not have, against RoPE, PI, trained at 24: the baseline "
        "in all but its training size."
    )
    assert "the baseline RoPE, PI, trained at 24 has 50.0" in paragraph(sweep)
    assert headline(sweep.rows)[0].startswith("FID (fashion-cnn) at 24×24, 1 seed: best is")
    assert headline(sweep.rows)[3].startswith(
        "FID (fashion-cnn) at 48×48 (reference 100 % upsampled), 1 seed: best is RoPE, NTK, "
        "trained at 24 40.0 [38.0, 42.0] | baseline: RoPE, PI, trained at 24 50.0 [47.5, 52.5]; "
        "difference of the best −10.0"
    )


def test_results_from_before_there_were_upsampled_references_are_of_the_same_protocol(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    file = next(tmp_path.glob("runs/*/eval/*.json"))
    result = json.loads(file.read_text())
    del result["protocol"]["upsampled"], result["training"]
    file.write_text(json.dumps(result))
    assert len(all_protocols(read(record, tmp_path))) == 3  # one for each size


def test_missing_results_are_dashes(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid((0, 1))
    fill(record, tmp_path)
    rope, _, _, sincos, rpe = record["cells"]
    run_folder(tmp_path, sincos["runs"][1]["run_id"]).path.rename(tmp_path / "elsewhere")
    for run in rpe["runs"]:
        folder = run_folder(tmp_path, run["run_id"])
        folder.result_file(rpe["measurements"][2]["eval_id"]).unlink()
    sweep = read(record, tmp_path)
    found = metric_table(sweep, [METRIC])
    assert (
        markdown(found)
        == """\
| method | 12×12 (1×) | 18×18 (1.5×) | 24×24 (2×) |
|:---|---:|---:|---:|
| RoPE, extrapolated (baseline) | **10.2 ± 0.4** | 20.2 ± 0.4 | 40.2 ± 0.4 |
| RoPE, PI | **10.2 ± 0.4** | 25.2 ± 0.4 | 30.2 ± 0.4 |
| RoPE, generated at 12 then bicubic | **10.2 ± 0.4** | 16.2 ± 0.4 | **21.8 ± 0.4** |
| sin-cos | 11.0 (n = 1) | 60.0 (n = 1) | 123 (n = 1) |
| RPE-2D ×2 (RoPE) | 12.2 ± 0.4 | **15.2 ± 0.4** | – |
| real images (floor) | 0.500 [0.475, 0.525] | 0.500 [0.475, 0.525] | 0.500 [0.475, 0.525] |
"""
    )
    assert found.notes[0] == (
        "Mean ± standard deviation over n = 2 seeds, where a figure does not say that it has fewer."
    )
    assert rope["cell_id"] == sweep.baseline
    differences = difference_table(sweep, [METRIC])
    assert texts(differences, 3)[2:] == ["+83.4 (n = 1, no interval)", "–"]


def test_figures_of_two_protocols_are_not_compared(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    sweep = change(tmp_path, record, 4, 5.0, samples=5000)
    found = metric_table(sweep, [METRIC])
    assert texts(found, 3) == [
        "40.0 [38.0, 42.0] [C]", "30.0 [28.5, 31.5] [C]", "21.5 [20.4, 22.6] [C]",
        "123 [117, 130] [C]", "5.00 [4.75, 5.25] [D]",
        "0.500 [0.475, 0.525] [C]; 0.500 [0.475, 0.525] [D]",
    ]  # fmt: skip
    assert not any(row[3].best for row in found.rows)
    assert found.notes[-1] == (
        "At 24×24 (2×) the figures are of different protocols [letters: see Provenance] and must "
        "not be compared; none is marked as best."
    )
    assert texts(difference_table(sweep, [METRIC]), 3) == [
        "−10.0 [−11.6, −8.4]", "−18.5 [−20.1, −16.9]", "+83.4 [+78.3, +88.5]", "not compared"
    ]  # fmt: skip
    assert list(all_protocols(sweep).values()) == ["A", "B", "C", "D"]


@pytest.mark.parametrize(
    "other",
    [{"labels": "random"}, {"sha256": "6" * 64}, {"reference": "other"}, {"patch": 3},
     {"reference_images": 7}],
)  # fmt: skip
def test_whatever_a_figure_is_measured_by_has_to_be_alike(
    grid: Grid, fill: Fill, tmp_path: Path, other: dict[str, Any]
) -> None:
    record = grid()
    fill(record, tmp_path)
    found = metric_table(change(tmp_path, record, 4, 5.0, **other), BOTH)
    assert [text.rpartition(" ")[2] for text in texts(found, 5)[:-1]] == [*["[C]"] * 4, "[D]"]


def test_neither_other_extractors_nor_the_kind_of_interval_tell_figures_apart(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    sweep = change(tmp_path, record, 4, 5.0, interval="another")
    assert metric_table(sweep, [METRIC]).rows[4][3].best


def test_a_marked_figure_has_a_sign_and_its_reason_and_is_not_the_best(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    reason = "20 samples for 64 dimensions: the covariance needs at least 65"
    sweep = change(tmp_path, record, 4, 5.0, marks={"fid": reason})
    found = metric_table(sweep, BOTH)
    assert texts(found, 5)[4:] == ["5.00 [4.75, 5.25] ‡", "0.500 [0.475, 0.525]"]
    assert [row[5].best for row in found.rows] == [False, False, True, False, False, False]
    assert found.rows[4][6].best  # its patch FID has no mark
    assert found.notes[-1] == f"‡ FID: {reason}."
    differences = difference_table(sweep, BOTH)
    assert [text.endswith(" ‡") for text in texts(differences, 5)] == [False, False, False, True]
    assert differences.notes[-1] == f"‡ FID: {reason}."
    for index in range(4):
        sweep = change(tmp_path, record, index, 9.0, marks={"fid": reason})
    found = metric_table(sweep, [METRIC])
    assert all(text.endswith(" ‡") for text in texts(found, 3))  # real images are as few
    assert not any(row[3].best for row in found.rows)


def test_a_lost_or_damaged_influence_file_is_named_with_what_to_do(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    base, other = record["cells"][0], record["cells"][4]
    files = []
    for cell, place in ((base, 1), (other, 2)):
        run = run_folder(tmp_path, cell["runs"][0]["run_id"])
        files.append(run.influence_file(cell["measurements"][place]["eval_id"]))
    files[0].unlink()
    files[1].write_bytes(b"{")
    found = difference_table(read(record, tmp_path), BOTH)
    told = [note for note in found.notes if note.startswith("No interval")]
    ids = [(file.parts[-3], file.name.partition(".")[0]) for file in files]
    assert told == [
        f"No interval with {whose}: runs/{run}/eval/{one}.influence.safetensors is {wrong}. To "
        f"measure that evaluation again, delete runs/{run}/eval/{one}.json and give the same sweep "
        "again."
        for (run, one), whose, wrong in zip(
            ids,
            ("RoPE, extrapolated at 18×18 (1.5×)", "RPE-2D ×2 (RoPE) at 24×24 (2×)"),
            ("missing", "damaged"),
            strict=True,
        )
    ]
    assert all("no interval" in text for text in texts(found, 3))
    assert ["no interval" in text for text in texts(found, 5)] == [False, False, False, True]


def test_many_lost_influence_files_are_counted(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    gone = list(tmp_path.glob("runs/*/eval/*.influence.safetensors"))
    for file in gone:
        file.unlink()
    told = difference_table(read(record, tmp_path), BOTH).notes
    assert sum(note.startswith("No interval with") for note in told) == 5
    # all evaluations are in a difference: at 12x12 that of the baseline is shared by 3 rows
    assert told[-1] == f"So it is with {len(gone) - 5} more such files."
    several = grid((0, 1))
    fill(several, tmp_path)
    for file in tmp_path.glob("runs/*/eval/*.influence.safetensors"):
        file.unlink()
    assert not any("No interval" in note for note in
                   difference_table(read(several, tmp_path), BOTH).notes)  # fmt: skip


def test_a_figure_without_an_interval_stands_alone(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    metric = "recall.fashion-cnn"
    sweep = change(tmp_path, record, 4, 0.0, bare=("recall",))
    found = metric_table(sweep, [metric])
    assert texts(found, 3)[4:] == ["0.000", "0.001 [0.001, 0.001]"]
    assert found.notes[0].endswith(
        "held fixed). A figure without brackets has no interval: the samples give it none."
    )
    for cell in record["cells"]:
        for place in range(3):
            write_result(
                tmp_path, cell, cell["runs"][0], cell["measurements"][place], 0.0, bare=("recall",)
            )
    found = metric_table(read(record, tmp_path), [metric])
    assert set(texts(found, 3)[:5]) == {"0.000"}
    assert found.notes[0].startswith(
        "n = 1 seed: no spread between seeds is known. In brackets is the 95 % interval of the "
        "floor over the samples"
    )


def test_a_metric_that_could_not_be_computed_has_a_sign_and_its_reason(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    reason = "generated features hold 3 samples, at least 4 are needed"
    kinds = ("precision", "patch-fid")
    sweep = change(tmp_path, record, 4, 5.0, marks=dict.fromkeys(kinds, reason), without=kinds)
    found = metric_table(sweep, ["precision.fashion-cnn"])
    assert texts(found, 3)[4] == "– ‡"
    assert not texts(found, 3)[5].endswith("‡")
    assert found.notes[-1] == f"‡ Precision: {reason}."
    differences = difference_table(sweep, BOTH)
    assert texts(differences, 6)[3] == "– ‡"
    assert differences.notes[-1] == f"‡ patch FID: {reason}."


def test_counts_that_differ_between_columns_are_told(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    text = ABLATION.replace("evaluate: {", "evaluate: {samples: [80, 100], ")
    text = text.replace("resolution: [12, 18, 24]", "resolution: [12, 24]")
    record = grid(text=text)
    fill(record, tmp_path)
    sweep = read(record, tmp_path)
    sizes = "12×12 (1×), samples={0} · 24×24 (2×), samples={0}"
    assert metric_table(sweep, BOTH).notes[1:] == tuple(
        f"Figures of {n} generated images, against 20000 real ones: {sizes.format(n)}."
        for n in (80, 100)
    )
    assert metric_table(sweep, ["is.fashion-cnn"]).notes[1] == (
        f"Figures of 80 generated images: {sizes.format(80)}."
    )
