"""The command as users have it: the whole pipe, run twice, killed, stopped, failing, misused."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from harness.claim import last_attempt
from harness.record import RunFolder, run_folder
from tests.tiny import ROOT, command, figures, losses, wait_for

LONG = ("train.images=19200", "job.checkpoint_every=20")


def sweep(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return command("harness.sweep", *arguments, **environment)


def background(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.sweep", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd="/",
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with process:
        return process.stdout.read()


def runs(outputs: Path) -> list[RunFolder]:
    return [run_folder(outputs, path.name) for path in sorted((outputs / "runs").iterdir())]


def at_work_again(run: RunFolder) -> bool:
    attempt = last_attempt(run)
    return attempt is not None and attempt.number > 1 and "step" in attempt.data.get("progress", {})


def result(outputs: Path) -> dict[str, object]:
    """Everything that must not depend on what a sweep went through."""
    return {
        run.run_id: (losses(run), figures(run), run.weights_file.read_bytes())
        for run in runs(outputs)
    }


@pytest.mark.slow
def test_the_whole_pipe_by_ray_and_then_nothing_is_missing(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    first = sweep(tiny, "--outputs", outputs)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stderr == ""
    assert "3 cells x 1 seed: 2 trainings (2 new), 5 evaluations (0 done)" in first.stdout
    for noise in ("Ray", "DeepSpeed", "alembic", "WARN", "INFO", "pid="):
        assert noise not in first.stdout, first.stdout
    report = (outputs / "reports" / "tiny" / "report.md").read_text()
    assert "Does the tiny one run?" in report
    assert "RPE-2D" in report
    with sqlite3.connect(outputs / "mlflow.db") as database:
        (parents,) = database.execute(
            "select count(*) from tags where key = 'resolute.cell_id'"
        ).fetchone()
    assert parents >= 3

    before = {p: p.stat().st_mtime_ns for p in outputs.rglob("*") if p.is_file()}
    again = sweep(tiny, "--outputs", outputs)
    assert again.returncode == 0
    assert "2 trainings (2 done), 5 evaluations (5 done)" in again.stdout
    after = {p: p.stat().st_mtime_ns for p in outputs.rglob("*") if p.is_file()}
    assert {p.name for p in after if after[p] != before.get(p)} == {"tiny.json"}

    more = sweep(tiny, "--outputs", outputs, "--seeds", 2, "--dry-run", "--json")
    plan = json.loads(more.stdout)
    assert [run["state"] for run in plan["runs"]] == ["done", "new", "done", "new"]


@pytest.mark.slow
def test_a_killed_and_a_stopped_sweep_end_like_an_undisturbed_one(
    tiny: Path, tmp_path: Path
) -> None:
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    options = [*LONG, "--no-track", "--outputs"]
    done = sweep(tiny, "--launcher", "inline", *options, undisturbed)
    assert done.returncode == 0, done.stdout + done.stderr

    killed = background(tiny, *options, disturbed)
    wait_for(
        lambda: (disturbed / "runs").exists() and any(list(r.metrics()) for r in runs(disturbed))
    )
    killed.kill()
    said(killed)

    stopped = background(tiny, *options, disturbed)
    wait_for(lambda: any(at_work_again(run) for run in runs(disturbed)))
    stopped.send_signal(signal.SIGINT)
    text = said(stopped)
    assert stopped.returncode == 130, text
    assert "everything is kept. Go on with:" in text
    assert "Traceback" not in text
    ends = {str(a.data.get("outcome")) for run in runs(disturbed) if (a := last_attempt(run))}
    assert "interrupted" in ends  # by a checkpoint, not by a kill

    last = sweep(tiny, *options, disturbed)
    assert last.returncode == 0, last.stdout + last.stderr
    assert result(disturbed) == result(undisturbed)


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    options = (tiny, "--launcher", "inline", "--no-track", "--outputs", outputs)
    both = [background(*options), background(*options)]
    texts = [said(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    for run in runs(outputs):
        assert [step for step, _ in losses(run)] == list(range(2, 21, 2))
        assert len(list((run.path / "provenance").iterdir())) == 1  # one process did it


@pytest.mark.slow
def test_the_survivor_of_two_sweeps_takes_over(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    options = (tiny, "--launcher", "inline", "--no-track", "--only", "law=pi",
               "--outputs", outputs, "train.images=64000")  # fmt: skip
    first = background(*options)
    wait_for(lambda: (outputs / "runs").exists() and any(list(r.metrics()) for r in runs(outputs)))
    second = background(*options)
    (run,) = runs(outputs)
    wait_for(lambda: len(list(run.metrics())) >= 300)
    first.kill()
    said(first)
    text = said(second)
    assert second.returncode == 0, text
    assert len(list((run.path / "attempts").glob("[0-9]*.json"))) == 2


@pytest.mark.slow
def test_a_failed_run_is_named_with_its_log_and_retried_on_request(
    tiny: Path, tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    options = (tiny, "--launcher", "inline", "--no-track", "--outputs", outputs,
               "train.learning_rate=1e30", "train.gradient_clip=0",
               "--only", "randomized")  # fmt: skip
    failed = sweep(*options)
    assert failed.returncode == 1
    assert "failed" in failed.stdout
    assert "NonFiniteLossError: the loss was" in failed.stdout
    assert "--retry-failed" in failed.stdout
    (run,) = runs(outputs)
    assert len(list((run.path / "attempts").iterdir())) == 1

    left_alone = sweep(*options)
    assert left_alone.returncode == 1
    assert len(list((run.path / "attempts").iterdir())) == 1
    assert sweep(*options, "--retry-failed").returncode == 1
    assert len(list((run.path / "attempts").iterdir())) == 2


@pytest.mark.slow
def test_more_than_the_machine_has_is_refused(tiny: Path, tmp_path: Path) -> None:
    ended = sweep(tiny, "--no-track", "--outputs", tmp_path / "o", "job.cpus=4000")
    assert ended.returncode == 2
    assert "a run asks for job.cpus 4000" in ended.stderr
    away = sweep(tiny, "--no-track", "--outputs", tmp_path / "o", "--ray-address", "127.0.0.1:1")
    assert away.returncode == 2
    assert "cannot be reached" in away.stderr


def test_looking_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    for options in (["--dry-run"], ["--json"], ["--dry-run", "--redo-stale"]):
        ended = sweep(tiny, "--outputs", tmp_path / "outputs", *options)
        assert ended.returncode == 0, ended.stderr
        assert not (tmp_path / "outputs").exists()


def test_a_password_in_the_command_is_warned_of_and_not_shown(tiny: Path, tmp_path: Path) -> None:
    uri = "http://me:p4ss@127.0.0.1:9"
    options = (tiny, "--outputs", tmp_path / "o", "--dry-run")
    ended = sweep(*options, "--mlflow-uri", uri)
    assert ended.returncode == 0
    assert "the process list shows the password in --mlflow-uri" in ended.stderr
    assert "p4ss" not in ended.stdout + ended.stderr
    assert sweep(*options, RESOLUTE_MLFLOW_URI=uri).stderr == ""


@pytest.mark.parametrize("name", ["a?b", "a%41b"])
def test_outputs_that_mlflow_would_misread_are_refused_at_once(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    outputs = tmp_path / name / "outputs"
    for words in (("harness.sweep", tiny), ("harness.track", "sync"), ("harness.track", "rebuild")):
        ended = command(*words, "--outputs", outputs)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"{outputs}: MLflow cannot keep its database or samples")
        assert ended.stderr.count("\n") == 1
    assert not (tmp_path / name).exists()
    assert not (tmp_path / "a").exists()
    assert sweep(tiny, "--outputs", outputs, "--dry-run", "--no-track").returncode == 0
    server = {"RESOLUTE_MLFLOW_URI": "http://127.0.0.1:9"}  # keeps the samples itself
    assert sweep(tiny, "--outputs", outputs, "--dry-run", **server).returncode == 0


def test_a_plan_piped_into_head_is_no_error(tiny: Path, tmp_path: Path) -> None:
    sweeping = f"{sys.executable} -m harness.sweep {tiny} --outputs {tmp_path}/o --dry-run"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sweeping} --seeds 2000 | head -1"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_plan_of_only_some_cells(tiny: Path, tmp_path: Path) -> None:
    ended = sweep(tiny, "--outputs", tmp_path / "o", "--json", "--only", "law=pi")
    plan = json.loads(ended.stdout)
    assert plan["cells"] == 1
    assert len(plan["evaluations"]) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere.yaml"], "there is no such file"),
        (["{tiny}", "train.imags=3"], "did you mean 'train.images'"),
        (["{tiny}", "--only", "sinkos"], "matches none of the 3 cells"),
        (["{tiny}", "--seeds", "0"], "must be at least 1"),
        (["{tiny}", "--base", "none.yaml"], "there is no such file"),
        (["{tiny}", "--launcher", "slurmy"], "invalid choice"),
        (["{tiny}", "--dryrun"], "unrecognized arguments: --dryrun"),
    ],
)
def test_misuse_ends_with_status_2_and_a_message(
    tiny: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    given = [text.replace("{tiny}", str(tiny)) for text in arguments]
    ended = sweep(*given, "--outputs", tmp_path / "outputs")
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_missing_data_set_is_said_before_anything_starts(tiny: Path, tmp_path: Path) -> None:
    code = (
        "import sys, harness.fashion_mnist as d; from pathlib import Path\n"
        "d.PROJECT_FOLDER = d.DEBIAN_FOLDER = Path('/nowhere')\n"
        "from harness.sweep import main; sys.exit(main(sys.argv[1:]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tiny), "--outputs", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RESOLUTE_DATA": str(tmp_path)},
    )
    assert ended.returncode == 2
    assert "python -m harness.dataset" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_outputs_that_cannot_be_written_are_said(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = sweep(tiny, "--outputs", tmp_path / "file")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "file" in ended.stderr
