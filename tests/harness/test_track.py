"""The mirror in MLflow, against the real MLflow on sqlite, in processes of their own.

MLflow is not imported here: its import raises warnings of other packages, which are errors in these
tests. What it stored is read with its client by `Server`, and from the tables themselves.
"""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.files import write_json
from harness.provenance import code_id
from harness.record import run_folder
from harness.track import ablation_names, ui_command
from tests.harness.mirrored_outputs import (
    MARK,
    QUESTION,
    T0,
    YAML,
    Server,
    finish,
    line,
    measure,
    runs_of,
    train,
    whole,
    write_ablation,
)
from tests.tiny import ROOT, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database as the mirror makes it; MLflow's migrations take many seconds."""
    database = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    code = "import sys, pathlib, harness.mirror as m; m.create_database(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(database)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [file.name for file in database.parent.iterdir()] == ["mlflow.db"]
    return database


@pytest.fixture
def folder(tmp_path: Path, migrated: Path) -> Path:
    (tmp_path / "outputs").mkdir()
    shutil.copy(migrated, tmp_path / "outputs/mlflow.db")
    return tmp_path


def track(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


STARTED: list[subprocess.Popen[str]] = []


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command, *rest = arguments
    outputs = ["--outputs", str(folder / "outputs")]
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.track", command, *outputs, *rest],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    STARTED.append(process)
    return process


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def rows(folder: Path, table: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "outputs/mlflow.db") as database:
        found = database.execute(f"SELECT * FROM {table} ").fetchall()
    database.close()
    return sorted(found, key=str)


TABLES = ("experiments", "experiment_tags", "runs", "params", "tags", "metrics", "latest_metrics")


def everything(folder: Path) -> dict[str, Any]:
    """All tables, and the artifacts with the times of their last change."""
    kept = sorted((folder / "outputs/mlartifacts").rglob("*"))
    files = {str(file): file.stat().st_mtime_ns for file in kept}
    return {"files": files} | {table: rows(folder, table) for table in TABLES}


def test_everything_arrives_once_and_a_rebuild_has_the_same_content(
    folder: Path, server: Server
) -> None:
    record = whole(folder)
    (folder / "outputs/reports/small").mkdir(parents=True)
    (folder / "outputs/reports/small/report.md").write_text("# small")
    server.sync(folder)
    after_first = everything(folder)
    server.sync(folder)
    assert everything(folder) == after_first  # again: not a row, not a file

    found = server.content(folder)
    cells = {cell["label"].split(".")[-1]: cell for cell in record["cells"]}
    children = {f"small {label}/seed {seed}" for label in cells for seed in (0, 1)}
    assert set(found) == children | {f"small /{label}" for label in cells} | {"small /report"}
    assert found["small /report"]["artifacts"] == ["report.md"]

    child = found["small law=pi/seed 1"]
    assert child["experiment"]["mlflow.note.content"] == QUESTION
    assert child["status"] == "FINISHED"
    assert child["times"] == [(T0 + 10) * 1000, (T0 + 95) * 1000]
    assert child["params"]["inference.law"] == "pi"
    assert child["tags"]["resolute.cell"] == "inference.law=pi"
    assert child["params"]["data.resolution"] == "12"
    assert child["params"]["train.betas"] == "[0.9, 0.99]"
    assert child["params"]["seed"] == "1"
    assert child["tags"]["resolute.state"] == "done"
    assert child["tags"]["resolute.code_id"] == code_id()
    assert child["tags"]["resolute.commit"] == "c0ffee with uncommitted changes"
    assert child["tags"]["resolute.run_id"] == cells["law=pi"]["runs"][1]["run_id"]
    expected = [json.loads(line(step, 1)) for step in range(1, 11)]
    for key in ("loss", "learning_rate", "images_per_second"):
        points = [[e["step"], e[key], round(e["time"] * 1000)] for e in expected]
        assert child["metrics"][key] == points
    assert child["metrics"]["fid.fashion-cnn/18"] == [[0, 37.125, (T0 + 95) * 1000]]
    assert child["metrics"]["fid.fashion-cnn/18x24"] == [[0, 43.125, (T0 + 95) * 1000]]
    assert child["metrics"]["floor.fid.fashion-cnn/12"] == [[0, 1.5, (T0 + 95) * 1000]]
    assert child["metrics"]["ci95.fid.fashion-cnn/18"] == [[0, 0.25, (T0 + 95) * 1000]]
    assert not [name for name in child["metrics"] if name.startswith("ci95.floor")]
    marked = [f"sfid.fashion-cnn/{size}: {MARK}" for size in ("12", "18", "18x24")]
    assert child["tags"]["resolute.marked"] == "; ".join(marked)
    upsampled = "; ".join(f"{size}: reference 50 % upsampled" for size in ("12", "18", "18x24"))
    assert child["tags"]["resolute.upsampled"] == upsampled
    assert found["small /law=pi"]["tags"]["resolute.upsampled"] == upsampled
    assert "step" not in child["metrics"]
    assert child["artifacts"] == ["samples/12.png", "samples/18.png", "samples/18x24.png"]

    parent = found["small /law=pi"]
    assert parent["metrics"]["fid.fashion-cnn/18"] == [[0, 36.625, (T0 + 95) * 1000]]
    assert parent["metrics"]["ci95.fid.fashion-cnn/18"] == [[0, 0.25, (T0 + 95) * 1000]]
    assert parent["tags"]["resolute.cell_id"] == cells["law=pi"]["cell_id"]
    assert parent["tags"]["resolute.seeds"] == "2 of 2"
    baselines = [n for n, run in found.items() if run["tags"].get("resolute.baseline") == "yes"]
    assert baselines == ["small /law=extrapolate"]

    rebuilt = track(folder, "rebuild")
    assert (rebuilt.returncode, rebuilt.stderr) == (0, "")  # not a word of MLflow's
    assert rebuilt.stdout.startswith("small: up to date; ")
    assert rebuilt.stdout.count("\n") == 1
    assert server.content(folder) == found
    old = set(after_first["files"])
    now = set(everything(folder)["files"])
    assert len(now) == len(old)  # the artifacts of the old runs are gone
    assert not list((folder / "outputs").glob("mlflow.db?*"))


def test_the_mirror_grows_with_a_run(folder: Path, server: Server) -> None:
    record = write_ablation(folder)
    cell = record["cells"][0]
    run_id = cell["runs"][0]["run_id"]  # shared with the cell of the other law
    run = run_folder(folder / "outputs", run_id)
    last = cell["measurements"][-1]["eval_id"]

    def loss_steps() -> list[int]:
        with sqlite3.connect(folder / "outputs/mlflow.db") as database:
            found = database.execute("SELECT step FROM metrics WHERE key = 'loss' ORDER BY step")
            steps = [step for (step,) in found]
        database.close()
        return steps

    server.sync(folder)
    assert rows(folder, "runs") == []  # nothing was begun

    train(folder, run_id, 0, range(1, 4))
    with run.metrics_file.open("a") as file:
        file.write(line(4, 0)[:30])  # cut short, as by a kill
    server.sync(folder)
    assert loss_steps() == [1, 1, 2, 2, 3, 3]  # once for each of the two cells
    assert server.content(folder)["small law=pi/seed 0"]["status"] == "RUNNING"

    # It is resumed from step 2, does step 3 again, and its gradients explode once.
    run.metrics_file.write_text(
        line(1, 0) + line(2, 0) + line(3, 0, time=T0 + 50) + line(4, 0, gradient_norm=float("inf"))
    )
    train(folder, run_id, 0, range(5, 11))
    finish(folder, record, run_id, 0, skip=(last,))
    server.sync(folder)
    assert loss_steps() == sorted([*range(1, 11)] * 2)
    found = server.content(folder)
    child = found["small law=extrapolate/seed 0"]
    assert child["status"] == "SCHEDULED"  # trained, and an evaluation is missing
    assert "gradient_norm" not in child["metrics"]
    assert child["tags"]["resolute.not_finite"] == "gradient_norm (1x)"
    parent = found["small /law=extrapolate"]
    assert parent["tags"]["resolute.seeds"] == "0 of 2"
    assert "fid.fashion-cnn/12" not in parent["metrics"]  # the other seed is missing

    # An evaluation is measured anew: the newer value is the one that shows.
    eval_id = cell["measurements"][0]["eval_id"]
    measure(folder, run_id, eval_id, 7.5, T0 + 200)
    # The folder of the other seed is archived and begun anew, after it was mirrored.
    other = cell["runs"][1]["run_id"]
    train(folder, other, 1)
    server.sync(folder)
    shutil.rmtree(run_folder(folder / "outputs", other).path)
    write_ablation(folder)
    train(folder, other, 5, range(1, 3))
    server.sync(folder)
    found = server.content(folder)
    child = found["small law=extrapolate/seed 0"]
    assert child["metrics"]["fid.fashion-cnn/12"][0][1] == 7.5
    child = found["small law=extrapolate/seed 1"]
    assert child["times"][0] == (T0 + 50) * 1000
    assert [value for _, value, _ in child["metrics"]["loss"]] == [1.05, 0.55]
    before = everything(folder)
    server.sync(folder)
    assert everything(folder) == before


def test_processes_take_turns_and_a_run_made_twice_is_deleted_once(
    folder: Path, server: Server
) -> None:
    record = whole(folder)
    whole(folder, "other", YAML.replace("640", "1280"))
    writers = [start(folder, "sync", "small", "other"), start(folder, "sync", "other", "small")]
    for writer in writers:
        assert writer.communicate(timeout=60)[1] == ""
        assert writer.returncode == 0
    runs = 3 * len(record["cells"])
    assert len(rows(folder, "runs")) == 2 * runs
    assert len(rows(folder, "experiments")) == 3  # and MLflow's own 'Default'

    # Where a lock does not reach the other host, both may have made the same run.
    before = server.content(folder)
    columns = "name, source_type, source_name, entry_point_name, user_id, status, start_time, " \
        "end_time, source_version, lifecycle_stage, artifact_uri, experiment_id"  # fmt: skip
    with sqlite3.connect(folder / "outputs/mlflow.db") as database:
        twin = (
            f"INSERT INTO runs (run_uuid, {columns}) SELECT 'f' || substr(run_uuid, 2), {columns}"
        )
        database.execute(f"{twin} FROM runs WHERE name LIKE 'seed%' AND run_uuid NOT LIKE 'f%'")
        database.execute("INSERT INTO tags (key, value, run_uuid) SELECT key, value, 'f' || "
                         "substr(run_uuid, 2) FROM tags JOIN runs USING (run_uuid) "
                         "WHERE name LIKE 'seed%' AND run_uuid NOT LIKE 'f%'")  # fmt: skip
        made = database.execute("SELECT count(*) FROM runs").fetchone()[0] - 2 * runs
    database.close()
    assert made > runs / 2
    (folder / "outputs/mlflow.lock").write_text("{}")  # each sees that the other has written
    server.sync(folder)
    assert server.content(folder) == before
    stages = [row for row in rows(folder, "runs") if "deleted" in row]
    assert len(stages) == made


def test_two_folders_in_one_store_leave_each_other_alone(tmp_path: Path, server: Server) -> None:
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    ours, theirs = (tmp_path / name for name in ("ours", "theirs"))
    for folder, began in ((ours, 0), (theirs, 3)):  # the same runs, made by each for itself
        folder.mkdir()
        record = write_ablation(folder)
        for run_id, seed in runs_of(record).items():
            train(folder, run_id, seed + began)
            finish(folder, record, run_id, seed)
    for folder in (ours, theirs, ours, theirs):
        done = track(folder, "sync", "--mlflow-uri", shared)
        assert done.returncode == 0, done.stderr
    found = server.content(tmp_path, shared)
    name = f"small ({(theirs / 'outputs/mlflow.id').read_text()})"
    runs = [run.removeprefix("small ") for run in found if run.startswith("small /")]
    assert len(found) == 2 * 3 * len(record["cells"])
    assert {f"{name} {run}" for run in runs} < set(found)
    for folder in (ours, theirs):
        kept = list((folder / "outputs/mlartifacts").rglob("*.png"))
        assert len(kept) == 3 * 2 * len(record["cells"])

    # The folder's own database is another store: to make it anew leaves this one's samples.
    (ours / "outputs/mlartifacts/by hand").write_text("")
    server.sync(ours)
    assert track(ours, "rebuild").returncode == 0
    assert server.content(tmp_path, shared) == found
    assert len([*(ours / "outputs/mlartifacts").rglob("*.png")]) == 2 * len(kept)


def test_another_grid_leaves_what_a_rebuild_would_make(folder: Path, server: Server) -> None:
    whole(folder)
    server.sync(folder)
    first = server.content(folder)
    whole(folder, text=YAML.replace("[12, 18, [18, 24]]", "[12, 24]").replace(", pi]", "]"))
    (folder / "outputs/ablations/broken.json").write_text("{")  # which holds up no other
    done = track(folder, "sync")
    assert done.returncode == 1
    assert "broken.json: is damaged" in done.stderr
    (folder / "outputs/ablations/broken.json").unlink()
    second = server.content(folder)
    assert not {*first} <= {*second}
    assert "fid.fashion-cnn/24" in second["small /law=extrapolate"]["metrics"]
    assert track(folder, "rebuild").returncode == 0
    assert server.content(folder) == second
    whole(folder)
    server.sync(folder)
    assert server.content(folder) == first

    # Of one seed more the mean is not known yet, and the one of two is none.
    record = write_ablation(folder, text=YAML.replace("[0, 1]", "[0, 1, 2]"))
    train(folder, record["cells"][0]["runs"][2]["run_id"], 2)
    server.sync(folder)
    third = server.content(folder)
    assert third["small /law=pi"]["metrics"] == {}
    assert third["small /law=pi"]["tags"]["resolute.seeds"] == "2 of 3"
    assert track(folder, "rebuild").returncode == 0
    assert server.content(folder) == third


def test_a_renamed_experiment_and_more_columns_than_a_tag_can_hold(
    folder: Path, server: Server
) -> None:
    sizes = [[height, width] for height in range(12, 32, 2) for width in range(12, 32, 2)]
    columns = f"{{resolution: {sizes}, samples: [40, 50]}}"
    whole(folder, text=YAML.replace("[0, 1]", "[0]").replace(
        "{resolution: [12, 18, [18, 24]]}", columns))  # fmt: skip
    server.sync(folder)
    with sqlite3.connect(folder / "outputs/mlflow.db") as database:
        database.execute("UPDATE experiments SET name = 'ours' WHERE name = 'small'")
    database.close()
    before = everything(folder)
    assert len(before["files"]) > 200
    server.sync(folder)
    assert everything(folder) == before


def test_where_a_run_is_and_how_it_ended(folder: Path, server: Server) -> None:
    """A preempted run and one that early stopping ended; no result is made up of either."""
    record = write_ablation(folder)
    cell = next(cell for cell in record["cells"] if "sincos" in cell["label"])
    for run in cell["runs"]:
        train(folder, run["run_id"], run["seed"])
    preempted, stopped = (run_folder(folder / "outputs", run["run_id"]) for run in cell["runs"])
    first = json.loads((preempted.path / "attempts/0001.json").read_text())
    first |= {"outcome": "interrupted", "ended": T0 + 50, "error": "preempted by others"}
    first |= {"cause": "preempted", "job": "123_4", "restart": 1, "nodes": ["node1", "node2"]}
    write_json(preempted.path / "attempts/0001.json", first)
    before, final = (cell["measurements"][n]["eval_id"] for n in (0, 1))
    for run in (preempted, stopped):
        measure(folder, run.run_id, before, 9.0, T0 + 60)
    measure(folder, preempted.run_id, final, 8.0, T0 + 60)
    why = {"after": 0.25, "metric": "fid.fashion-cnn", "value": 9.0, "place": 2, "of": 2}
    write_json(stopped.stopped_file, why)
    ended = json.loads((stopped.path / "attempts/0001.json").read_text())
    ended |= {"outcome": "interrupted", "ended": T0 + 70}
    write_json(stopped.path / "attempts/0001.json", ended)
    server.sync(folder)
    found = server.content(folder)
    one, other = (found[f"small encoding=sincos/seed {seed}"] for seed in (0, 1))
    assert (one["status"], other["status"]) == ("KILLED", "KILLED")
    assert one["tags"]["resolute.job"] == "123_4"
    assert one["tags"]["resolute.nodes"] == "node1 node2"
    assert one["tags"]["resolute.cause"] == "preempted"
    assert other["tags"]["resolute.state"] == "stopped"
    assert "after 25 % of the training" in other["tags"]["resolute.reason"]
    parent = found["small /encoding=sincos"]
    assert parent["status"] == "KILLED"
    assert parent["tags"]["resolute.seeds"] == "0 of 2"
    assert {name.partition("/")[2] for name in parent["metrics"]} == {"12"}  # what both have

    # The next attempt is at work elsewhere, and what ended the last is no news of it.
    facts = {key: first[key] for key in ("host", "pid", "pid_started", "code_id")}
    again = facts | {"number": 2, "started": time.time(), "nodes": ["node3"]}
    write_json(preempted.path / "attempts/0002.json", again)
    server.sync(folder)
    one = server.content(folder)["small encoding=sincos/seed 0"]
    assert one["status"] == "RUNNING"
    assert one["tags"]["resolute.nodes"] == "node3"
    assert one["tags"]["resolute.cause"] == one["tags"]["resolute.job"] == ""


def test_follow_keeps_up_and_ends_with_a_last_pass(folder: Path) -> None:
    record = write_ablation(folder)
    run_id = record["cells"][0]["runs"][0]["run_id"]
    train(folder, run_id, 0, range(1, 3))
    parent = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys, os\n"
         "env = os.environ | {'RESOLUTE_PARENT': str(os.getpid())}\n"
         "subprocess.Popen([sys.executable, '-m', 'harness.track', *sys.argv[1:]], env=env)\n"
         "input()", "follow", "--outputs", str(folder / "outputs"), "small"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    follower = start(folder, "follow", "small")
    wait_for(lambda: len(rows(folder, "metrics")) == 2 * 2 * 3)

    # The experiment is deleted by hand while two processes follow it: it comes back, once.
    with sqlite3.connect(folder / "outputs/mlflow.db", timeout=30) as database:
        database.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'small'")
        database.execute("UPDATE runs SET lifecycle_stage = 'deleted'")
    database.close()
    train(folder, run_id, 0, range(3, 5))
    wait_for(lambda: len(rows(folder, "metrics")) == 2 * 4 * 3)
    assert len(rows(folder, "runs")) == 4
    assert "deleted" not in str(rows(folder, "runs"))

    train(folder, run_id, 0, range(5, 7))
    follower.send_signal(signal.SIGTERM)
    _, said = follower.communicate(timeout=30)
    assert follower.returncode == 0
    assert said.count("\n") <= 2, said  # that the runs were deleted, and that all is well again
    assert len(rows(folder, "metrics")) == 2 * 6 * 3
    train(folder, run_id, 0, range(7, 9))
    out, _ = parent.communicate(b"\n", timeout=30)  # ends at once; its child after a last pass
    assert b"Traceback" not in out
    wait_for(lambda: len(rows(folder, "metrics")) == 2 * 8 * 3)


def test_a_store_that_cannot_be_written_is_one_plain_line(folder: Path) -> None:
    whole(folder)
    nowhere = start(folder, "sync", "small", "--mlflow-uri", "sqlite:////proc/nowhere/mlflow.db")
    away = start(folder, "sync", "small", "--mlflow-uri", "http://me@127.0.0.1:9")
    out, said = nowhere.communicate(timeout=60)
    assert (nowhere.returncode, out) == (1, "")
    assert said.startswith("MLflow mirror: /proc/nowhere")
    assert said.count("\n") == 1
    out, said = away.communicate(timeout=60)
    assert (away.returncode, out) == (1, "")
    assert said == "MLflow mirror: no MLflow answers at http://127.0.0.1:9\n"

    record = json.loads((folder / "outputs/ablations/small.json").read_text())
    damaged = run_folder(folder / "outputs", record["cells"][-1]["runs"][0]["run_id"])
    damaged.metrics_file.write_text("not json\n")
    following = start(folder, "follow", "small")
    wait_for(lambda: len(rows(folder, "runs")) >= 7)
    time.sleep(3)  # passes that find the same thing say nothing
    following.terminate()
    _, said = following.communicate(timeout=30)
    assert following.returncode == 1  # not all is mirrored
    told = f"{damaged.metrics_file}: is damaged (a line is not JSON); remove that line"
    assert said == f"MLflow mirror: {told}\n"


def test_a_name_that_was_never_swept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ablation was swept into this folder"):
        ablation_names(tmp_path / "outputs", [])
    write_ablation(tmp_path)
    assert ablation_names(tmp_path / "outputs", []) == ["small"]
    done = track(tmp_path, "follow", "smal")
    assert done.returncode == 2
    assert "did you mean 'small'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_imports_no_mlflow(tmp_path: Path) -> None:
    code = "import sys, harness.track; print({'torch', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n"
    assert track(tmp_path, "sync", "--help").stdout.startswith("usage: python -m harness.track")


def test_the_command_for_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = "--backend-store-uri sqlite:///outputs/mlflow.db"
    assert ui_command(Path("outputs")).endswith(f"mlflow ui {uri} --host 127.0.0.1 --port 5000")
    assert "sqlite:////else where" in ui_command(Path("/else where"))
