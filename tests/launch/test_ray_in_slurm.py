"""slurm/ray.sbatch in a real Slurm: a Ray cluster over a job's nodes, which goes with the job."""

import sys
from pathlib import Path

import psutil
import pytest

from harness.claim import attempts
from harness.record import RunFolder, run_folder
from tests.slurm_cluster import Cluster, slurm  # noqa: F401
from tests.tiny import ROOT, wait_for

pytestmark = pytest.mark.slow


def runs(outputs: Path) -> list[RunFolder]:
    folder = outputs / "runs"
    return [run_folder(outputs, path.name) for path in folder.iterdir()] if folder.exists() else []


def test_a_sweep_on_two_nodes_stops_with_a_checkpoint_and_leaves_nothing(
    slurm: Cluster,  # noqa: F811
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

    slurm.run("scancel", "--signal=USR2", "--batch", job)  # as at the time limit
    wait_for(lambda: "Restarts=1" in slurm.run("scontrol", "-o", "show", "job", job))
    slurm.run("scancel", job)
    for run in runs(outputs):
        (attempt,) = attempts(run)
        assert attempt.data["outcome"] == "interrupted"
        assert attempt.data["error"].startswith("Interrupted: stopped at step")
    assert "everything is kept" in log.read_text()
    assert list(Path("/tmp").glob(f"ray-{job}-*")) == []
    wait_for(lambda: not left(f"ray-{job}-"))


def left(name: str) -> list[int]:
    """Processes of a Ray cluster that lies in a folder of this name."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if name in str(p.info["cmdline"])]
