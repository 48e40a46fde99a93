"""One job in real processes with real DeepSpeed: to its end, stopped, killed, resumed, failing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.claim import attempts, last_attempt
from harness.config import Job
from harness.extractors import KINDS
from harness.files import read_json
from harness.launch import processes
from harness.launch.processes import Work
from harness.record import RunFolder
from harness.retries import cause
from harness.run import BAD_INPUT, BUSY, DONE, FAILED, STOPPED
from tests.tiny import (
    ABLATION,
    BASE,
    ROOT,
    command,
    figures,
    losses,
    prepared,
    wait_for,
    weights,
)

# 100 steps at 4x4, then 100 at 8x8 with a new optimizer; the averages are kept after steps 10, 100.
STAGED = """\
set:
  train.stages: [{resolution: 4, images: 3200}, {resolution: 8, images: 3200, optimizer: reset}]
  train.snapshots: [0.05, 0.5]
"""
OFTEN = "job.checkpoint_every=20"
AT_THE_BORDER = "job.checkpoint_every=100"  # of the stages: the one checkpoint before the last

pytestmark = pytest.mark.slow


def outcome(run: RunFolder) -> str:
    attempt = last_attempt(run)
    assert attempt is not None
    return str(attempt.data.get("outcome"))


def finish(run: RunFolder, ranks: int = 1) -> int:
    return processes.wait(processes.start(Work(run.path), ranks, cpus=ranks))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two stages of 100 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = prepared(folder, _ablation(folder), OFTEN)
    assert finish(run) == DONE, run.log_tail(30)
    return run


def _ablation(folder: Path, text: str = ABLATION + STAGED) -> Path:
    (folder / "base.yaml").write_text(BASE)
    (folder / "tiny.yaml").write_text(text)
    return folder / "tiny.yaml"


def test_a_run_leaves_the_whole_record(undisturbed: RunFolder) -> None:
    run = undisturbed
    assert outcome(run) == "done"
    done = run.done()
    assert done is not None
    assert done["images"] == 6400
    assert done["flops"] > 0
    final = load_file(run.weights_file)
    assert done["parameters"] == sum(w.numel() for w in final.values())
    assert all(w.isfinite().all() for w in final.values())
    assert len(set(weights(run).values())) == len(weights(run)) == 3  # with the snapshots
    assert [step for step, _ in losses(run)] == list(range(2, 201, 2))
    first, last = losses(run)[0][1], sum(loss for _, loss in losses(run)[-10:]) / 10
    assert last < first
    lines = list(run.metrics())
    assert [line["resolution"] for line in lines] == [[4, 4]] * 50 + [[8, 8]] * 50
    assert lines[-1]["flops"] == done["flops"] > 2 * lines[49]["flops"]
    assert [p.name for p in run.checkpoints()] == ["step-00000200"]
    origin = read_json(run.path / "provenance" / "0001.json")
    assert origin["packages"]["deepspeed"]
    assert origin["device"] == "cpu"
    for eval_id in run.requests():
        result = run.result(eval_id)
        assert result is not None
        assert set(result["metrics"]) == {
            f"{kind}.fashion-cnn" for kind in KINDS if "infinity" not in kind
        }
        assert result["floor"]["fid.fashion-cnn"] < result["metrics"]["fid.fashion-cnn"]
        assert result["training"] == {key: done[key] for key in ("images", "flops", "seconds")}
        assert run.samples_file(eval_id).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_done_twice(undisturbed: RunFolder) -> None:
    before = {p: p.stat().st_mtime_ns for p in undisturbed.path.rglob("*") if p.is_file()}
    ended = command("harness.run", undisturbed.path)
    assert ended.returncode == DONE, ended.stderr
    after = {p: p.stat().st_mtime_ns for p in before}
    changed = {p.name for p in before if before[p] != after[p]}
    assert not changed
    new = {p.name for p in undisturbed.path.rglob("*") if p.is_file() and p not in before}
    assert not new


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR2, signal.SIGKILL])
def test_a_stopped_run_goes_on_to_the_same_end(
    tmp_path: Path, undisturbed: RunFolder, how: signal.Signals
) -> None:
    killed = how == signal.SIGKILL
    run = prepared(tmp_path, _ablation(tmp_path), AT_THE_BORDER if killed else OFTEN)
    (process,) = processes.start(Work(run.path), 1, 1)
    wait_for(lambda: bool(run.checkpoints()) if killed else len(list(run.metrics())) >= 37)
    process.send_signal(how)
    status = process.wait(60)
    assert status == (-9 if killed else STOPPED)
    assert run.done() is None
    stopped_at = int(run.checkpoints()[-1].name.removeprefix("step-"))
    assert stopped_at == 100 if killed else stopped_at >= 74
    assert outcome(run) == ("None" if killed else "interrupted")
    (first,) = attempts(run)
    causes = {signal.SIGTERM: "stopped", signal.SIGUSR2: "preempted", signal.SIGKILL: "lost"}
    assert cause(first.data) == causes[how]
    assert finish(run) == DONE, run.log_tail(30)
    assert losses(run) == losses(undisturbed)
    assert weights(run) == weights(undisturbed)
    assert figures(run) == figures(undisturbed)


def killed_at_checkpoint(folder: Path, checkpoints: int, *changes: str) -> RunFolder:
    """A run that was killed when it had so many checkpoints."""
    run = prepared(folder, _ablation(folder), OFTEN, *changes)
    (process,) = processes.start(Work(run.path), 1, 1)
    wait_for(lambda: len(run.checkpoints()) == checkpoints)
    process.kill()
    process.wait()
    return run


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, undisturbed: RunFolder
) -> None:
    run = killed_at_checkpoint(tmp_path, 2)
    newest = run.checkpoints()[-1]
    damaged = newest / "weight-0.safetensors"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert finish(run) == DONE, run.log_tail(30)
    assert f"checkpoint {newest.name} is damaged" in run.log_file.read_text()
    assert weights(run) == weights(undisturbed)


def test_lost_weights_are_made_again_from_the_last_checkpoint(
    tmp_path: Path, undisturbed: RunFolder
) -> None:
    run = RunFolder(tmp_path / undisturbed.run_id)
    shutil.copytree(undisturbed.path, run.path)
    run.weights_file.unlink()
    run.result_file(run.requests()[0]).unlink()
    assert run.done() is None
    assert finish(run) == DONE, run.log_tail(30)
    assert run.weights_file.read_bytes() == undisturbed.weights_file.read_bytes()
    assert figures(run) == figures(undisturbed)


def test_a_full_disk_is_said_and_the_same_command_goes_on(
    tmp_path: Path, undisturbed: RunFolder
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)])
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        run = prepared(small, _ablation(tmp_path), OFTEN)
        assert finish(run) == FAILED
        assert outcome(run) != "failed"
        assert cause(attempts(run)[-1].data) in ("full disk", "lost")  # no room to say so
        assert "no space left on the disk" in run.log_file.read_text() or not run.log_tail()
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        assert finish(run) == DONE, run.log_tail(30)
        assert weights(run) == weights(undisturbed)
        assert figures(run) == figures(undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_failed_evaluation_keeps_no_other_back(tmp_path: Path, undisturbed: RunFolder) -> None:
    run = RunFolder(tmp_path / undisturbed.run_id)
    shutil.copytree(undisturbed.path, run.path)
    bad, good = run.requests()
    request = read_json(run.request_file(bad))
    request["config"]["inference"] |= {"law": "ntk", "placement": "contiguous"}
    request["config"]["evaluate"] |= {"resolution": [12, 12]}
    config = read_json(run.spec_file)
    config["config"]["model"]["encoding"] = "sincos"  # for which there is no ntk
    run.spec_file.write_text(json.dumps(config))
    run.request_file(bad).write_text(json.dumps(request))
    for eval_id in (bad, good):
        run.result_file(eval_id).unlink()
    assert finish(run) == FAILED
    assert "ntk" in str(run.failure(bad))
    assert run.result(good) is not None
    assert run.failure(good) is None
    assert outcome(run) == "done"  # the training is none the worse


def test_only_the_evaluations_asked_for_are_made(tmp_path: Path, undisturbed: RunFolder) -> None:
    run = RunFolder(tmp_path / undisturbed.run_id)
    shutil.copytree(undisturbed.path, run.path)
    first, second = run.requests()
    for eval_id in (first, second):
        run.result_file(eval_id).unlink()
    assert processes.wait(processes.start(Work(run.path, (second,)), 1, 1)) == DONE
    assert run.result(first) is None
    assert run.result(second) is not None
    unknown = command("harness.run", run.path, "0" * 16)
    assert unknown.returncode == BAD_INPUT
    assert "is no evaluation of" in unknown.stderr


def test_two_ranks_train_and_sample_the_same(tmp_path: Path, undisturbed: RunFolder) -> None:
    run = prepared(tmp_path, _ablation(tmp_path), OFTEN, "job.ranks=2", "job.cpus=2")
    assert run.run_id == undisturbed.run_id
    assert finish(run, ranks=2) == DONE, run.log_tail(30)
    for (step, loss), (_, alone) in zip(losses(run), losses(undisturbed), strict=True):
        assert loss == pytest.approx(alone, rel=1e-4), step
    assert weights(run).keys() == weights(undisturbed).keys()
    for name in weights(run):
        shared, alone_weights = load_file(run.path / name), load_file(undisturbed.path / name)
        assert all(torch.allclose(shared[n], alone_weights[n], atol=1e-4) for n in shared), name
    # The same weights give the same images on two ranks as on one, bit for bit.
    for file in (run.weights_file, run.done_file):
        file.write_bytes((undisturbed.path / file.name).read_bytes())
    for eval_id in run.requests():
        run.result_file(eval_id).unlink()
    assert finish(run, ranks=2) == DONE, run.log_tail(30)
    assert figures(run) == figures(undisturbed)


@pytest.mark.parametrize(
    ("stage", "precision", "ranks"), [(1, "bf16", 1), (2, "fp32", 2), (3, "fp32", 2)]
)
def test_every_zero_stage_resumes(
    tmp_path: Path, undisturbed: RunFolder, stage: int, precision: str, ranks: int
) -> None:
    at_border = ranks == 2
    changes = (
        AT_THE_BORDER if at_border else OFTEN,
        f"train.zero_stage={stage}",
        f"train.precision={precision}",
        f"job.ranks={ranks}",
        f"job.cpus={ranks}",
        "train.accumulation=2",
    )
    runs = []
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        runs.append(prepared(tmp_path / name, _ablation(tmp_path), *changes))
    whole, stopped = runs
    assert finish(whole, ranks) == DONE, whole.log_tail(30)
    started = processes.start(Work(stopped.path), ranks, ranks)
    wait_for(
        lambda: bool(stopped.checkpoints()) if at_border else len(list(stopped.metrics())) >= 20
    )
    processes.stop(started)
    assert stopped.done() is None
    if at_border:
        for later in stopped.checkpoints()[1:]:
            shutil.rmtree(later)
        assert [p.name for p in stopped.checkpoints()] == ["step-00000100"]
    assert finish(stopped, ranks) == DONE, stopped.log_tail(30)
    assert losses(stopped) == losses(whole)
    assert weights(stopped) == weights(whole)
    if precision == "fp32":  # ZeRO's stages differ in bookkeeping, not in mathematics
        cut, plain = load_file(whole.weights_file), load_file(undisturbed.weights_file)
        assert all(torch.allclose(cut[n], plain[n], atol=2e-3) for n in cut)


def test_a_lost_rank_is_no_failure(tmp_path: Path, undisturbed: RunFolder) -> None:
    run = prepared(tmp_path, _ablation(tmp_path), OFTEN)
    started = processes.start(Work(run.path), 2, 2)
    wait_for(lambda: len(list(run.metrics())) >= 20)
    started[1].kill()
    assert processes.wait(started) == processes.LOST
    assert outcome(run) != "failed"
    assert finish(run, ranks=2) == DONE, run.log_tail(30)
    for (_, loss), (_, alone) in zip(losses(run), losses(undisturbed), strict=True):
        assert loss == pytest.approx(alone, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path: Path) -> None:
    run = prepared(
        tmp_path, _ablation(tmp_path, ABLATION), "train.learning_rate=1e30", "train.gradient_clip=0"
    )
    assert finish(run) == FAILED
    attempt = last_attempt(run)
    assert attempt is not None
    assert attempt.data["outcome"] == "failed"
    assert attempt.data["cause"] == "non-finite loss"
    assert "at step" in attempt.data["error"]
    assert "train.learning_rate" in attempt.data["error"]
    assert run.done() is None


def test_two_jobs_on_one_run_do_not_both_work(tmp_path: Path) -> None:
    run = prepared(tmp_path, _ablation(tmp_path), OFTEN)
    (first,) = processes.start(Work(run.path), 1, 1)
    wait_for(lambda: last_attempt(run) is not None)
    second = command("harness.run", run.path)
    assert second.returncode == BUSY
    assert "another process is at work on it" in second.stderr
    first.kill()
    first.wait()


def test_a_run_ends_when_its_launcher_is_gone(tmp_path: Path) -> None:
    run = prepared(tmp_path, _ablation(tmp_path, ABLATION), "train.images=640000")
    starter = (
        "import sys, time\nfrom pathlib import Path\nfrom harness.launch import processes\n"
        f"processes.start(processes.Work(Path({str(run.path)!r})), 1, 1)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starter], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    wait_for(lambda: len(list(run.metrics())) >= 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: outcome(run) == "interrupted", 60)
    assert run.checkpoints()


@pytest.mark.parametrize("given", ["nowhere", "."])
def test_no_run_folder_is_said(tmp_path: Path, given: str) -> None:
    ended = command("harness.run", tmp_path / given)
    assert ended.returncode == BAD_INPUT
    assert "is no run folder" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_batch_that_ranks_do_not_divide_fails_plainly(tmp_path: Path) -> None:
    run = prepared(tmp_path, _ablation(tmp_path, ABLATION), "train.batch=33", "train.images=66")
    assert finish(run, ranks=2) == FAILED
    attempt = last_attempt(run)
    assert attempt is not None
    assert "not divisible by ranks x train.accumulation" in attempt.data["error"]


def test_the_job_section_is_read_back() -> None:
    assert Job.model_validate_json(Job(cpus=3).model_dump_json()).cpus == 3
