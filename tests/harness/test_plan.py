import json
import shutil
from pathlib import Path

import pytest

from harness import plan as plans
from harness.ablation import read_ablation
from harness.claim import claim
from harness.files import write_json
from harness.grid import expand
from harness.plan import Plan, make_plan, redo_stale
from harness.provenance import code_id
from harness.record import RunFolder, prepare


def planned(tiny: Path, outputs: Path) -> Plan:
    return make_plan(expand(read_ablation(tiny)), outputs)


def prepare_all(plan: Plan) -> None:
    for run in plan.runs:
        prepare(run.folder, run.training, run.group_id, run.seed, plan.grid.job, run.evaluations)


def finish(folder: RunFolder, eval_ids: list[str], code: str | None = None) -> None:
    code = code or code_id()
    folder.weights_file.write_bytes(b"weights")
    write_json(folder.done_file, {"code_ids": [code], "images": 1, "seconds": 1})
    for eval_id in eval_ids:
        write_json(folder.result_file(eval_id), {"code_id": code, "metrics": {"fid.x": 1.0}})


def test_a_plan_of_nothing_yet(tiny: Path, tmp_path: Path) -> None:
    plan = planned(tiny, tmp_path / "outputs")
    assert [(run.state, run.reason) for run in plan.runs] == [("new", "not yet trained")] * 2
    assert [len(run.evaluations) for run in plan.runs] == [3, 2]
    assert plan.trainings_without_sharing == 3
    assert plan.images_saved() == 640
    assert not (tmp_path / "outputs").exists()  # looking changes nothing


def test_the_states_and_their_reasons(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    prepare_all(planned(tiny, outputs))
    first, _ = planned(tiny, outputs).runs
    ids = list(first.evaluations)

    held = claim(first.folder)
    assert held is not None
    running = planned(tiny, outputs).runs[0]
    assert running.state == "running"
    assert "is at work on it" in running.reason

    held.end("failed", "NonFiniteLossError: at step 7")
    failed = planned(tiny, outputs).runs[0]
    assert (failed.state, failed.reason) == ("failed", "NonFiniteLossError: at step 7")

    held = claim(first.folder)
    assert held is not None
    held.end("interrupted", "stopped")
    assert "before its first checkpoint" in planned(tiny, outputs).runs[0].reason
    (first.folder.path / "checkpoints" / "step-00000040").mkdir(parents=True)
    assert "goes on from its checkpoint at step 40" in planned(tiny, outputs).runs[0].reason

    finish(first.folder, ids[:1])
    part = planned(tiny, outputs).runs[0]
    assert (part.state, part.reason) == ("new", "trained; 2 of 3 evaluations are missing")
    assert not part.has_results

    finish(first.folder, ids)
    done = planned(tiny, outputs).runs[0]
    assert done.state == "done"
    assert done.has_results
    assert planned(tiny, outputs).runs[1].state == "new"


def test_results_of_other_code_are_stale_and_redone_on_request(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    prepare_all(planned(tiny, outputs))
    first, second = planned(tiny, outputs).runs
    finish(first.folder, list(first.evaluations), code="0" * 16)
    finish(second.folder, list(second.evaluations))
    only = next(iter(second.evaluations))
    write_json(second.folder.result_file(only), {"code_id": "1" * 16, "metrics": {}})
    plan = planned(tiny, outputs)
    assert [run.state for run in plan.runs] == ["stale", "stale"]
    assert "0000000000000000" in plan.runs[0].reason
    assert all(run.has_results for run in plan.runs)
    moved = redo_stale(plan)
    assert len(moved) == 2
    assert all(path.exists() for path in moved)
    again = planned(tiny, outputs)
    assert [run.reason for run in again.runs] == [
        "not yet trained", "trained; 1 of 2 evaluations are missing",
    ]  # fmt: skip


def test_a_failed_evaluation_holds_back_nothing_else(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    prepare_all(planned(tiny, outputs))
    run = planned(tiny, outputs).runs[0]
    bad, *others = run.evaluations
    finish(run.folder, [])
    write_json(run.folder.failure_file(bad), {"error": "images hold values that are not finite"})
    part = planned(tiny, outputs).runs[0]
    assert part.state == "new"
    assert part.evaluation_states[bad][0] == "failed"
    finish(run.folder, others)
    failed = planned(tiny, outputs).runs[0]
    assert (failed.state, failed.reason) == ("failed", "images hold values that are not finite")
    assert not failed.has_results


def test_what_someone_is_at_work_on_is_not_moved_aside(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    prepare_all(planned(tiny, outputs))
    run = planned(tiny, outputs).runs[0]
    finish(run.folder, list(run.evaluations), code="0" * 16)
    held = claim(run.folder)
    assert held is not None
    assert redo_stale(planned(tiny, outputs)) == []
    held.end("done")
    (moved,) = redo_stale(planned(tiny, outputs))
    assert (moved / "spec.json").exists()
    assert planned(tiny, outputs).runs[0].state == "new"


def test_what_a_job_in_the_queue_holds_is_not_moved_aside(tiny: Path, tmp_path: Path) -> None:
    outputs, grid = tmp_path / "outputs", expand(read_ablation(tiny))
    prepare_all(planned(tiny, outputs))
    run = planned(tiny, outputs).runs[0]
    finish(run.folder, list(run.evaluations), code="0" * 16)
    queued = make_plan(grid, outputs, {run.run_id: "job 7 is pending"})
    assert queued.runs[0].state == "stale"
    assert redo_stale(queued) == []
    assert len(redo_stale(planned(tiny, outputs))) == 1


def test_the_plan_for_programs(tiny: Path, tmp_path: Path) -> None:
    found = json.loads(json.dumps(planned(tiny, tmp_path / "outputs").to_json()))
    assert found["cells"] == 3
    assert found["trainings_without_sharing"] == 3
    assert len(found["runs"]) == 2
    assert {"run_id", "state", "reason"} <= set(found["runs"][0])
    assert len(found["evaluations"]) == 5
    assert found["dropped"] == {}


def test_code_id_changes_with_what_a_run_executes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness import provenance

    copy = tmp_path / "project"
    for room in ("models", "harness"):
        shutil.copytree(provenance.ROOT / room, copy / room)
    monkeypatch.setattr(provenance, "ROOT", copy)
    original = provenance.code_id.__wrapped__()
    assert original == plans.code_id()
    (copy / "harness" / "sweep.py").write_text("# not executed by a run")
    assert provenance.code_id.__wrapped__() == original
    with (copy / "harness" / "sample.py").open("a") as file:
        file.write("\n# another line\n")
    assert provenance.code_id.__wrapped__() != original


def test_what_a_queue_says_of_runs(tiny: Path, tmp_path: Path) -> None:
    outputs, grid = tmp_path / "outputs", expand(read_ablation(tiny))
    prepare_all(planned(tiny, outputs))
    first, second = (run.run_id for run in planned(tiny, outputs).runs)
    plan = make_plan(grid, outputs, {first: "job 7_0 is pending"}, {second: "job 6 was lost"})
    assert [(run.state, run.reason) for run in plan.runs] == [
        ("queued", "job 7_0 is pending"), ("new", "not yet trained (job 6 was lost)"),
    ]  # fmt: skip
    assert [run.run_id for run in plan.startable(retry_failed=True)] == [second]

    held = claim(plan.runs[0].folder)
    assert held is not None
    running = make_plan(grid, outputs, {first: "job 7_0 is running on n1"}).runs[0]
    assert (running.state, running.reason) == ("running", "job 7_0 is running on n1")
    held.end("failed", "no")
    again = make_plan(grid, outputs, {first: "job 8 is pending"}).runs[0]
    assert again.state == "queued"  # it was submitted again on request
    finish(plan.runs[0].folder, list(plan.runs[0].evaluations))
    assert make_plan(grid, outputs, {first: "job 8 is completing"}).runs[0].state == "done"
