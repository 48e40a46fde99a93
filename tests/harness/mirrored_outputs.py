"""Made-up outputs for the tests of the mirror, and a process that mirrors and reads MLflow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.ablation import read_ablation
from harness.config import Job
from harness.files import Json, write_json
from harness.grid import expand, to_json
from harness.provenance import code_id
from harness.record import prepare, run_folder
from tests.tiny import ROOT

QUESTION = "Does it mirror?"
YAML = f"""
question: {QUESTION}
set:
  data.resolution: 12
  train.images: 640
axes:
  inference.law: [extrapolate, pi]
include: [{{model.encoding: sincos}}]
seeds: [0, 1]
evaluate: {{resolution: [12, 18, [18, 24]]}}
baseline: {{model.encoding: rope, inference.law: extrapolate}}
"""
T0 = 1_760_000_000.0
MARK = "40 samples for 448 dimensions"
PNG = b"\x89PNG not really"


def write_ablation(folder: Path, name: str = "small", text: str = YAML) -> Json:
    """Write the YAML and, under folder/outputs, its grid record and frozen run folders."""
    file = folder / f"{name}.yaml"
    file.write_text(text)
    grid = expand(read_ablation(file))
    record = to_json(grid)
    outputs = folder / "outputs"
    write_json(outputs / "ablations" / f"{name}.json", record)
    for cell in grid.cells:
        asked = {m.eval_id: m.evaluation for m in cell.measurements}
        for seed, run_id in cell.runs:
            prepare(run_folder(outputs, run_id), cell.training, cell.group_id, seed, Job(), asked)
    return record


def line(step: int, seed: int, **other: Any) -> str:
    values = {
        "step": step,
        "images": 64 * step,
        "flops": 10**9 * step,
        "resolution": [12, 12],
        "time": T0 + 10 * seed + step / 7,
        "loss": 1 / step + seed / 100,
        "learning_rate": 2e-3,
        "images_per_second": 100.0 + step,
    }
    return json.dumps(values | other) + "\n"


def train(
    folder: Path, run_id: str, seed: int, steps: range = range(1, 11), **other: float
) -> None:
    """An attempt and lines of metrics, as a run at work has them."""
    run = run_folder(folder / "outputs", run_id)
    facts = {"number": 1, "host": "elsewhere", "pid": 1, "pid_started": "1", "code_id": code_id()}
    if not (run.path / "attempts").exists():
        write_json(run.path / "attempts" / "0001.json", facts | {"started": T0 + 10 * seed})
        write_json(run.path / "provenance" / "0001.json", {"commit": "c0ffee", "diff": "+x"})
    with run.metrics_file.open("a") as file:
        file.writelines(line(step, seed, **other) for step in steps)


def finish(folder: Path, record: Json, run_id: str, seed: int, skip: tuple[str, ...] = ()) -> None:
    """DONE, and every evaluation that the ablation asks of the run."""
    run = run_folder(folder / "outputs", run_id)
    facts = json.loads((run.path / "attempts/0001.json").read_text())
    facts |= {"outcome": "done", "error": "", "ended": T0 + 100}
    write_json(run.path / "attempts" / "0001.json", facts)
    run.weights_file.write_bytes(b"weights")
    done = {"code_ids": [code_id()], "images": 640, "seconds": 90.0, "time": T0 + 90}
    write_json(run.done_file, done)
    for cell in record["cells"]:
        if {"seed": seed, "run_id": run_id} not in cell["runs"]:
            continue
        for m in cell["measurements"]:
            if m["eval_id"] not in skip and run.result(m["eval_id"]) is None:
                measure(folder, run_id, m["eval_id"], fid_of(m, seed), T0 + 95)


def fid_of(measurement: Json, seed: int) -> float:
    return sum(measurement["config"]["evaluate"]["resolution"]) + seed + 0.125


def measure(folder: Path, run_id: str, eval_id: str, fid: float, when: float) -> None:
    run = run_folder(folder / "outputs", run_id)
    run.samples_file(eval_id).parent.mkdir(exist_ok=True)
    run.samples_file(eval_id).write_bytes(PNG)
    result = {
        "metrics": {"fid.fashion-cnn": fid, "sfid.fashion-cnn": fid / 2},
        "intervals": {"fid.fashion-cnn": [fid - 0.25, fid + 0.25]},
        "marks": {"sfid.fashion-cnn": MARK},
        "protocol": {"upsampled": 0.5},
        "floor": {"fid.fashion-cnn": 1.5},
        "floor_intervals": {"fid.fashion-cnn": [1.25, 1.75]},
    }
    about = {"code_id": code_id(), "time": when, "samples_sha256": f"{fid}" * 8}
    write_json(run.result_file(eval_id), result | about)


def runs_of(record: Json) -> dict[str, int]:
    return {run["run_id"]: run["seed"] for cell in record["cells"] for run in cell["runs"]}


def whole(folder: Path, name: str = "small", text: str = YAML) -> Json:
    """An ablation with everything trained and measured."""
    record = write_ablation(folder, name, text)
    for run_id, seed in runs_of(record).items():
        train(folder, run_id, seed)
        finish(folder, record, run_id, seed)
    return record


SERVE = """
import contextlib, io, json, os, sys
from pathlib import Path
from harness.mirror import make_client
from harness.track import Mirror, main

def read(uri):
    client = make_client(uri)
    found = {}
    for experiment in client.search_experiments(filter_string="name != 'Default'"):
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        parents = {run.info.run_id: run.info.run_name for run in runs}
        for run in runs:
            tags = dict(run.data.tags)
            parent = tags.pop("mlflow.parentRunId", None)
            name = f"{parents.get(parent, '')}/{run.info.run_name}"
            folders = [file.path for file in client.list_artifacts(run.info.run_id)]
            inner = "samples" if "samples" in folders else None
            artifacts = [file.path for file in client.list_artifacts(run.info.run_id, inner)]
            history = {key: client.get_metric_history(run.info.run_id, key)
                       for key in run.data.metrics}
            assert (experiment.name, name) not in found
            found[f"{experiment.name} {name}"] = {
                "tags": tags, "params": run.data.params, "status": run.info.status,
                "times": [run.info.start_time, run.info.end_time], "artifacts": artifacts,
                "experiment": {key: value for key, value in experiment.tags.items()
                               if key not in ("resolute.outputs", "resolute.folder")},
                "metrics": {
                    key: sorted([m.step, m.value, m.timestamp] for m in points)
                    for key, points in history.items()},
            }
    return found

def opened(outputs):
    mirror, other, found = Mirror(Path(outputs)), Mirror(Path(outputs)), []
    assert mirror.sync() == other.sync() == []
    events = ("open", "sqlite3.connect", "os.listdir", "os.scandir")
    sys.addaudithook(lambda event, told: event in events and found.append(str(told[0])))
    assert mirror.sync() == []
    return [os.path.relpath(path, outputs) for path in found]

for request in sys.stdin:
    uri, arguments = json.loads(request)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        if uri == "opened":
            answer = opened(*arguments)
        else:
            answer = main(arguments) if arguments else read(uri)
    print(json.dumps([answer, said.getvalue()]), flush=True)
"""


class Server:
    """Runs commands and reads databases in one process: MLflow's import takes seconds."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, "-c", SERVE]
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]

    def ask(self, *request: Any) -> Any:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def sync(self, folder: Path) -> None:
        status, said = self.ask("", ["sync", "--outputs", str(folder / "outputs")])
        assert status == 0, said

    def opened(self, folder: Path) -> set[str]:
        """What a second pass opens and lists after that of another mirror, as relative paths."""
        found, _ = self.ask("opened", [str(folder / "outputs")])
        return set(found)

    def content(self, folder: Path, uri: str = "") -> dict[str, Any]:
        """What MLflow's own client reads, without its internal ids."""
        found, _ = self.ask(uri or f"sqlite:///{folder / 'outputs/mlflow.db'}", [])
        assert isinstance(found, dict)
        return found
