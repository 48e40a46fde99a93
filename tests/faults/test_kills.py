"""SIGKILL at random moments: the same command again, and everything is as if nothing had been.

`make test-faults` tries 20 moments of each kind; CI tries one, and by Ray two in all; another one
each time it is given another RESOLUTE_FAULTS_SEED.
"""

import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.claim import OWNED, attempts
from tests.faults import disturbed as d
from tests.tiny import wait_for

pytestmark = pytest.mark.slow

Kill = Callable[[subprocess.Popen[str], Path], list[psutil.Process]]


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


def the_raylet(process: subprocess.Popen[str], _: Path) -> list[psutil.Process]:
    return of_ray(process, "raylet")


def the_head(process: subprocess.Popen[str], _: Path) -> list[psutil.Process]:
    return of_ray(process, "gcs_server")


def of_ray(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """A part of the sweep's own cluster."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if child.name() == name]


KILLS = [the_sweep, the_syncer, everything, one_rank, the_whole_job]
CASES = [("inline", kill, moment) for kill in KILLS for moment in range(d.MOMENTS)]
OF_RAY = [the_raylet, the_head]
CASES += [("ray", kill, moment) for kill in KILLS + OF_RAY for moment in range(d.MOMENTS)]
if d.MOMENTS == 1:
    short = (the_sweep, the_raylet)
    CASES = [case for case in CASES if case[0] == "inline" or case[1] in short]


def struck(
    kill: Kill, share: float, ablation: Path, outputs: Path, launcher: str, seconds: float
) -> subprocess.Popen[str]:
    """A sweep in which somebody was killed when it was a share of its way.

    Args:
        seconds: about what an undisturbed one takes; which moment is struck hangs on it, no more.
    """
    sweep = d.start(ablation, outputs, launcher=launcher)
    if kill in (one_rank, the_whole_job, *OF_RAY):
        d.reach(share, outputs)
    else:
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.wait((0.05 + 0.9 * share) * seconds)
    wait_for(lambda: sweep.poll() is not None or bool(kill(sweep, outputs)))
    doomed = kill(sweep, outputs) if sweep.poll() is None else []
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if not doomed:  # it was quicker, and there is nobody left to kill
        sweep.wait()
        d.quiet(outputs)
        shutil.rmtree(outputs)
        return struck(kill, 0.8 * share, ablation, outputs, launcher, seconds)
    return sweep


@pytest.mark.parametrize(("launcher", "kill", "moment"), CASES)
def test_killed_and_given_again(
    launcher: str,
    kill: Kill,
    moment: int,
    ablation: Path,
    undisturbed: d.Outcome,
    tmp_path: Path,
) -> None:
    outputs = tmp_path / "outputs"
    share = random.Random(f"{d.SEED} {kill.__name__} {moment}").random()
    seconds = undisturbed.seconds + (10 if launcher == "ray" else 0)  # to start a cluster
    with struck(kill, share, ablation, outputs, launcher, seconds) as sweep:
        if kill in (the_syncer, one_rank, the_whole_job, *OF_RAY):
            sweep.wait(300)
            said = (tmp_path / "said.txt").read_text()
            assert "Traceback" not in said
            dead = kill in OF_RAY and sweep.returncode == 1 and "does not answer at" in said
            assert dead or sweep.returncode == 0, said
    d.again(
        ablation, outputs, launcher=launcher
    )  # at once: what the kill has left behind is no obstacle
    d.quiet(outputs)
    assert d.result(outputs) == undisturbed.result
    assert d.mirrored(outputs) == undisturbed.mirrored
    if len(attempts(d.runs(outputs)[0])) > 1:
        left = [f for owned in OWNED for f in outputs.glob(f"runs/*/{owned}/**/*.tmp")]
        assert not left, "something half-written was left"


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
