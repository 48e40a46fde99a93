"""Ray over several nodes: runs that span them, nodes that die, and the memory monitor."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
LONG = ("train.images=64000", "job.checkpoint_every=20")


@pytest.fixture(scope="module")
def head() -> Iterator[RayCluster]:
    with ray_cluster() as found:
        yield found


@pytest.fixture
def cluster(head: RayCluster) -> Iterator[RayCluster]:
    """A head; what a test adds goes with it."""
    yield head
    while len(head.nodes) > 1:
        if (node := head.nodes.pop()).poll() is None:
            head.kill(node)


def sweep(cluster: RayCluster, *arguments: object) -> subprocess.CompletedProcess[str]:
    options = ("--no-track", "--ray-address", cluster.address)
    asked = cluster.environment | {"RAY_AUTH_MODE": ""}  # it finds out that the cluster does
    return command("harness.sweep", *arguments, *options, **asked)


def runs(outputs: Path) -> list[RunFolder]:
    return [run_folder(outputs, path.name) for path in sorted((outputs / "runs").iterdir())]


def everything(run: RunFolder) -> object:
    return losses(run), figures(run), weights(run)


@pytest.mark.slow
def test_a_run_on_two_nodes_is_the_run_on_one(
    cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    cluster.add()
    spread = ("job.ranks=2", "job.nodes=2", "job.cpus=2")
    ended = sweep(cluster, tiny, "--only", "law=pi", "--outputs", tmp_path / "two", *spread)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (run,) = runs(tmp_path / "two")
    assert [attempt.data["ranks"] for attempt in attempts(run)] == [2]

    alone = prepared(tmp_path / "one", tiny, "job.ranks=2", "job.cpus=2", cell=1)
    assert processes.wait(processes.start(Work(alone.path), 2, 2)) == processes.DONE
    assert everything(run) == everything(alone)


@pytest.mark.slow
def test_what_dies_with_a_node_costs_an_attempt(
    cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    """A run on each of two nodes, of which one is killed."""
    node = cluster.add()
    with sweeping(cluster, tiny, tmp_path / "outputs") as process:
        run = at_work(tmp_path / "outputs", node)
        cluster.kill(node)
        check_end(process, run, tiny, tmp_path)


@pytest.mark.slow
def test_what_is_ended_by_the_memory_monitor_costs_an_attempt(
    cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 2 * ROOM:
        pytest.skip(f"needs {2 * ROOM / 2**30:.0f} GiB of memory that nobody uses")
    limit = (memory.total - memory.available + ROOM) / memory.total
    node = cluster.add(RAY_memory_monitor_refresh_ms="200", RAY_memory_usage_threshold=str(limit))
    with sweeping(cluster, tiny, tmp_path / "outputs") as process:
        run = at_work(tmp_path / "outputs", node)
        killed = attempts(run)[-1]
        eaten: list[bytearray] = []
        while not ended(killed) and len(eaten) * CHUNK < 1.5 * ROOM:
            eaten.append(bytearray(b"x") * CHUNK)
            time.sleep(0.05)
        eaten.clear()
        assert ended(killed), "memory ran short, and nobody was ended"
        check_end(process, run, tiny, tmp_path)


@pytest.mark.slow
def test_what_fits_nowhere_any_more_is_said(
    cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    node = cluster.add()
    spread = ("job.ranks=2", "job.nodes=2", "job.cpus=2", "--only", "law=pi")
    with sweeping(cluster, tiny, tmp_path / "outputs", *spread) as process:
        wait_for(lambda: bool(list(tmp_path.glob("outputs/runs/*/checkpoints/step-*"))))
        cluster.kill(node)
        assert process.stdout is not None
        lacks = "spread over job.nodes 2, but 1 of 1 nodes have that"
        assert any(lacks in line for line in process.stdout)
        cluster.add()
        assert any("a run fits again" in line for line in process.stdout)
        text = process.stdout.read()
        assert process.wait() == 0, text


@pytest.mark.slow
def test_a_node_that_does_not_see_the_runs_is_refused(
    cluster: RayCluster, tiny: Path, tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("hiding a folder from a process needs root")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    cluster.add(hidden=outputs)
    ended = sweep(cluster, tiny, "--outputs", outputs)
    assert ended.returncode == 2
    assert f"of the Ray cluster: does not see {outputs}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not [attempt for run in runs(outputs) for attempt in attempts(run)]


@contextmanager
def sweeping(
    cluster: RayCluster, tiny: Path, outputs: Path, *changes: str
) -> Iterator[subprocess.Popen[str]]:
    """A sweep whose runs take a while, in the background."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.sweep", str(tiny), *LONG, *changes, "--no-track",
         "--outputs", str(outputs), "--ray-address", cluster.address],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        env=os.environ | cluster.environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield process
    finally:
        with process:
            process.kill()


def check_end(process: subprocess.Popen[str], run: RunFolder, tiny: Path, tmp_path: Path) -> None:
    """The sweep ends well, and the run that had more than one attempt is as one that had not."""
    assert process.stdout is not None
    text = process.stdout.read()
    assert process.wait() == 0, text
    assert len(attempts(run)) >= 2
    cells = (prepared(tmp_path / "whole", tiny, *LONG, cell=cell) for cell in range(3))
    whole = next(one for one in cells if one.run_id == run.run_id)
    assert processes.wait(processes.start(Work(whole.path), 1, 1)) == processes.DONE
    assert (losses(run), weights(run)) == (losses(whole), weights(whole))
    assert figures(run).items() >= figures(whole).items()


def at_work(outputs: Path, node: subprocess.Popen[bytes]) -> RunFolder:
    """The run that trains in a process of this node, once it has a checkpoint."""

    def found() -> list[RunFolder]:
        pids = {process.pid for process in psutil.Process(node.pid).children(recursive=True)}
        lasts = [(run, last_attempt(run)) for run in runs(outputs) if run.checkpoints()]
        return [run for run, last in lasts if last and last.alive and last.data["pid"] in pids]

    wait_for(lambda: (outputs / "runs").exists() and bool(found()))
    return found()[0]


def ended(attempt: Attempt) -> bool:
    return bool(read_json(attempt.file).get("outcome"))


def test_what_listens_and_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # as good as none
    monkeypatch.setattr(ray, "PATIENCE", 10)  # a cluster that is well answers in less
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
