"""Early stopping by Ray Tune's scheduler, with the command as users have it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.ablation import read_ablation
from harness.files import read_json, write_json
from harness.grid import expand
from harness.launch import processes
from harness.launch.asha import BUDGET, FIGURE, scheduler
from harness.launch.processes import Work
from harness.plan import make_plan
from harness.record import RunFolder, run_folder
from harness.rungs import Rung
from tests.tiny import Write, command, figures, losses, prepared, weights

pytestmark = pytest.mark.slow

# One run at a time, whatever the machine has, the better one first.
STOPPING = f"""\
question: Which rate?
base: base.yaml
set: {{train.snapshots: [0.25], job.scheduler: asha, job.cpus: {os.cpu_count()}}}
axes: {{train.learning_rate: [2e-3, 1e-7]}}
seeds: [0]
evaluate: {{resolution: [8], after: [0.25, 1]}}
baseline: {{train.learning_rate: 2e-3}}
"""


def test_verdicts_are_written_and_the_baseline_is_never_stopped(tmp_path: Path) -> None:
    names = ["good", "bad", "baseline", "late"]
    ladders = {name: (Rung(0.25, 5, ("e",), name != "baseline"),) for name in names}
    runs = {name: run_folder(tmp_path, name) for name in names}

    def measured(name: str, value: float) -> None:
        write_json(runs[name].result_file("e"), {
            "code_id": "", "config": {"evaluate": {"resolution": [8, 8]}},
            "metrics": {"fid.a": value},
        })  # fmt: skip

    measured("good", 1.0)
    measured("bad", 2.0)  # and a kill came before its verdict
    asha = scheduler(ladders, {(name, 0) for name in names[1:]}, tmp_path)

    def judged(name: str, value: float) -> str:
        measured(name, value)
        trial = SimpleNamespace(trial_id=f"trial of {name}",
                                config={"work": {"run_dir": str(runs[name].path)}})  # fmt: skip
        asha.on_trial_add(None, trial)
        assert asha.on_trial_result(None, trial, {"status": 0}) == asha.CONTINUE
        decision = asha.on_trial_result(None, trial, {BUDGET: 1, FIGURE: value})
        verdict = read_json(runs[name].verdict_file(5))
        assert verdict["stops"] == (decision == asha.STOP) == runs[name].stopped_file.exists()
        return str(decision)

    assert judged("bad", 2.0) == asha.STOP
    assert judged("baseline", 3.0) == asha.CONTINUE
    assert judged("late", 0.5) == asha.CONTINUE
    assert read_json(runs["bad"].stopped_file)["against"] == ["good"]


def everything(run: RunFolder) -> object:
    return losses(run), figures(run), weights(run)


def test_the_worse_run_stops_at_the_rung_and_goes_on_when_asked(
    write: Write, tmp_path: Path
) -> None:
    outputs, path = tmp_path / "outputs", write("stop.yaml", STOPPING)
    options = (path, "--no-track", "--outputs", outputs)
    first = command("harness.sweep", *options)
    assert first.returncode == 0, first.stdout + first.stderr
    plan = make_plan(expand(read_ablation(path)), outputs).to_json()
    good, bad = plan["runs"]
    assert (good["state"], bad["state"]) == ("done", "stopped")
    why = "stopped early, after 25 % of the training: fid.fashion-cnn"
    assert bad["reason"].startswith(why)
    assert bad["reason"].endswith("is number 2 of 2 runs so far")
    assert [e["state"] for e in plan["evaluations"]] == ["done", "done", "done", "stopped"]
    stopped = run_folder(outputs, bad["run_id"])
    assert stopped.done() is None
    assert stopped.stopped_file.exists()
    report = (outputs / "reports" / "stop" / "report.md").read_text()
    assert "| stopped |" in report
    assert "Stopped: early stopping ended a run of the row" in report

    again = command("harness.sweep", *options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "(1 done, 1 stopped)" in again.stdout
    assert why in again.stdout

    # Without early stopping the same folder goes on, to what an undisturbed run gets.
    onward = (path, "--no-track", "--launcher", "inline", "job.scheduler=none", "--outputs")
    assert command("harness.sweep", *onward, outputs).returncode == 0
    assert not stopped.stopped_file.exists()
    whole = prepared(tmp_path / "undisturbed", path, cell=1)
    assert processes.wait(processes.start(Work(whole.path), 1, os.cpu_count() or 1)) == 0
    assert everything(run_folder(outputs, bad["run_id"])) == everything(whole)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--until", "0.3"], "--until 0.3: must be one of the run's train.snapshots, one of 0.25"),
        (["{last}", "--until", "0.25"], "{last}: is of after 0.25 of the training"),
    ],
)
def test_a_run_goes_until_one_of_its_snapshots(
    write: Write, tmp_path: Path, arguments: list[str], told: str
) -> None:
    run = prepared(tmp_path / "outputs", write("stop.yaml", STOPPING))
    asked = [read_json(run.request_file(e))["config"]["evaluate"]["after"] for e in run.requests()]
    last = dict(zip(asked, run.requests(), strict=True))[1]
    given = [text.replace("{last}", last) for text in arguments]
    ended = command("harness.run", run.path, *given)
    assert ended.returncode == 2
    assert told.replace("{last}", last) in ended.stderr
    assert "Traceback" not in ended.stderr
