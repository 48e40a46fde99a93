"""What must hold on a GPU, and that `benchmarks/gpu.sh`, which runs these tests there, works."""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import gpu, steps
from harness.batches import Batches
from harness.canonical import canonical_training
from harness.config import Augmentation, Data, MicroConditioning, Model, Positions, Train, Training
from harness.draws import generator, uniform
from harness.engine import World
from harness.features import load, see
from harness.files import read_json
from harness.images import area_resize, resize_crop
from harness.launch import processes
from harness.launch.processes import Work
from harness.neighbours import prdc
from harness.record import RunFolder
from harness.run import DONE
from models.dit import DiT
from models.encodings.rope import angles, rotation, turn
from models.geometry import Geometry, inference_geometry, training_geometry
from models.names import ENCODINGS
from tests.tiny import ABLATION, BASE, ROOT, figures, losses, prepared, wait_for

LONG = ("train.images=12800", "job.checkpoint_every=40", "job.gpus=1")  # 400 steps


def _has_cuda() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a CUDA build of torch warns where there is no driver
        return torch.cuda.is_available()


def needs_cuda(test: Callable[..., None]) -> Callable[..., None]:
    skip = pytest.mark.skipif(not _has_cuda(), reason="torch finds no CUDA device")
    return pytest.mark.cuda(skip(test))


@pytest.fixture
def exact() -> None:
    """Full float32 on the GPU: no TF32 in matrix products or convolutions."""
    assert not torch.backends.cuda.matmul.allow_tf32  # nobody has switched it on
    assert torch.get_float32_matmul_precision() == "highest"


# ---- the same numbers as on the CPU


@needs_cuda
@pytest.mark.parametrize("size", [(12, 12), (18, 18), (24, 20), (7, 31)])
def test_area_resize_is_the_same_bit_for_bit(size: tuple[int, int]) -> None:
    pixels = generator(0, "pixels").integers(0, 256, (16, 1, 32, 32), dtype=np.uint8)
    images = torch.from_numpy(pixels).float()
    assert torch.equal(area_resize(images.cuda(), size).cpu(), area_resize(images, size))


@needs_cuda
def test_crops_are_the_same_bit_for_bit() -> None:
    pixels = generator(0, "pixels").integers(0, 256, (16, 1, 32, 32), dtype=np.uint8)
    images, drawn = torch.from_numpy(pixels), uniform(0, "crops", 0, (16, 3))
    on_cpu = resize_crop(images, (16, 16), drawn, 2.0)
    on_gpu = resize_crop(images.cuda(), (16, 16), drawn.cuda(), 2.0)
    for a, b in zip(on_gpu, on_cpu, strict=True):
        assert torch.equal(a.cpu(), b)


@needs_cuda
def test_a_steps_draws_are_the_same_bit_for_bit() -> None:
    training = canonical_training(
        Training(
            data=Data(resolution=16),
            model=Model(),
            positions=Positions(sampler="randomized", range_multiplier=2.0),
            augmentation=Augmentation(kind="resize_crop"),
            micro_conditioning=MicroConditioning(kind="crop"),
            train=Train(images=640, batch=64),
        )
    )

    def parts(device: str) -> list[Tensor]:
        (part,) = Batches(training, 3, World(0, 1, torch.device(device), None)).parts(5)
        geometry = part[-1]
        return [
            *part[:-1],
            geometry.rows,
            geometry.cols,
            geometry.frequencies_h,
            geometry.frequencies_w,
        ]

    for there, here in zip(parts("cuda"), parts("cpu"), strict=True):
        assert there.device.type == "cuda"
        assert torch.equal(there.cpu(), here)


def _model(encoding: str) -> tuple[DiT, Geometry]:
    """A DiT of 256 tokens whose every weight acts, and its positions."""
    torch.manual_seed(0)
    model = DiT(
        channels=4, classes=10, width=128, depth=4, heads=2, mlp_ratio=4.0, patch=2,
        encoding=encoding, qk_norm=True, micro_conditioning=False, lengths=(8, 8), theta=100.0,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    geometry = inference_geometry(
        encoding=encoding, theta=100.0, width=128, heads=2, train_grid=(8, 8), length=(8, 8),
        grid=(16, 16), placement="contiguous", law="extrapolate", law_scale="shared",
        attention_scale="none", batch=3, device="cpu",
    )  # fmt: skip
    return model.eval(), geometry


def _to_cuda(geometry: Geometry) -> Geometry:
    names = ("rows", "cols", "frequencies_h", "frequencies_w")
    return replace(geometry, **{name: getattr(geometry, name).cuda() for name in names})


@needs_cuda
@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_network_agrees_with_the_cpu(encoding: str) -> None:
    model, geometry = _model(encoding)
    x, t, y = torch.randn(3, 4, 32, 32), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 7, 10])
    with torch.inference_mode():
        here = model(x, t, y, geometry)
        there = model.cuda()(x.cuda(), t.cuda(), y.cuda(), _to_cuda(geometry)).cpu()
    # float32 and float64 differ by 5e-7 of the largest value, bfloat16 and float64 by 5e-3.
    assert float((there - here).abs().max() / here.abs().max()) < 5e-5


@needs_cuda
def test_rope_keeps_float32_under_autocast() -> None:
    rows = torch.linspace(0, 1000, 64)[None]
    frequencies = 100.0 ** -torch.linspace(0, 1, 8)
    exact_angles = angles(rows, rows, frequencies, frequencies)
    q = torch.randn(1, 2, 64 * 64, 32, device="cuda", dtype=torch.bfloat16)
    with torch.autocast("cuda", torch.bfloat16):
        phi = angles(rows.cuda(), rows.cuda(), frequencies.cuda(), frequencies.cuda())
        cosine, sine = rotation(phi)
        turned = turn(q, cosine, sine)
    assert phi.dtype == cosine.dtype == sine.dtype == torch.float32
    assert torch.equal(phi.cpu(), exact_angles)
    assert turned.dtype == torch.bfloat16
    # The only rounding is the result's own, to bfloat16's 8 bits.
    torch.testing.assert_close(turned.float(), turn(q.float(), cosine, sine), rtol=2**-8, atol=0)


@needs_cuda
def test_training_positions_are_float32_on_the_gpu() -> None:
    drawn = uniform(0, "rows", 0, (4, 32)), uniform(0, "columns", 0, (4, 32)), torch.zeros(4)
    with torch.autocast("cuda", torch.bfloat16):
        geometry = training_geometry(
            "rope", "randomized", 100.0, 64, 2, (16, 16), (32, 32), *drawn, "cuda"
        )
    assert geometry.rows.dtype == geometry.frequencies_h.dtype == torch.float32
    assert geometry.rows.device.type == "cuda"


@needs_cuda
def test_features_agree_with_the_cpu() -> None:
    pixels = generator(0, "pixels").integers(0, 256, (300, 1, 24, 24), dtype=np.uint8)
    images = torch.from_numpy(pixels)
    here, there = (see(load("fashion-cnn", device), images, patch=12) for device in ("cpu", "cuda"))
    assert set(here) == {"features", "logits", "spatial", "patch"}
    for view, expected in here.items():
        assert there[view].device.type == "cpu"
        distance = (there[view] - expected).abs().max() / expected.abs().max()
        assert float(distance) < 1e-4, view


@needs_cuda
def test_distances_between_features_agree_with_the_cpu() -> None:
    drawn = generator(0, "features").standard_normal((2, 400, 16))
    x, y = torch.from_numpy(drawn)
    for device in ("cpu", "cuda"):
        found = prdc(x, y, device=device)
        for kind, (value, influence) in prdc(x, y).items():
            assert found[kind][0] == value
            assert np.allclose(found[kind][1], influence)


# ---- one run on the GPU, in real processes


def _prepared(folder: Path, *changes: str) -> RunFolder:
    folder.mkdir(exist_ok=True)
    (folder / "base.yaml").write_text(BASE)
    (folder / "tiny.yaml").write_text(ABLATION)
    return prepared(folder, folder / "tiny.yaml", *LONG, *changes)


def _finish(run: RunFolder) -> int:
    return processes.wait(processes.start(Work(run.path), 1, 1))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A float32 run on the GPU that nothing happened to."""
    run = _prepared(tmp_path_factory.mktemp("undisturbed"))
    assert _finish(run) == DONE, run.log_tail(30)
    return run


def _resumed_after_a_kill(run: RunFolder, whole: RunFolder) -> None:
    (process,) = processes.start(Work(run.path), 1, 1)
    wait_for(lambda: len(list(run.metrics())) >= 37)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert run.done() is None
    assert run.checkpoints()
    assert _finish(run) == DONE, run.log_tail(30)
    assert losses(run) == losses(whole)
    assert run.weights_file.read_bytes() == whole.weights_file.read_bytes()
    assert figures(run) == figures(whole)


@needs_cuda
@pytest.mark.slow
def test_a_run_works_on_the_gpu(undisturbed: RunFolder) -> None:
    origin = read_json(undisturbed.path / "provenance" / "0001.json")
    assert origin["device"] == torch.cuda.get_device_name()
    first, last = losses(undisturbed)[0][1], losses(undisturbed)[-1][1]
    assert last < first
    for eval_id in undisturbed.requests():
        result = undisturbed.result(eval_id)
        assert result is not None
        assert result["floor"]["fid.fashion-cnn"] < result["metrics"]["fid.fashion-cnn"]


@needs_cuda
@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, undisturbed: RunFolder) -> None:
    _resumed_after_a_kill(_prepared(tmp_path), undisturbed)


@needs_cuda
@pytest.mark.slow
def test_a_killed_run_in_bf16_goes_on_bit_for_bit(tmp_path: Path) -> None:
    # 1024 tokens: the backward pass of fused attention then sums many blocks, and would do so in
    # another order each time unless it is told not to.
    changes = ("train.precision=bf16", "train.zero_stage=1", "model.width=32", "model.patch=1",
               "data.resolution=32")  # fmt: skip
    whole = _prepared(tmp_path / "whole", *changes)
    assert _finish(whole) == DONE, whole.log_tail(30)
    _resumed_after_a_kill(_prepared(tmp_path / "killed", *changes), whole)


@needs_cuda
@pytest.mark.slow
def test_training_starts_as_it_does_on_the_cpu(
    tmp_path: Path, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    run = _prepared(tmp_path)
    assert run.run_id == undisturbed.run_id
    assert _finish(run) == DONE, run.log_tail(30)
    assert read_json(run.path / "provenance" / "0001.json")["device"] == "cpu"
    # Rounding differs from the first step on and grows with training: the first 20 steps.
    for (step, here), (_, there) in zip(losses(run)[:10], losses(undisturbed)[:10], strict=True):
        assert there == pytest.approx(here, rel=1e-3), step


# ---- the benchmark itself, without a GPU


def test_the_benchmarks_command_line(tmp_path: Path) -> None:
    asked = gpu.parse(["--cpu", str(tmp_path), "--only", "steps"])
    assert (asked.cpu, asked.output, asked.only) == (True, tmp_path, ["steps"])
    assert gpu.parse([]).output == ROOT / "benchmarks" / "results"
    ended = subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", "--help"],
        capture_output=True, text=True, cwd="/", env=os.environ | {"PYTHON": sys.executable},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "OUTPUT_DIR" in ended.stdout


@pytest.mark.slow
def test_the_benchmark_times_a_small_model(tmp_path: Path) -> None:
    small = gpu.Scale((gpu.Dit("tiny", 32, 1, 1, 2),), (*gpu.CPU.steps, "--matmul", "64"), (),
                      gpu.CPU.environment)  # fmt: skip
    (row,) = gpu.steps(small, tmp_path)
    assert row["batch"] == row["batch_asked"] == 2
    assert row["images_per_second"] == pytest.approx(2000 / row["ms_per_step"])
    assert row["share_of_matmul"] > 0
    assert json.loads(json.dumps(row)) == row
    shown = gpu.steps_table([row]).splitlines()
    assert len({len(line) for line in shown}) == 1
    assert shown[2].startswith("| tiny  | 2     |")


def test_a_batch_that_does_not_fit_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def python(_: gpu.Scale, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        options = steps.parse(list(map(str, arguments[2:])))
        if options.batch > 3:
            return subprocess.CompletedProcess([], steps.NO_MEMORY)
        options.output.write_text(json.dumps({"batch": options.batch}))
        return subprocess.CompletedProcess([], 0)

    monkeypatch.setattr(gpu, "python", python)
    assert gpu.NO_MEMORY == steps.NO_MEMORY
    (row,) = gpu.steps(gpu.Scale((gpu.Dit("tiny", 32, 1, 1, 8),), (), (), {}), tmp_path)
    assert (row["batch"], row["batch_asked"]) == (2, 8)
