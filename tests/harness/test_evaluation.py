"""Evaluations in real processes: killed, shared by ranks, other labels, others' evaluators."""

import os
import signal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save as save_tensors

from harness.ema import set_damaged_weights_aside
from harness.engine import World
from harness.errors import UserError
from harness.evaluation import image_grid, load_model
from harness.export import task_of
from harness.files import Json, checksum, write_json
from harness.launch import processes
from harness.launch.processes import Work
from harness.record import RunFolder
from harness.run import DONE
from harness.train import make_model
from tests.tiny import ABLATION, BASE, command, figures, prepared, wait_for

ONE_SIZE = ABLATION.replace("resolution: [8, 12]", "resolution: [12]")
HALFWAY = ONE_SIZE + "set: {train.snapshots: [0.5], evaluate.after: 0.5}\n"
MANY = ("evaluate.samples=400", "job.sample_batch=10", "job.keep=features", "inference.steps=20")


def finish(run: RunFolder, ranks: int = 1) -> None:
    status = processes.wait(processes.start(Work(run.path), ranks, cpus=ranks))
    assert status == DONE, run.log_tail(30)


def run_of(folder: Path, *changes: str, text: str = ONE_SIZE) -> RunFolder:
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(BASE)
    (folder / "tiny.yaml").write_text(text)
    return prepared(folder, folder / "tiny.yaml", *changes)


def only_result(run: RunFolder) -> dict[str, Any]:
    (eval_id,) = run.requests()
    result = run.result(eval_id)
    assert result is not None
    return result


def opened(picture: Path) -> np.ndarray:
    with Image.open(picture) as file:
        return np.asarray(file)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An evaluation of 400 samples that nothing happened to."""
    run = run_of(tmp_path_factory.mktemp("undisturbed"), *MANY)
    finish(run)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_evaluation_goes_on_where_it_was(
    tmp_path: Path, undisturbed: RunFolder, how: signal.Signals
) -> None:
    run = run_of(tmp_path, *MANY)
    folder = run.shards_folder(run.requests()[0])
    (process,) = processes.start(Work(run.path), 1, 1)
    wait_for(lambda: len(list(folder.glob("*.safetensors"))) >= 12)
    process.send_signal(how)
    process.wait(60)
    kept = {file.name: file.stat().st_mtime_ns for file in folder.glob("[0-9]*.safetensors")}
    assert 12 <= len(kept) < 40
    finish(run, ranks=2 if how == signal.SIGTERM else 1)
    after = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.safetensors")}
    assert len(after) == 40
    assert {name: after[name] for name in kept} == kept
    assert figures(run) == figures(undisturbed)


@pytest.mark.slow
def test_an_evaluation_leaves_its_figures_and_where_they_come_from(undisturbed: RunFolder) -> None:
    result = only_result(undisturbed)
    kinds = ("fid", "patch-fid", "sfid", "is", "precision", "recall", "density", "coverage", "kid")
    assert set(result["metrics"]) == {f"{kind}.fashion-cnn" for kind in kinds}
    for name, value in result["metrics"].items():
        low, high = result["intervals"][name]
        assert low <= value <= high, name
        assert low < high, name
    assert set(result["floor"]) == set(result["floor_intervals"]) == set(result["metrics"])
    for kind in ("fid", "patch-fid", "sfid", "kid"):
        assert result["floor"][f"{kind}.fashion-cnn"] < result["metrics"][f"{kind}.fashion-cnn"]
    assert result["marks"] == {
        "sfid.fashion-cnn": result["marks"]["sfid.fashion-cnn"]
    }  # 400 samples, 448 dimensions
    assert "449" in result["marks"]["sfid.fashion-cnn"]
    assert result["protocol"]["labels"] == "balanced"
    assert result["protocol"]["upsampled"] == 0
    assert result["protocol"]["extractors"]["fashion-cnn"]["patch"] == 6
    (eval_id,) = undisturbed.requests()
    influence = load_file(undisturbed.influence_file(eval_id))
    assert set(influence) == set(result["metrics"])
    assert all(values.shape == (400,) for values in influence.values())
    assert opened(undisturbed.samples_file(eval_id)).shape == (4 * 13 - 1, 10 * 13 - 1)


@pytest.mark.slow
def test_references_and_floors_are_made_once_and_shards_go(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    finish(run)
    assert not (run.path / "features").exists()
    cache = tmp_path / "cache"
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}
    assert len(before) == 2
    other = run_of(tmp_path, "model.encoding=sincos", "inference.law=extrapolate")
    finish(other)
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()} == before
    assert only_result(other)["floor"] == only_result(run)["floor"]


@pytest.mark.slow
def test_random_labels_and_infinite_samples(tmp_path: Path, undisturbed: RunFolder) -> None:
    run = run_of(tmp_path, *MANY, "evaluate.labels=random", "evaluate.fid_infinity=true")
    result = only_result(undisturbed)
    finish(run)
    random = only_result(run)
    assert random["protocol"]["labels"] == "random"
    assert random["samples_sha256"] != result["samples_sha256"]
    low, high = random["intervals"]["fid-infinity.fashion-cnn"]
    assert low < random["metrics"]["fid-infinity.fashion-cnn"] < high
    assert random["floor"]["fid-infinity.fashion-cnn"] < random["floor"]["fid.fashion-cnn"]


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["nothing", "images"])
def test_exported_images_are_the_measured_ones(tmp_path: Path, keep: str) -> None:
    halfway = keep == "nothing"  # then they are generated again, from the weights of then
    text = HALFWAY if halfway else ONE_SIZE
    run = run_of(tmp_path, "evaluate.samples=60", f"job.keep={keep}", text=text)
    finish(run)
    assert only_result(run)["training"]["images"] == (320 if halfway else 640)
    (eval_id,) = run.requests()
    ended = command("harness.export", run.path, eval_id, "--npz", tmp_path / "a.npz")
    assert (ended.returncode, ended.stderr) == (0, "")
    images = np.load(tmp_path / "a.npz")["arr_0"]
    assert images.shape == (60, 12, 12, 3)
    assert images.dtype == np.uint8
    ended = command("harness.export", run.path, eval_id, "--png", tmp_path / "png")
    assert (ended.returncode, ended.stderr) == (0, "")
    files = sorted((tmp_path / "png").iterdir())
    assert len(files) == 60
    assert np.array_equal(opened(files[33]), images[33, :, :, 0])
    grid = opened(run.samples_file(eval_id))
    assert np.array_equal(grid[13:25, 13:25], images[11, :, :, 0])


@pytest.mark.slow
def test_bad_exports_say_what_to_do(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    (eval_id,) = run.requests()
    cases = {
        (tmp_path, eval_id): "is no run folder",
        (run.path, eval_id[:-1]): f"did you mean '{eval_id}'",
        (run.path, eval_id): "its training is not finished",
    }
    for (folder, asked), told in cases.items():
        ended = command("harness.export", folder, asked, "--npz", tmp_path / "a.npz")
        assert ended.returncode == 2
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "a.npz").exists()


def test_weights_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    for text, remedy in (
        (HALFWAY, "delete DONE and checkpoints/"),
        (ONE_SIZE, "the last checkpoint has"),
    ):
        run = run_of(tmp_path, text=text)
        task, _ = task_of(run.path, run.requests()[0])
        file = run.snapshot_file(10) if text == HALFWAY else run.weights_file
        for what, content in (("missing", None), ("damaged", b"0000")):
            if content is not None:
                file.write_bytes(content)
            with pytest.raises(UserError, match=f"{file.name}: is {what}.*{remedy}"):
                load_model(task, torch.device("cpu"))


def test_weights_are_those_that_the_training_wrote(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    task, _ = task_of(run.path, run.requests()[0])
    content = bytearray(save_tensors(make_model(task.training).state_dict()))
    done: Json = {"code_ids": [], "images": 640, "seconds": 1.0}
    done |= {"weights": {run.weights_file.name: checksum(bytes(content))}}
    write_json(run.done_file, done)
    run.weights_file.write_bytes(content)
    load_model(task, torch.device("cpu"))
    content[-10] ^= 1  # of a weight: whatever reads it does not notice
    run.weights_file.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.safetensors: is damaged.*another checksum"):
        load_model(task, torch.device("cpu"))
    set_damaged_weights_aside(run, World(0, 1, torch.device("cpu"), None))
    assert run.done() is None  # so they are made again
    assert any(name.startswith(".damaged-weights") for name in os.listdir(run.path))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_the_grid_holds_the_images_where_they_belong(channels: int, mode: str) -> None:
    images = torch.randint(0, 255, (7, channels, 4, 6), dtype=torch.uint8)
    picture = Image.open(BytesIO(image_grid(images, columns=3)))
    assert picture.mode == mode
    assert picture.size == (3 * 7 - 1, 3 * 5 - 1)
    pixels = np.asarray(picture).reshape(14, 20, channels)
    assert np.array_equal(pixels[5:9, 7:13], images[4].permute(1, 2, 0).numpy())
    assert (pixels[4] == 255).all()
