"""One writer at a time, and who wrote last."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.writer_lock import others_wrote, writing
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


def test_the_lock_tells_what_others_wrote(tmp_path: Path) -> None:
    with writing(tmp_path, lambda: True) as lock:
        assert others_wrote(lock, ["a", "b"], "me") == {"a", "b"}
        assert others_wrote(lock, ["a", "b"], "me") == set()
        assert others_wrote(lock, ["b", "c"], "you") == {"b", "c"}
    with writing(tmp_path, lambda: True) as lock:
        assert others_wrote(lock, ["a", "b", "c"], "me") == {"b", "c"}
    (tmp_path / "mlflow.lock").write_text('{"a": "me"')  # cut short by a kill
    with writing(tmp_path, lambda: True) as lock:
        assert others_wrote(lock, ["a"], "me") == {"a"}
    (tmp_path / "mlflow.lock").write_text("[]")
    with writing(tmp_path, lambda: True) as lock:
        assert others_wrote(lock, ["a"], "me") == {"a"}
