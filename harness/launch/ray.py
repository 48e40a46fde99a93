"""The Ray launcher: Ray Tune over a list of run folders, here or on a cluster.

Ray decides where and when a run works, and starts one again that was lost. It plans nothing and
keeps nothing: a trial starts the same `python -m harness.run RUN_DIR` as every launcher, results
are judged by the run folders, and Ray's own experiment state is scratch.
"""

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config import Job
from harness.errors import UserError
from harness.launch import processes
from harness.launch.processes import Work
from harness.provenance import ROOT

# Its memory monitor ends the whole experiment, not one trial, when a node runs short; usage
# statistics and banners are nobody's business. All are read when ray is imported or started.
ENVIRONMENT = {
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def _trial(config: dict[str, Any]) -> None:
    """Runs in a Ray worker: one attempt at one run.

    Raises:
        RuntimeError: the run was lost; Ray starts it again.
    """
    from ray import tune

    job = Job(**config["job"])
    work = Work(Path(config["work"]["run_dir"]), tuple(config["work"]["evaluations"]))
    status = processes.wait(processes.start(work, job.ranks, job.cpus))
    if status in processes.WORTH_A_RETRY:
        raise RuntimeError(f"the run was lost (status {status})")
    tune.report({"status": status})


def _run_id(trial: Any) -> str:
    return Path(trial.config["work"]["run_dir"]).name


def launch(works: Sequence[Work], job: Job, address: str | None = None) -> None:
    """Do every piece of work, as many at once as the resources in `job` allow.

    Args:
        address: of a running Ray cluster; without one a local cluster is started and ended.

    Raises:
        UserError: the cluster cannot be reached, or no node has what one run asks for.
        KeyboardInterrupt: as it came; the runs are told to stop.
    """
    if address not in (None, "auto"):
        _check_reachable(address)
    os.environ |= ENVIRONMENT
    import ray
    from ray import tune

    scratch = Path(tempfile.mkdtemp(prefix="resolute-ray-"))
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--ray-address {address}: cannot be reached: {reason}") from None
    try:
        _check_resources(ray.nodes(), job)
        tuner = tune.Tuner(
            tune.with_resources(_trial, {"CPU": job.cpus, "GPU": job.gpus}),
            param_space={
                "work": tune.grid_search(
                    [{"run_dir": str(w.run_dir), "evaluations": w.evaluations} for w in works]
                ),
                "job": job.model_dump(mode="json"),
            },
            tune_config=tune.TuneConfig(
                trial_name_creator=_run_id,
                trial_dirname_creator=_run_id,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=job.retries),
            ),
        )
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # failed trials stand in our table
        tuner.fit()
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def _check_reachable(address: str) -> None:
    """Ray itself tries an address that nobody answers for minutes.

    Raises:
        UserError: nobody listens there, or it is no HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--ray-address {address}: cannot be reached ({error}); give the HOST:PORT that "
            "'ray start --head' prints, or 'auto' on one of the cluster's nodes"
        ) from None


def _check_resources(nodes: list[dict[str, Any]], job: Job) -> None:
    """A run that fits on no node would wait for ever.

    Raises:
        UserError: what is asked for, and what the largest node has.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    fits = any(n.get("CPU", 0) >= job.cpus and n.get("GPU", 0) >= job.gpus for n in alive)
    if not fits:
        largest = max(alive, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
        raise UserError(
            f"a run asks for job.cpus {job.cpus} and job.gpus {job.gpus:g}, but the largest node "
            f"has {largest.get('CPU', 0):g} CPUs and {largest.get('GPU', 0):g} GPUs; ask for less"
        )
