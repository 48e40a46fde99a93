"""A folder for one command: gone with it, and with the next one where it was killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from harness.launch.scratch import scratch
from tests.tiny import ROOT

HOLD = (
    "import sys, tempfile; from harness.launch.scratch import scratch; "
    "tempfile.tempdir = sys.argv[1]\n"
    "with scratch() as folder:\n    print(folder, flush=True)\n    sys.stdin.read()"
)


def test_what_a_killed_command_leaves_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with scratch() as ours:
            (ours / "state").write_text("")
            assert sorted(tmp_path.iterdir()) == sorted([theirs, ours])
        assert list(tmp_path.iterdir()) == [theirs]  # it is at work
        other.kill()
        other.wait()
        assert theirs.exists()
    with scratch() as ours:
        assert list(tmp_path.iterdir()) == [ours]
    assert list(tmp_path.iterdir()) == []
