"""The copy of the code that jobs run: named by its content, whole, and made anew when edited."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.provenance import code_id
from harness.snapshot import snapshot
from tests.tiny import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project with a commit."""
    root = tmp_path / "checkout"
    for room in ("harness", "models", "reports", "ablations", "outputs"):
        (root / room).mkdir(parents=True)
    (root / "harness" / "run.py").write_text("1\n")
    (root / "harness" / "asset.bin").write_bytes(b"\xff\x00")
    (root / "ablations" / "x.yaml").write_text("question: x\n")
    (root / "outputs" / "result").write_text("no code")
    (root / "data").mkdir()
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def git(root: Path, *words: str) -> str:
    author = ["-c", "user.name=x", "-c", "user.email=x@x"]
    ended = subprocess.run(
        ["git", "-C", str(root), *author, *words], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


@pytest.fixture(autouse=True)
def few_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.provenance.EXECUTED", ("run",))


def test_a_clean_checkout_is_named_by_its_commit(checkout: Path, tmp_path: Path) -> None:
    made = snapshot(tmp_path / "code", checkout)
    assert made.name == git(checkout, "rev-parse", "HEAD")[:12]
    assert (made / "harness" / "asset.bin").read_bytes() == b"\xff\x00"
    assert not (made / "outputs").exists()
    assert (made / "data").resolve() == checkout / "data"
    assert not (made / "harness" / "run.py").stat().st_mode & 0o222
    before = os.stat(made)
    assert snapshot(tmp_path / "code", checkout) == made
    assert os.stat(made).st_ino == before.st_ino  # not made again
    assert [path.name for path in (tmp_path / "code").iterdir()] == [made.name]


def test_uncommitted_changes_have_their_own(checkout: Path, tmp_path: Path) -> None:
    clean = snapshot(tmp_path, checkout)
    (checkout / "harness" / "run.py").write_text("2\n")
    (checkout / "harness" / "new.py").write_text("new = 1\n")
    changed = snapshot(tmp_path, checkout)
    assert changed.name.startswith(f"{clean.name}-")
    told = json.loads((changed / "SNAPSHOT.json").read_text())
    assert "+2" in told["diff"]
    assert "+new = 1" in told["diff"]  # git does not know that file
    assert (clean / "harness" / "run.py").read_text() == "1\n"
    (checkout / "harness" / "run.py").write_text("3\n")
    assert snapshot(tmp_path, checkout).name not in {clean.name, changed.name}
    assert (changed / "harness" / "run.py").read_text() == "2\n"  # the old one is left alone


def test_what_is_too_large_for_code_is_refused(checkout: Path, tmp_path: Path) -> None:
    with (checkout / "models" / "weights.bin").open("wb") as file:
        file.truncate(51 * 2**20)
    with pytest.raises(
        UserError, match=r"models/weights.bin: 51 MiB would be copied with the code"
    ):
        snapshot(tmp_path / "code", checkout)
    assert not (tmp_path / "code").exists()


def test_an_edited_snapshot_is_made_anew(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    made = snapshot(folder, checkout)
    edited = made / "harness" / "run.py"
    edited.chmod(0o644)
    edited.write_text("print('edited')\n")
    second = snapshot(folder, checkout)
    assert second.name == f"{made.name}.2"
    assert (second / "harness" / "run.py").read_text() == "1\n"
    assert edited.exists()  # never gone for a moment: jobs may run it
    assert snapshot(folder, checkout) == second
    (second / "SNAPSHOT.json").write_text("{")
    third = snapshot(folder, checkout)
    (third / "harness" / "more.py").write_text("")  # one that is no part of it
    fourth = snapshot(folder, checkout)
    assert [third.name, fourth.name] == [f"{made.name}.3", f"{made.name}.4"]
    assert not (fourth / "harness" / "more.py").exists()


def test_without_git_it_is_named_by_its_code(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    made = snapshot(tmp_path / "code", checkout)
    told = json.loads((made / "SNAPSHOT.json").read_text())
    assert told["commit"] is None
    assert made.name.startswith(f"{told['code_id']}-")


def test_a_snapshot_taken_in_a_snapshot_is_itself(checkout: Path, tmp_path: Path) -> None:
    made = snapshot(tmp_path / "code", checkout)
    assert snapshot(tmp_path / "elsewhere", made) == made


@pytest.mark.slow
def test_the_code_of_a_snapshot_is_the_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    made = snapshot(tmp_path / "code")
    code = (
        "import json, harness.provenance as p, harness.facts as f\n"
        "from harness.fashion_mnist import find\n"
        "print(json.dumps([str(p.ROOT), p.code_id(), p.origin(), str(find().resolve())]))"
    )
    there, here = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code], cwd="/", env=os.environ | {"PYTHONPATH": str(root)},
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for root in (made, ROOT)
    )  # fmt: skip
    assert there[0] == str(made)
    assert there[1:] == here[1:]
    assert there[1] == code_id()
