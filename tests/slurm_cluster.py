"""A real Slurm cluster of two nodes for tests, `slurm/mini-slurm`; one for each test process.

from tests.slurm_cluster import Cluster

def test_it(slurm: Cluster) -> None: ...
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.tiny import ROOT, wait_for

SCRIPT = ROOT / "slurm" / "mini-slurm"
QUIET = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 120}


@dataclass(frozen=True)
class Cluster:
    """Two nodes, node1 and node2, with 8 CPUs (of which the machine may have fewer) each."""

    folder: Path

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def isolated(self) -> bool:
        """Each node has a host name of its own, at which others find it."""
        return "ISOLATED=yes" in (self.folder / "settings").read_text().splitlines()

    def run(self, *command: object) -> str:
        """One of Slurm's commands; what it printed."""
        env = os.environ | {"SLURM_CONF": str(self.conf)}
        done = subprocess.run([*map(str, command)], env=env, **QUIET)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return str(done.stdout).strip()

    def mini(self, *command: str) -> None:
        """`slurm/mini-slurm ...` for this cluster, such as `kill node1 --down`."""
        self.run("env", f"MINI_SLURM_DIR={self.folder}", SCRIPT, *command)

    def submit(self, script: str, *options: object) -> str:
        """sbatch of a script's text; the job's id."""
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".sh") as file:
            file.write(f"#!/bin/bash\n{script}\n")
            file.flush()
            return self.run("sbatch", "--parsable", "--output=/dev/null", *options, file.name)

    def state(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, ...; of an array the states of its elements."""
        said = self.run("scontrol", "-o", "show", "job", job).splitlines()
        fields = [dict(f.split("=", 1) for f in line.split() if "=" in f) for line in said]
        return " ".join(sorted(one["JobState"] for one in fields))

    def hurry(self, job: str, seconds: float = 120) -> None:
        """A job that was requeued need not wait long.

        Slurm lets it wait for what the nodes still have to say of its last start: a script's exit
        that comes late counts for the new one.
        """
        wait_for(lambda: self.state(job) == "PENDING", seconds)
        time.sleep(4)
        self.run("scontrol", "update", f"jobid={job}", "starttime=now")

    def settle(self) -> None:
        """As at the start: no jobs, all nodes up."""
        if jobs := self.run("squeue", "-h", "-a", "-o", "%A").split():
            for signal in ("--signal=KILL", "--quiet"):
                with contextlib.suppress(AssertionError):  # one has ended meanwhile
                    self.run("scancel", signal, *jobs)
        wait_for(lambda: not self.run("squeue", "-h", "-a"))
        self.mini("up")


@cache
def _started() -> Cluster | str:
    """The cluster, or why there is none."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-test-"))
    env = os.environ | {"MINI_SLURM_DIR": str(folder)}
    up = subprocess.run(
        [str(SCRIPT), "up", "--nodes", "2", "--cpus-per-node", "8"],
        env=env,
        **QUIET,  # type: ignore[call-overload]
    )
    if up.returncode:
        shutil.rmtree(folder)
        said = " ".join(up.stderr.split())
        return said if "missing Debian packages" in said else f"FAILED {said}"
    # It goes down when this process is gone, however that comes: then the pipe is closed.
    end, _held = os.pipe()
    down = f"(cat <&{end}; exec '{SCRIPT}' down --wipe) </dev/null >/dev/null 2>&1 &"
    subprocess.run(["setsid", "bash", "-c", down], env=env, pass_fds=(end,), check=True)
    os.close(end)
    return Cluster(folder)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster of this test process; Slurm's commands find it."""
    found = _started()
    if isinstance(found, str):
        if found.startswith("FAILED"):
            pytest.fail(found)
        pytest.skip(found)
    monkeypatch.setenv("SLURM_CONF", str(found.conf))
    yield found
    found.settle()
