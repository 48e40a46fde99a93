"""One writer at a time, and the versions that it leaves for the next."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.writer_lock import read_versions, write_versions, writing
from tests.tiny import ROOT

HOLD = (
    "import sys, pathlib, harness.writer_lock as w\n"
    "with w.writing(pathlib.Path(sys.argv[1]), lambda: True):\n    print('held', flush=True)\n"
    "    sys.stdin.read()"
)


def test_it_is_free_as_soon_as_its_holder_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == b"held\n"
        asked = []
        with (
            pytest.raises(UserError, match="another process is still writing"),
            writing(tmp_path, lambda: bool(asked) or bool(asked.append(1))),
        ):
            raise AssertionError
        holder.kill()
    with writing(tmp_path, lambda: True):
        pass


def test_what_a_kill_cut_short_is_read_as_nothing(tmp_path: Path) -> None:
    with writing(tmp_path, lambda: True) as lock:
        assert read_versions(lock) == {}
        write_versions(lock, {"a": "long before", "b": "1"})
        write_versions(lock, {"a": "2"})
    with writing(tmp_path, lambda: True) as lock:
        assert read_versions(lock) == {"a": "2"}
    for cut in ('{"a": "2"', "[1]"):
        (tmp_path / "mlflow.lock").write_text(cut)
        with writing(tmp_path, lambda: True) as lock:
            assert read_versions(lock) == {}
