"""The Ray launcher: Ray Tune over a list of run folders, here or on a cluster.

Ray decides where and when a run works, and starts one again that was lost; with `job.scheduler`
asha it also decides at each rung (`harness.rungs`) whether a run goes on. It plans nothing and
keeps nothing: a trial starts the same `python -m harness.run RUN_DIR` as every launcher, results
are judged by the run folders, and Ray's own experiment state is scratch.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.claim import LAUNCHER, PARENT, last_attempt, launcher
from harness.config import Job
from harness.errors import UserError
from harness.launch import asha
from harness.launch.processes import Work
from harness.launch.ray_trial import sees, trial
from harness.launch.ray_watch import fitting, missing, watched
from harness.launch.scratch import scratch
from harness.provenance import ROOT
from harness.record import RunFolder
from harness.rungs import judged
from harness.store_address import VARIABLE

# Usage statistics and banners are nobody's business. The memory monitor would end all runs of a
# node that is short of memory, so a cluster of our own has none. A cluster of one machine listens
# on loopback alone: the variable's name is of systems where Ray has no other. All are read when
# ray is imported or started.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's last report has no figure
    # Seconds after which Ray ends a process whose cluster is gone: in less the runs have stopped.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "180",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
OF_A_LOCAL_CLUSTER = {
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
# Ray's own count of a trial's failures knows no progress (harness.retries does): it only ends what
# never gets as far as an attempt.
MAX_FAILURES = 100
PATIENCE = 30.0  # seconds in which a cluster says whether it asks for a token, and what it sees
# Seconds without an answer after which a cluster is dead. One of our own never comes back; another
# may be started again, or its network.
SILENCE_HERE, SILENCE = 10.0, 90.0


def launch(
    works: Sequence[Work],
    job: Job,
    address: str | None = None,
    ladders: asha.Ladders | None = None,
) -> None:
    """Do every piece of work, as many at once as the resources in `job` allow.

    Args:
        address: of a running Ray cluster; without one a local cluster is started and ended.
        ladders: run id -> rungs, of every run that those in `works` are compared with on the way;
            None or empty: each goes to its end.

    Raises:
        UserError: the cluster cannot be reached, or no node has what one run asks for.
        UnreachableError: the cluster died on the way.
        KeyboardInterrupt: as it came; the runs are told to stop.
    """
    os.environ |= ENVIRONMENT | (OF_A_LOCAL_CLUSTER if address is None else {})
    if address not in (None, "auto"):
        _check_reachable(address)
    if address is not None:
        _authenticate(address)
    import ray

    own = {name: v for name, v in os.environ.items() if name.startswith("RESOLUTE_")}
    for name in (PARENT, VARIABLE):  # Ray logs these, and no job asks MLflow
        own.pop(name, None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env={"env_vars": own | {"PYTHONPATH": str(ROOT), LAUNCHER: launcher()}},
        )
        for number, handler in handlers.items():  # Ray's own end the process at once
            signal.signal(number, handler)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if address is None:
            raise UserError(f"a local Ray cluster could not be started: {reason}") from None
        raise UserError(f"--ray-address {address}: cannot be reached: {reason}") from None
    try:
        check_resources(ray.nodes(), job)
        if address is not None:  # a cluster of our own has no memory monitor, and is here
            _check_sight(works[0].run_dir, job)
            _take_memory_kills_for_lost_actors()
        with scratch() as folder, watched(job, SILENCE_HERE if address is None else SILENCE):
            _fit(works, job, ladders or {}, folder)
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()


def _fit(works: Sequence[Work], job: Job, ladders: asha.Ladders, folder: Path) -> None:
    """Do the works on the cluster that this process is connected to.

    Args:
        folder: for Tune's own state.
    """
    from ray import tune

    outputs = works[0].run_dir.parent.parent
    facts = [_facts(work, ladders) for work in works]
    due = {(Path(one["run_dir"]).name, number) for one in facts for number, _ in one["rungs"]}
    bundle = {"CPU": job.cpus / job.nodes, "GPU": job.gpus / job.nodes}
    resources = tune.PlacementGroupFactory([bundle] * job.nodes, strategy="STRICT_SPREAD")
    tuner = tune.Tuner(
        tune.with_resources(trial, resources),
        param_space={
            "work": tune.grid_search(facts),
            "job": job.model_dump(mode="json"),
        },
        tune_config=tune.TuneConfig(
            trial_name_creator=_run_id,
            trial_dirname_creator=_run_id,
            scheduler=asha.scheduler(ladders, due, outputs) if ladders else None,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # failed trials stand in our table
    tuner.fit()


def _facts(work: Work, ladders: asha.Ladders) -> dict[str, Any]:
    """What a trial is told: plain data, that Ray carries from one machine to another."""
    run = RunFolder(work.run_dir)
    rungs = ladders.get(run.run_id, ())
    last = last_attempt(run)
    return {
        "run_dir": str(work.run_dir),
        "evaluations": work.evaluations,
        "attempts": last.number if last else 0,  # of earlier commands
        # Where it has its verdict, it went on, or is told to go on all the same.
        "rungs": [(n, asdict(r)) for n, r in enumerate(rungs) if not judged(run, r, ladders)],
    }


def _run_id(trial: Any) -> str:
    return Path(trial.config["work"]["run_dir"]).name


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


def _authenticate(address: str) -> None:
    """Show a token to a cluster that asks for one, and none to one that has none.

    Ray itself does neither, unless RAY_AUTH_MODE says which: it tries in vain for long.

    Raises:
        UserError: the cluster asks for another token than there is here, or does not answer.
    """
    if os.environ.get("RAY_AUTH_MODE"):
        return
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    check += [] if address == "auto" else ["--address", address]
    said = ""
    for mode in ("disabled", "token"):
        try:
            ended = subprocess.run(
                check,
                env=os.environ | {"RAY_AUTH_MODE": mode},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"--ray-address {address}: something listens there, but has not answered as Ray "
                f"does in {PATIENCE:g} s; give the HOST:PORT that 'ray start --head' prints, and "
                "see 'ray status' there"
            ) from None
        if ended.returncode == 0:
            os.environ["RAY_AUTH_MODE"] = mode
            return
        said = ended.stderr.strip()
        if "oken" not in said:
            raise UserError(f"--ray-address {address}: {(said.splitlines() or ['no answer'])[-1]}")
    raise UserError(
        f"--ray-address {address}: asks for a token that is not here; put the cluster's into "
        "~/.ray/auth_token, or name its file with RAY_AUTH_TOKEN_PATH"
    )


def check_resources(nodes: list[dict[str, Any]], job: Job) -> None:
    """A run that fits nowhere would wait for ever.

    Raises:
        UserError: what is asked for, and what there is.
    """
    gpus = job.gpus / job.nodes
    if gpus > 1 and gpus % 1:
        raise UserError(f"job.gpus {gpus:g} on a node: Ray gives one GPU or less, or whole ones")
    if lacks := missing(nodes, job):
        raise UserError(f"{lacks}; ask for less")


def _check_sight(run_dir: Path, job: Job) -> None:
    """A node that does not see the run folders would fail every run that it is given.

    Raises:
        UserError: there are such nodes.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {
        ray.remote(sees)
        .options(
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        .remote(str(run_dir)): node["NodeManagerHostname"]
        for node in fitting(ray.nodes(), job)
    }
    # One that takes longer may be loading the code from a slow disk, or have just died.
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PATIENCE)
    blind = set()
    for task in answered:
        try:
            seen = ray.get(task)
        except ray.exceptions.RayTaskError:  # the code is not there
            seen = False
        except ray.exceptions.RayError:  # the node has just died
            continue
        if not seen:
            blind.add(asked[task])
    if blind:
        raise UserError(
            f"{', '.join(sorted(blind))} of the Ray cluster: does not see "
            f"{run_dir.parent.parent}, or not this code ({ROOT}): share both under these paths, "
            "or end Ray on that node"
        )


def _take_memory_kills_for_lost_actors() -> None:
    """So that a kill by Ray's memory monitor costs an attempt, and not the sweep.

    On somebody's cluster the monitor is on. It ends all workers of a node that is short of memory,
    and what they answer then is an error that Tune 2.60 knows nothing of: the whole experiment
    fails, where any other death of a worker is a failure of its trial.
    """
    try:
        from ray.air.execution._internal.actor_manager import RayActorManager
    except ImportError:  # another version of Ray: it goes without
        return
    from ray.exceptions import RayActorError, RayError, RayTaskError

    known: Any = getattr(RayActorManager, "_actor_task_failed", None)
    expected = (RayActorError, RayTaskError)
    if known is None or known.__module__ == __name__:
        return

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, expected):
            exception = RayActorError(error_msg=str(exception))
        known(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = failed
