"""At most one process works on a run, tried with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import claim as claims
from harness.claim import claim, last_attempt
from harness.record import RunFolder
from tests.tiny import ROOT

HOLD = """
import sys, time
from pathlib import Path
from harness.claim import claim
from harness.record import RunFolder
held = claim(RunFolder(Path(sys.argv[1])), code_id="x")
print("held" if held else "busy", flush=True)
time.sleep(float(sys.argv[2]))
if held:
    held.end("done")
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with process:
        return process.stdout.read().strip()


@pytest.mark.slow
def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    processes = [holder(tmp_path, 2) for _ in range(6)]
    assert sorted(said(process) for process in processes) == ["busy"] * 5 + ["held"]


@pytest.mark.slow
def test_a_killed_owner_is_gone_at_once_and_one_takes_over(tmp_path: Path) -> None:
    owner = holder(tmp_path, 60)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    run = RunFolder(tmp_path)
    attempt = last_attempt(run)
    assert attempt is not None
    assert attempt.alive
    assert claim(run) is None
    owner.send_signal(signal.SIGKILL)
    said(owner)
    assert not attempt.alive
    processes = [holder(tmp_path, 1) for _ in range(4)]
    assert sorted(said(process) for process in processes) == ["busy"] * 3 + ["held"]
    newest = last_attempt(run)
    assert newest is not None
    assert newest.number == 2


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
    run = RunFolder(tmp_path)
    file = tmp_path / "attempts" / "0001.json"
    file.parent.mkdir()
    owner = {"number": 1, "host": "elsewhere", "pid": os.getpid(), "pid_started": "1"}
    file.write_text(json.dumps(owner))
    assert claim(run) is None
    long_ago = time.time() - claims.SILENCE - 1
    os.utime(file, (long_ago, long_ago))
    held = claim(run)
    assert held is not None
    held.end("done")


def test_an_owner_is_asked_to_stop_by_a_file(tmp_path: Path) -> None:
    owner = holder(tmp_path, 60)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    claims.ask_to_stop(RunFolder(tmp_path))
    assert owner.wait(20) == -signal.SIGTERM  # which a run answers with a checkpoint
    said(owner)


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
    owner = holder(tmp_path, 60)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    (tmp_path / "attempts" / "0002.json").write_text("{}")
    assert owner.wait(20) == claims.EXIT_LOST
    said(owner)
