"""Where figures come from, compared whole with expected text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.load import read
from reports.origin import code_notes, machine_table, protocol_table
from reports.results import metric_table
from reports.tables import markdown
from tests.reports.small_sweep import CODE, OTHER_CODE, write_result, write_training

METRIC = "fid.fashion-cnn"

Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]


def test_protocols_tell_extractor_weights_counts_labels_and_crops(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][4]
    fewer = {"labels": "random", "sha256": "6" * 64, "patch": 8}
    write_result(tmp_path, cell, cell["runs"][0], cell["measurements"][2], 5.0, **fewer)
    found = protocol_table(read(record, tmp_path))
    assert found is not None
    assert (
        markdown(found)
        == """\
| protocol | column | extractor | its weights' sha256 | samples | labels | real images of FID (id) | of precision, recall ... (id) | patch side | evaluations |
|:---|:---|:---|:---|:---|:---|:---|:---|:---|:---|
| A | 12×12 (1×) | fashion-cnn | 5555555555555555 | 500 | balanced | 20000 (ref12) | 5000 (man12) | 6 px | 3 |
| B | 18×18 (1.5×) | fashion-cnn | 5555555555555555 | 500 | balanced | 20000 (ref18) | 5000 (man18) | 9 px | 5 |
| C | 24×24 (2×) | fashion-cnn | 5555555555555555 | 500 | balanced | 20000 (ref24) | 5000 (man24) | 12 px | 4 |
| D | 24×24 (2×) | fashion-cnn | 6666666666666666 | 500 | random | 20000 (ref24) | 5000 (man24) | 8 px | 1 |
"""  # noqa: E501
    )


def test_results_of_two_code_ids_are_marked(grid: Grid, fill: Fill, tmp_path: Path) -> None:
    record = grid()
    fill(record, tmp_path)
    cell = record["cells"][3]
    write_training(tmp_path, cell, cell["runs"][0], code=OTHER_CODE)
    sweep = read(record, tmp_path)
    names = [row[0].text for row in metric_table(sweep, [METRIC]).rows]
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
    assert not any("†" in row[0].text for row in metric_table(sweep, [METRIC]).rows)
    assert [note.partition(":")[0] for note in code_notes(sweep)] == [
        "Code that trained or measured",
        "Stale",
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
| abababababab | clean | cpu (EPYC), OPENBLAS_CORETYPE=Haswell | node1 | 3.11.2 | torch 2.14.0 | 3 |
"""
    )
