"""slurm/ray.sbatch in a real Slurm: a Ray cluster over a job's nodes, which goes with the job."""

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from harness.claim import attempts
from harness.record import RunFolder, run_folder
from tests.slurm_cluster import Cluster
from tests.tiny import ROOT, wait_for

pytestmark = pytest.mark.slow


def runs(outputs: Path) -> list[RunFolder]:
    folder = outputs / "runs"
    return [run_folder(outputs, path.name) for path in folder.iterdir()] if folder.exists() else []


def test_a_sweep_on_two_nodes_stops_with_a_checkpoint_and_leaves_nothing(
    slurm: Cluster,
    tiny: Path,
    tmp_path: Path,
) -> None:
    outputs, log = tmp_path / "outputs", tmp_path / "log"
    job = slurm.run(
        "env", "--chdir", ROOT, f"PYTHON={sys.executable}",
        "sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", "--mem=4G", f"--output={log}",
        "slurm/ray.sbatch", tiny, "--no-track", "--outputs", outputs, "train.images=640000",
    )  # fmt: skip
    wait_for(lambda: len(runs(outputs)) == 2 and all(run.checkpoints() for run in runs(outputs)))
    assert "Ray on 2 of 2 nodes" in log.read_text()
    nodes = {attempt.data["nodes"][0] for run in runs(outputs) for attempt in attempts(run)}
    assert nodes == {"node1", "node2"}
    (folder,) = Path("/tmp").glob(f"ray-{job}-*")
    assert folder.stat().st_mode & 0o777 == 0o700  # Ray opens its own in it

    slurm.run("scancel", "--signal=USR2", "--batch", job)  # as at the time limit
    wait_for(lambda: "Restarts=1" in slurm.run("scontrol", "-o", "show", "job", job))
    slurm.run("scancel", job)
    for run in runs(outputs):
        (attempt,) = attempts(run)
        assert attempt.data["outcome"] == "interrupted"
        assert attempt.data["error"].startswith("Interrupted: stopped at step")
    assert "everything is kept" in log.read_text()
    assert list(Path("/tmp").glob(f"ray-{job}-*")) == []
    wait_for(lambda: not commands(f"ray-{job}-"))


def test_on_one_node_it_listens_on_loopback_only_and_lets_another_ray_be(
    slurm: Cluster,
    tiny: Path,
    tmp_path: Path,
) -> None:
    outputs, theirs = tmp_path / "outputs", f"/tmp/theirs-{os.getpid()}"
    other = slurm.submit(
        f"{sys.executable} -m ray.scripts.scripts start --head --port=6379 --block --num-cpus=1 "
        f"--include-dashboard=false --disable-usage-stats --temp-dir={theirs}",
        "--nodelist=node1", "--cpus-per-task=1", "--mem=4G", f"--output={tmp_path / 'theirs'}",
    )  # fmt: skip
    wait_for(lambda: Path(theirs, "ray_current_cluster").exists())
    wait_for(lambda: any("raylet/raylet" in words for words in commands(theirs).values()))
    before = commands(theirs)
    job = slurm.run(
        "env", "--chdir", ROOT, f"PYTHON={sys.executable}", "sbatch", "--parsable",
        "--nodelist=node1", "--cpus-per-task=1", "--mem=4G", f"--output={tmp_path / 'log'}",
        "slurm/ray.sbatch", tiny, "--no-track", "--outputs", outputs, "train.images=640000",
    )  # fmt: skip
    wait_for(lambda: any(run.checkpoints() for run in runs(outputs)))
    places = [place for pid in commands(f"ray-{job}-") for place in listens(pid)]
    slurm.run("scancel", job)
    assert places, "nothing listens"
    assert {place for place in places if not place.startswith(LOOPBACK)} == set()
    wait_for(lambda: not commands(f"ray-{job}-"))
    assert before.items() <= commands(theirs).items()
    assert slurm.state(other) == "RUNNING"
    slurm.run("scancel", other)
    wait_for(lambda: not commands(theirs))
    shutil.rmtree(theirs)


# As the kernel writes 127.x.x.x, of four bytes or mapped into sixteen, and ::1.
LOOPBACK = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")


def listens(pid: int) -> list[str]:
    """Where the processes in a process's network listen: address:port, as the kernel has it."""
    lines = [line for kind in ("tcp", "tcp6")
             for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]]  # fmt: skip
    own = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    listening = [line.split() for line in lines if line.split()[3] == "0A"]
    return [words[1] for words in listening if f"socket:[{words[9]}]" in own]


def commands(name: str) -> dict[int, str]:
    """Process id -> command of what belongs to the Ray cluster in a folder of this name."""
    found = {p.pid: " ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])}
    return {pid: words for pid, words in found.items() if name in words}
