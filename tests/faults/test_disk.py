"""A full or read-only disk: said plainly, and the same command goes on when there is room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import disturbed as d
from tests.tiny import command, wait_for

pytestmark = pytest.mark.slow


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)):
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    d.quiet(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Fill a disk but for so many bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(2**16)):
                pass
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave))
    return filler


@pytest.mark.parametrize(
    ("what", "leave", "changes"),
    [
        ("a checkpoint", 2**16, ["job.checkpoint_every=20"]),
        ("metrics.jsonl", 0, ["job.checkpoint_every=1000", "job.log_every=1"]),
    ],
)
def test_a_disk_that_fills_up(
    what: str, leave: int, changes: list[str], disk: Path, tmp_path: Path, ablation: Path,
    undisturbed: d.Outcome,
) -> None:  # fmt: skip
    """... in the middle of a training, so that `what` finds no room."""
    outputs = disk / "outputs"
    options = ["--no-track", *changes]
    with d.start(ablation, outputs, *options) as sweep:
        wait_for(lambda: d.steps(outputs) >= 10 or sweep.poll() is not None)
        filler = fill(disk, leave)
        assert sweep.wait(300) == 1, what
    said = (disk / "said.txt").read_text() + "".join(
        run.log_file.read_text() for run in d.runs(outputs)
    )
    assert "no space left" in said.lower()
    filler.unlink()
    d.again(ablation, outputs, *options)
    found, wanted = d.result(outputs), undisturbed.result
    assert found.keys() == wanted.keys()
    if "job.log_every=1" not in changes:  # else there are other lines
        assert found == wanted
    for run in d.runs(outputs):
        assert d.weights(run) == wanted[run.run_id][2]  # type: ignore[index]


def test_outputs_that_become_read_only(disk: Path, ablation: Path, undisturbed: d.Outcome) -> None:
    outputs = disk / "outputs"
    with d.start(ablation, outputs, "--no-track") as sweep:
        wait_for(lambda: d.steps(outputs) >= 10 or sweep.poll() is not None)
        sweep.kill()
    d.quiet(outputs)
    wait_for(lambda: mount("-o", "remount,ro", str(disk)))  # once nobody has a file open
    refused = command("harness.sweep", ablation, "--outputs", outputs, "--launcher", "inline")
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert mount("-o", "remount,rw", str(disk))
    d.again(ablation, outputs, "--no-track")
    assert d.result(outputs) == undisturbed.result
