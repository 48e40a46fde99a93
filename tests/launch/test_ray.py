"""Ray over several nodes: runs that span them, nodes that die, and the memory monitor."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.claim import Attempt, attempts, last_attempt
from harness.config import Job
from harness.errors import UserError
from harness.files import read_json
from harness.launch import processes, ray
from harness.launch.processes import Work
from harness.launch.ray import check_resources
from harness.record import RunFolder, run_folder
from tests.ray_cluster import RayCluster, ray_cluster
from tests.tiny import ROOT, command, figures, losses, prepared, wait_for, weights

# Bytes that may be taken before the monitor acts: the sweep takes two GiB, other tests some.
ROOM = 4 * 2**30
CHUNK = 2**29


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as found:
        yield found


def sweep(cluster: RayCluster, *arguments: object) -> subprocess.CompletedProcess[str]:
    options = ("--no-track", "--ray-address", cluster.address)
    return command("harness.sweep", *arguments, *options, **cluster.environment)


def runs(outputs: Path) -> list[RunFolder]:
    return [run_folder(outputs, path.name) for path in sorted((outputs / "runs").iterdir())]


def everything(run: RunFolder) -> object:
    return losses(run), figures(run), weights(run)


@pytest.mark.slow
def test_a_run_on_two_nodes_is_the_run_on_one(
    cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    node = cluster.add()
    spread = ("job.ranks=2", "job.nodes=2", "job.cpus=2")
    ended = sweep(cluster, tiny, "--only", "law=pi", "--outputs", tmp_path / "two", *spread)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (run,) = runs(tmp_path / "two")
    assert [attempt.data["ranks"] for attempt in attempts(run)] == [2]

    alone = prepared(tmp_path / "one", tiny, "job.ranks=2", "job.cpus=2", cell=1)
    assert processes.wait(processes.start(Work(alone.path), 2, 2)) == processes.DONE
    assert everything(run) == everything(alone)
    cluster.kill(node)


@pytest.mark.slow
def test_what_dies_with_a_node_or_is_short_of_memory_costs_an_attempt(
    cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    """A run on each of two nodes: on one memory runs short, and then that node is killed."""
    memory = psutil.virtual_memory()
    if memory.available < 2 * ROOM:
        pytest.skip(f"needs {2 * ROOM / 2**30:.0f} GiB of memory that nobody uses")
    limit = (memory.total - memory.available + ROOM) / memory.total
    node = cluster.add(RAY_memory_monitor_refresh_ms="200", RAY_memory_usage_threshold=str(limit))
    outputs, long = tmp_path / "outputs", ("train.images=64000", "job.checkpoint_every=20")
    sweeping = subprocess.Popen(
        [sys.executable, "-m", "harness.sweep", str(tiny), *long, "--no-track", "--outputs",
         str(outputs), "--ray-address", cluster.address],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        env=os.environ | cluster.environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert sweeping.stdout is not None
        wait_for(lambda: (outputs / "runs").exists() and len(at_work(outputs, node)) == 1)
        (run,) = at_work(outputs, node)
        killed = attempts(run)[-1]
        eaten: list[bytearray] = []
        while not ended(killed) and len(eaten) * CHUNK < 1.5 * ROOM:
            eaten.append(bytearray(b"x") * CHUNK)
            time.sleep(0.05)
        eaten.clear()
        assert ended(killed), "memory ran short, and nobody was ended"
        wait_for(lambda: at_work(outputs, node) != [])
        cluster.kill(node)
        text = sweeping.stdout.read()
        assert sweeping.wait() == 0, text
    finally:
        with sweeping:
            sweeping.kill()
    assert len(attempts(run)) >= 3

    cells = (prepared(tmp_path / "whole", tiny, *long, cell=cell) for cell in range(3))
    whole = next(one for one in cells if one.run_id == run.run_id)
    assert processes.wait(processes.start(Work(whole.path), 1, 1)) == processes.DONE
    assert (losses(run), weights(run)) == (losses(whole), weights(whole))
    assert figures(run).items() >= figures(whole).items()


def at_work(outputs: Path, node: subprocess.Popen[bytes]) -> list[RunFolder]:
    """The runs that train in a process of this node."""
    pids = {process.pid for process in psutil.Process(node.pid).children(recursive=True)}
    found = []
    for run in runs(outputs):
        last = last_attempt(run)
        if last and last.alive and last.data["pid"] in pids and list(run.checkpoints()):
            found.append(run)
    return found


def ended(attempt: Attempt) -> bool:
    return bool(read_json(attempt.file).get("outcome"))


def test_what_listens_and_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(ray, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{address}: something listens there, but has not"):
            ray._authenticate(address)


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (Job(cpus=4), "job.cpus 4 and job.gpus 0, but 0 of 2 nodes have that, the largest has 2"),
        (Job(cpus=4, ranks=4, nodes=4), "spread over job.nodes 4, but 2 of 2 nodes have that"),
        (Job(gpus=1), "the largest has 2 CPUs and 0 GPUs"),
        (Job(gpus=3, nodes=2), "job.gpus 1.5 on a node"),
    ],
)
def test_what_fits_nowhere_is_refused(job: Job, told: str) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}] * 2 + [{"Alive": False, "Resources": {}}]
    check_resources(nodes, Job(cpus=4, ranks=2, nodes=2))
    with pytest.raises(UserError, match=re.escape(told)):
        check_resources(nodes, job)
