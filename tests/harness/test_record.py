import json
from pathlib import Path

import pytest

from harness.ablation import read_ablation
from harness.errors import UserError
from harness.files import FORMAT, read_json, write_json
from harness.grid import expand
from harness.record import RunFolder, archive, prepare, run_folder
from tests.tiny import Write


def prepared(tmp_path: Path, tiny: Path) -> RunFolder:
    grid = expand(read_ablation(tiny))
    cell = grid.cells[0]
    run = run_folder(tmp_path / "outputs", cell.runs[0][1])
    evaluations = {m.eval_id: m.evaluation for m in cell.measurements}
    prepare(run, cell.training, cell.group_id, 0, grid.job, evaluations)
    return run


def test_a_folder_is_prepared_once(tmp_path: Path, tiny: Path) -> None:
    run = prepared(tmp_path, tiny)
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*.json") if p.name != "job.json"}
    prepared(tmp_path, tiny)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(run.requests()) == 2
    assert run.spec()["seed"] == 0
    assert run.spec()["config"]["data"]["resolution"] == [8, 8]


def test_pictures_that_moved_are_read_where_they_are(tmp_path: Path, tiny: Path) -> None:
    run = prepared(tmp_path, tiny)
    spec = run.spec()
    moved = spec | {"config": spec["config"] | {"data": spec["config"]["data"] | {"folder": "old"}}}
    write_json(run.spec_file, moved)
    prepared(tmp_path, tiny)
    assert run.spec() == spec


def test_what_a_newer_version_wrote_is_refused(tmp_path: Path, tiny: Path) -> None:
    run = prepared(tmp_path, tiny)
    spec = run.spec() | {"format": FORMAT + 1}
    run.spec_file.write_text(json.dumps(spec))
    with pytest.raises(UserError, match="newer version"):
        prepared(tmp_path, tiny)


def test_a_damaged_record_is_said(tmp_path: Path, tiny: Path) -> None:
    run = prepared(tmp_path, tiny)
    run.spec_file.write_text('{"form')
    with pytest.raises(UserError, match="is damaged"):
        run.spec()
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "none.json")


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.metrics_file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in run.metrics()] == [1, 2]
    assert list(RunFolder(tmp_path / "none").metrics()) == []


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.log_tail() == []
    run.log_file.write_text("\n".join(f"line {i}" for i in range(9999)) + "\n\n")
    assert run.log_tail(2) == ["line 9997", "line 9998"]


def test_archiving_deletes_nothing(tmp_path: Path, tiny: Path, write: Write) -> None:
    run = prepared(tmp_path, tiny)
    eval_id = run.requests()[0]
    write_json(run.result_file(eval_id), {"value": 3})
    kept = archive(run, eval_id)
    assert read_json(kept) == {"value": 3}
    assert run.result(eval_id) is None
    run.snapshot_file(10).write_bytes(b"half of it")
    moved = [archive(prepared(tmp_path, tiny)) for _ in range(2)]
    assert all((path / "spec.json").exists() for path in moved)
    assert RunFolder(moved[0]).snapshot_file(10).read_bytes() == b"half of it"
    assert not run.exists()
