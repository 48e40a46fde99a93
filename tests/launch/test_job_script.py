"""The lines of shell of a job: every word from a profile comes out of the shell as it went in."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from submitit.slurm.slurm import _make_sbatch_string

from harness.config import Job
from harness.launch.job_script import PATIENT, pickle_lines, python_words, setup_lines
from harness.launch.profile import Profile, parameters

words = st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable())
HOSTILE = [
    "$(touch x)",
    "`touch x`",
    "a'b\"c",
    "; touch x",
    "-n",
    "*",
    "~",
    "$HOME",
    " ",
    "#x",
    "!!",
]


def profile(**fields: Any) -> Profile:
    return Profile.model_validate({"time": 60} | fields)


def bash(lines: list[str], folder: Path) -> list[str]:
    """The words that a script's last line prints."""
    env = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "LC_ALL": "C.UTF-8"}
    ended = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=folder, env=env,
                           capture_output=True, check=True)  # fmt: skip
    assert not (folder / "x").exists()
    return ended.stdout.decode().split("\0")[:-1]


def code(folder: Path) -> Path:
    """A folder with the mark of a snapshot."""
    (folder / "code").mkdir()
    (folder / "code" / "SNAPSHOT.json").touch()
    return folder / "code"


def check(text: str, folder: Path) -> None:
    found = profile(
        modules=[text], environment={"V": text}, container=[text], python=f"/{text}", srun=[text]
    )
    said = ["module() { printf '%s\\0' \"$@\"; }; srun() { printf '%s\\0' \"$@\"; }"]
    said += setup_lines(found, code(folder), Path("/data"))
    assert bash([*said, "printf '%s\\0' \"$V\" \"$PYTHONPATH\""], folder) == [
        "load", text, text, str(folder / "code"),
    ]  # fmt: skip
    script = _make_sbatch_string(
        command="true",
        folder=folder,
        **parameters(found, Job(), name="x", snapshot=Path("/code")),
    )
    assert text in bash([said[0], script], folder)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_stay_words(text: str, tmp_path: Path) -> None:
    check(text, tmp_path)


@pytest.mark.slow
@given(text=words)
@settings(max_examples=60, deadline=None)
def test_any_printable_word_stays_a_word(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(text, tmp_path_factory.mktemp("shell"))


def test_the_job_gives_its_pickle_the_name_that_submitit_looks_for(tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    (folder / "element-0.pkl").write_text("plain")
    (folder / "element-3.pkl").write_text("third")
    lines = pickle_lines(folder)
    for _ in range(2):  # a requeued job does it again
        bash(lines, tmp_path)
        bash(["SLURM_ARRAY_JOB_ID=6", "SLURM_ARRAY_TASK_ID=3", *lines], tmp_path)
    assert (folder / "7_submitted.pkl").read_text() == "plain"
    assert (folder / "6_3_submitted.pkl").read_text() == "third"


def test_the_container_stands_before_python() -> None:
    home = Path.home()
    found = python_words(profile(container=["run", "a b", "~/c.sif"]), "/py")
    assert found == [*PATIENT, "run", "a b", f"{home}/c.sif", "/py"]
    assert python_words(profile(python="~/py"), "/py") == [*PATIENT, f"{home}/py"]


def test_a_warning_before_python_hears_signals_is_survived() -> None:
    """As in a container that is slow to start; what Python hears later, it takes as ever."""
    script = "import os, signal, sys; signal.signal(signal.SIGUSR2, lambda *_: sys.exit(7)); " \
        "os.kill(os.getpid(), signal.SIGUSR2)"  # fmt: skip
    slow = ["sh", "-c", 'kill -USR2 $$; exec "$@"', "sh"]
    words = python_words(profile(container=slow), sys.executable)
    assert subprocess.run([*words, "-c", script]).returncode == 7
    assert subprocess.run([*slow, sys.executable, "-c", script]).returncode < 0


def test_a_job_does_not_start_without_its_module(tmp_path: Path) -> None:
    lines = setup_lines(profile(modules=["none"]), code(tmp_path), Path("/data"))
    ended = subprocess.run(
        ["bash", "-c", "\n".join(["module() { return 1; }", *lines, "touch started"])],
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert not (tmp_path / "started").exists()


def test_a_job_does_not_start_without_its_code(tmp_path: Path) -> None:
    lines = setup_lines(profile(), tmp_path / "it's gone", Path("/data"))
    ended = subprocess.run(["bash", "-c", "\n".join([*lines, "touch started"])], cwd=tmp_path,
                           capture_output=True, text=True)  # fmt: skip
    assert ended.returncode == 1
    assert "it's gone: the code of this job is gone; give the sweep again" in ended.stderr
    assert not (tmp_path / "started").exists()
