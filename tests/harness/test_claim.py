"""At most one process works on a run, tried with real processes."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import claim as claims
from harness.claim import LAUNCHER, claim, last_attempt, launcher
from harness.files import read_json, write_atomic
from harness.record import RunFolder
from tests.tiny import ROOT, wait_for

HOLD = """
import sys
from pathlib import Path
from harness.claim import claim
from harness.record import RunFolder
held = claim(RunFolder(Path(sys.argv[1])), code_id="x")
print("held" if held else "busy", flush=True)
if held:
    sys.stdin.read()  # until the test lets go
    held.end("done")
"""


def holder(folder: Path, started_by: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), LAUNCHER: started_by or launcher()},
    )


def said(process: subprocess.Popen[str]) -> str:
    """The line that it prints when it has tried."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate()


@pytest.mark.slow
def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    processes = [holder(tmp_path) for _ in range(6)]
    assert sorted(said(process) for process in processes) == ["busy"] * 5 + ["held"]
    let_go(*processes)


@pytest.mark.slow
def test_a_killed_owner_is_gone_at_once_and_one_takes_over(tmp_path: Path) -> None:
    owner = holder(tmp_path)
    assert said(owner) == "held"
    run = RunFolder(tmp_path)
    attempt = last_attempt(run)
    assert attempt is not None
    assert attempt.alive
    assert claim(run) is None
    owner.send_signal(signal.SIGKILL)
    let_go(owner)
    assert not attempt.alive
    processes = [holder(tmp_path) for _ in range(4)]
    assert sorted(said(process) for process in processes) == ["busy"] * 3 + ["held"]
    let_go(*processes)
    newest = last_attempt(run)
    assert newest is not None
    assert newest.number == 2


def test_what_a_killed_owner_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    half = ("attempts/.0001.json.7.8.tmp", "features/e/.00000000-00000016.safetensors.7.8.tmp",
            ".weights.safetensors.7.8.tmp", ".DONE.7.8.tmp", "eval/.e.json.7.8.tmp")  # fmt: skip
    others = ("requests/.e.json.7.8.tmp", ".job.json.7.8.tmp", "features/e/00000000.safetensors")
    for name in (*half, *others):
        write_atomic(tmp_path / name, "half")
    held = claim(run)
    assert held is not None
    held.end("done")
    assert not [name for name in half if (tmp_path / name).exists()]
    assert all((tmp_path / name).exists() for name in others)


def test_a_claim_tells_its_progress_and_how_it_ended(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    held = claim(run, code_id="c")
    assert held is not None
    held.progress["step"] = 5
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        attempt = last_attempt(run)
        assert attempt is not None
        if attempt.data.get("progress"):
            break
        time.sleep(0.05)
    assert attempt.data["progress"] == {"step": 5}
    assert attempt.data["code_id"] == "c"
    held.end("failed", "why")
    ended = last_attempt(run)
    assert ended is not None
    assert not ended.alive
    assert (ended.data["outcome"], ended.data["error"]) == ("failed", "why")
    again = claim(run)
    assert again is not None
    assert again.number == 2
    again.end("done")


def test_an_owner_elsewhere_is_judged_by_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = RunFolder(tmp_path), elsewhere(tmp_path)
    assert claim(run) is None
    long_ago = time.time() - claims.SILENCE - 1
    os.utime(file, (long_ago, long_ago))
    monkeypatch.setattr(claims, "WATCH", 0.5)
    held = claim(run)
    assert held is not None
    held.end("done")


def elsewhere(folder: Path, **more: object) -> Path:
    """The file of an attempt by an owner on another host."""
    file = folder / "attempts" / "0001.json"
    file.parent.mkdir()
    owner = {"number": 1, "host": "elsewhere", "pid": os.getpid(), "pid_started": "1"}
    file.write_text(json.dumps(owner | more))
    return file


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
def test_a_wrong_clock_makes_no_second_owner(tmp_path: Path, wrong: float) -> None:
    """The file server's clock is an hour behind or ahead, and the owner is at work."""
    run, file, over = RunFolder(tmp_path), elsewhere(tmp_path), threading.Event()

    def beat() -> None:
        for offset in itertools.count():
            os.utime(file, (time.time(), time.time() + wrong + offset))
            if over.wait(claims.BEAT):
                return

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        wait_for(lambda: abs(file.stat().st_mtime - time.time()) > 3000)
        attempt = last_attempt(run)
        assert attempt is not None
        assert not attempt.alive  # so it seems at a glance
        assert claim(run) is None
    finally:
        over.set()
        beating.join()


def test_an_owner_whose_file_is_of_a_time_to_come_can_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = elsewhere(tmp_path)
    os.utime(file, (time.time(), time.time() + 3600))
    monkeypatch.setattr(claims, "WATCH", 0.5)
    held = claim(RunFolder(tmp_path))
    assert held is not None
    held.end("done")


def test_a_requeued_job_takes_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(tmp_path, job="7_1", restart=0)
    run = RunFolder(tmp_path)
    monkeypatch.setattr(claims, "WATCH", 0.5)
    for name, value in (("ARRAY_JOB_ID", "7"), ("ARRAY_TASK_ID", "2"), ("JOB_ID", "9")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURMD_NODENAME", "node5")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert claim(run) is None  # another job
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    held = claim(run)
    assert held is not None
    held.end("interrupted", "why", "preempted")
    said = read_json(tmp_path / "attempts" / "0002.json")
    assert (said["job"], said["restart"], said["nodes"]) == ("7_1", 1, ["node5"])
    assert (said["reached"], said["cause"]) == ([0, 0, 0], "preempted")


def test_a_requeued_job_waits_for_an_owner_that_slurm_lost_sight_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node was cut off: it beats on until it sees the next attempt, and ends then."""
    file, over = elsewhere(tmp_path, job="7", restart=0), threading.Event()
    second = file.with_name("0002.json")
    monkeypatch.setattr(claims, "WATCH", 1.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    last_beats: list[float] = []

    def beat() -> None:
        while len(last_beats) < 3:  # two more beats than it sees at once
            os.utime(file)
            if second.exists():
                last_beats.append(time.monotonic())
            over.wait(0.3)

    beating = threading.Thread(target=beat)
    beating.start()
    held = claim(RunFolder(tmp_path))
    over.set()
    beating.join()
    assert held is not None
    assert len(last_beats) == 3
    assert time.monotonic() - last_beats[-1] > 0.9
    held.end("done")


def test_what_is_reached_grows_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    stages = [claims.reached(run)]
    for made in ("checkpoints/step-00000020", "features/e/0-9.safetensors", "eval/e.json"):
        (tmp_path / made).mkdir(parents=True)
        (tmp_path / "requests").mkdir(exist_ok=True)
        (tmp_path / "requests" / "e.json").touch()
        stages.append(claims.reached(run))
    assert stages == sorted(stages)
    assert stages[-1] == [20, 1, 1]


def test_an_owner_is_asked_to_stop_by_a_file(tmp_path: Path) -> None:
    owner = holder(tmp_path)
    assert said(owner) == "held"
    claims.ask_to_stop(RunFolder(tmp_path))
    assert owner.wait(20) == -signal.SIGTERM  # which a run answers with a checkpoint
    let_go(owner)


def test_another_sweeps_run_is_not_asked(tmp_path: Path) -> None:
    owner = holder(tmp_path, started_by="another sweep")
    assert said(owner) == "held"
    claims.ask_to_stop(RunFolder(tmp_path))
    owner.kill()
    let_go(owner)
    assert not list((tmp_path / "attempts").glob("*.stop"))


def test_a_reused_process_id_is_not_the_owner(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    held = claim(run)
    assert held is not None
    held.end("done")
    file = tmp_path / "attempts" / "0001.json"
    data = json.loads(file.read_text())
    del data["outcome"]
    file.write_text(json.dumps(data | {"pid_started": "12345"}))
    attempt = last_attempt(run)
    assert attempt is not None
    assert not attempt.alive


def test_an_owner_that_was_taken_over_ends(tmp_path: Path) -> None:
    owner = holder(tmp_path)
    assert said(owner) == "held"
    (tmp_path / "attempts" / "0002.json").write_text("{}")
    assert owner.wait(20) == claims.EXIT_LOST
    let_go(owner)
