"""SIGKILL at random moments: the same command again, and everything is as if nothing had been.

`make test-faults` tries 20 moments of each kind; CI tries one, another one each time it is given
another RESOLUTE_FAULTS_SEED.
"""

import contextlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults import disturbed as d

pytestmark = pytest.mark.slow


def the_sweep(process: subprocess.Popen[str], outputs: Path) -> list[psutil.Process]:
    return [psutil.Process(process.pid)]


def the_syncer(_: subprocess.Popen[str], outputs: Path) -> list[psutil.Process]:
    return d.syncers(outputs)


def everything(process: subprocess.Popen[str], outputs: Path) -> list[psutil.Process]:
    """As when the machine loses power."""
    return [psutil.Process(process.pid), *d.ranks(outputs), *d.syncers(outputs)]


def one_rank(_: subprocess.Popen[str], outputs: Path) -> list[psutil.Process]:
    return d.ranks(outputs)[-1:]


def the_whole_job(_: subprocess.Popen[str], outputs: Path) -> list[psutil.Process]:
    return d.ranks(outputs)


@pytest.mark.parametrize("moment", range(d.MOMENTS))
@pytest.mark.parametrize("kill", [the_sweep, the_syncer, everything, one_rank, the_whole_job])
def test_killed_and_given_again(
    kill: Callable[[subprocess.Popen[str], Path], list[psutil.Process]],
    moment: int,
    ablation: Path,
    undisturbed: d.Outcome,
    tmp_path: Path,
) -> None:
    outputs = tmp_path / "outputs"
    draw = random.Random(f"{d.SEED} {kill.__name__} {moment}")
    with d.start(ablation, outputs) as sweep:
        if kill in (one_rank, the_whole_job):
            d.reach(draw.random(), outputs)
        elif not d.wait_until(sweep, draw.uniform(0.05, 0.95) * undisturbed.seconds):
            pytest.skip("it was quicker than the undisturbed one, and is over")
        doomed = kill(sweep, outputs)
        assert doomed or kill is the_syncer, "there is nobody to kill"
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if kill in (the_syncer, one_rank, the_whole_job):
            sweep.wait(300)
    d.again(ablation, outputs)  # at once: what the kill has left behind is no obstacle
    d.quiet(outputs)
    assert d.result(outputs) == undisturbed.result
    assert d.mirrored(outputs) == undisturbed.mirrored
    assert not list(outputs.rglob("*.tmp")), "something half-written was left"


def test_two_sweeps_at_once_on_the_same_outputs(
    ablation: Path, undisturbed: d.Outcome, tmp_path: Path
) -> None:
    """... with a syncer each: every step and every point is there once."""
    outputs = tmp_path / "outputs"
    with d.start(ablation, outputs) as one, d.start(ablation, outputs) as other:
        assert [one.wait(300), other.wait(300)] == [0, 0], (tmp_path / "said.txt").read_text()
    d.again(ablation, outputs)
    d.quiet(outputs)
    assert d.result(outputs) == undisturbed.result
    assert d.mirrored(outputs) == undisturbed.mirrored
