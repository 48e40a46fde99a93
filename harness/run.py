"""One job: train a frozen run folder to its end, then make the evaluations asked of it.

    python -m harness.run RUN_DIR [EVAL_ID ...]

Start it as often as you like: what is finished is not done again. Several ranks are started by a
launcher, or by `torchrun --nproc-per-node 2 -m harness.run RUN_DIR`. Exit status: 0 all done,
1 failed (the reason is in attempts/ and log.txt), 2 bad input, 73 another process is at work on it
(or, for several ranks, has finished it),
75 stopped on request with everything kept: the same command goes on.
"""

import argparse
import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from harness import retries
from harness.allocation import warns_of_the_end
from harness.claim import PARENT, Claim, claim
from harness.config import Evaluation, Job, Training
from harness.errors import UserError, nearest
from harness.files import Json, read_json, write_json
from harness.provenance import check_own_packages, code_id, provenance
from harness.record import RunFolder
from harness.stages import steps_until

DONE, FAILED, BAD_INPUT, BUSY, STOPPED = 0, 1, 2, 73, 75
GRACE = 60.0  # seconds that a stopped run has to write its checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run_dir", type=Path, help="a run folder that a sweep has prepared")
    parser.add_argument(
        "evaluations", nargs="*", metavar="EVAL_ID", help="of those asked of it; without, all"
    )
    parser.add_argument(
        "--until", type=float, metavar="SHARE", help="train to this one of train.snapshots only, "
        "and make evaluations of what is trained by then"
    )  # fmt: skip
    options = parser.parse_intermixed_args(arguments)
    check_own_packages()
    run = RunFolder(options.run_dir.resolve())
    try:
        if not run.exists():
            raise UserError(f"{options.run_dir}: is no run folder (it has no spec.json)")
        spec, job = run.spec(), read_json(run.path / "job.json")
        wanted = _evaluations(run, options.evaluations)
        until = None
        if options.until is not None:
            until, wanted = _up_to(options.until, _training(spec), wanted, options.evaluations)
    except (UserError, OSError) as error:  # OSError: a path too long, a folder that is closed
        print(error, file=sys.stderr)
        return BAD_INPUT
    stop = StopRequest()
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    held = None
    try:
        if int(os.environ.get("RANK", 0)) == 0:
            if _trained(run, until) and all(run.result_file(e).exists() for e in wanted):
                # Another sweep was quicker. Other ranks must not be left waiting for this one.
                return DONE if ranks == 1 else BUSY
            held = claim(run, code_id=code_id(), ranks=ranks)
            if held is None:
                print(f"{run.run_id}: another process is at work on it", file=sys.stderr)
                return BUSY
            stop.held = held
            _peer_error(run).unlink(missing_ok=True)
            run.stopped_file.unlink(missing_ok=True)  # it goes on
        _end_with_parent()
        _work(run, spec, Job(**job), wanted, held, stop, until)
    except Exception as error:
        return _ended(run, held, error, stop)
    if held:
        with contextlib.suppress(OSError):  # all is done, whether or not there is room to say so
            held.end("done")
    return DONE


class StopRequest:
    """Whether a signal asked for a stop at the next step, and which was the first.

    Why is told to `held` at once: there may be no time to end in order.
    """

    def __init__(self) -> None:
        self.signal, self.time = 0, 0.0
        self.held: Claim | None = None
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        if not self.signal:
            self.signal, self.time = number, time.time()
            if self.held:
                self.held.stopping = self.cause()

    def __call__(self) -> bool:
        return bool(self.signal)

    def cause(self) -> str:
        """What it means: SIGUSR2 is a scheduler's warning, the others somebody's wish."""
        if self.signal != signal.SIGUSR2:
            return retries.STOPPED
        return retries.TIME_LIMIT if warns_of_the_end(self.time) else retries.PREEMPTED


def _ended(run: RunFolder, held: Claim | None, error: Exception, stop: StopRequest) -> int:
    """Say and write down how a job that did not finish has ended."""
    from harness.train import Interrupted

    cause = _cause(error, stop)
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    stopped = isinstance(error, Interrupted)
    kept = stopped  # the same command again goes on
    if _is_full(error, run.path):
        reason, kept = f"no space left on the disk of {run.path}; free some, then go on", True
        cause = retries.FULL_DISK
    elif not stopped and not isinstance(error, UserError):
        traceback.print_exc()
    if _is_lost_peer(error):
        # The other ranks see only a closed connection; the one that failed says why.
        time.sleep(2)
        told = _peer_error(run).read_text() if _peer_error(run).exists() else ""
        stopped = kept = not told
        cause = _cause(RuntimeError(told), stop) if told else retries.LOST
        reason = told or f"another rank of the run was lost ({reason})"
    elif held is None and not kept:
        with contextlib.suppress(OSError):
            _peer_error(run).write_text(f"rank {os.environ.get('RANK', 0)}: {reason}")
    print(reason, file=sys.stderr, flush=True)
    if held:
        # Where even this has no space, the attempt reads as gone, and is taken up again.
        with contextlib.suppress(OSError):
            measured = isinstance(error, EvaluationError)  # the training is none the worse
            outcome = "interrupted" if kept else "done" if measured else "failed"
            held.end(outcome, reason, cause)
    return STOPPED if stopped else FAILED


def _cause(error: Exception, stop: StopRequest) -> str:
    from harness.train import Interrupted, NonFiniteLossError

    if isinstance(error, Interrupted):
        return stop.cause()
    if isinstance(error, NonFiniteLossError):
        return retries.NON_FINITE
    if _is_short_of_memory(error):
        return retries.OUT_OF_MEMORY
    return retries.ERROR


def _peer_error(run: RunFolder) -> Path:
    return run.path / "attempts" / "rank-error.txt"


def _is_full(error: BaseException | None, path: Path) -> bool:
    """Whether the disk is full, in the words of Python, torch or safetensors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left" in str(error):
            return True
        if "PytorchStreamWriter" in str(error) and shutil.disk_usage(path).free < 2**20:
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_short_of_memory(error: Exception) -> bool:
    signs = ("out of memory", "can't allocate memory", "Cannot allocate memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def _is_lost_peer(error: Exception) -> bool:
    """A collective failed because another process is gone, as gloo and NCCL put it."""
    signs = ("Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe",
             "EADDRINUSE")  # the port was taken: the next attempt has another  # fmt: skip
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    if alone or not isinstance(error, RuntimeError) or _is_short_of_memory(error):
        return False
    return any(sign in str(error) for sign in signs)


def _work(
    run: RunFolder,
    spec: Json,
    job: Job,
    wanted: dict[str, Evaluation],
    held: Claim | None,
    stop: Callable[[], bool],
    until: int | None,
) -> None:
    """Train if need be, then evaluate; a failed evaluation keeps none of the others back.

    Raises:
        EvaluationError: some failed; each has left its reason.
    """
    import torch

    from harness.ema import set_damaged_weights_aside
    from harness.engine import join_world, make_deterministic, quiet
    from harness.evaluation import Task, evaluate
    from harness.train import train

    quiet()
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    make_deterministic(max(1, job.cpus // ranks))
    world = join_world()
    training, seed = _training(spec), spec["seed"]
    progress: Json = held.progress if held else {}
    if held:
        name = torch.cuda.get_device_name() if world.device.type == "cuda" else "cpu"
        found = provenance(name) | {"ranks": world.size, "threads": torch.get_num_threads()}
        write_json(run.path / "provenance" / f"{held.number:04d}.json", found)
    set_damaged_weights_aside(run, world)
    if not _trained(run, until):
        train(run, training, seed, job, world, code_id(), progress, stop, until)
    failed = []
    for eval_id, evaluation in wanted.items():
        if run.result_file(eval_id).exists():
            if held and job.keep == "nothing":  # a kill came before they were removed
                shutil.rmtree(run.shards_folder(eval_id), ignore_errors=True)
            continue
        run.failure_file(eval_id).unlink(missing_ok=True)
        try:
            task = Task(run, training, seed, eval_id, evaluation)
            evaluate(task, job.sample_batch, job.keep, world, code_id(), progress, stop)
        except (ValueError, RuntimeError, UserError) as error:
            if _is_lost_peer(error) or _is_full(error, run.path):
                raise
            if not isinstance(error, UserError):
                traceback.print_exc()
            failed.append(f"{eval_id}: {error}")
            if held:
                write_json(run.failure_file(eval_id), {"error": str(error)})
        world.barrier()
    world.leave()
    if failed:
        raise EvaluationError("; ".join(failed))


def _training(spec: Json) -> Training:
    return Training.model_validate_json(json.dumps(spec["config"]))


def _trained(run: RunFolder, until: int | None) -> bool:
    """Whether nothing is to be trained up to a snapshot's step, or to the end."""
    return run.done() is not None or (until is not None and run.snapshot_file(until).exists())


def _up_to(
    share: float, training: Training, wanted: dict[str, Evaluation], asked: list[str]
) -> tuple[int, dict[str, Evaluation]]:
    """The steps of a share of the training, and the evaluations that are possible by then.

    Raises:
        UserError: no snapshot is kept there, or an evaluation that was asked for comes later.
    """
    shares = training.train.snapshots
    if share not in shares:
        known = f"one of {', '.join(map(repr, shares))}" if shares else "but it has none"
        raise UserError(f"--until {share}: must be one of the run's train.snapshots, {known}")
    due = {e: evaluation for e, evaluation in wanted.items() if evaluation.evaluate.after <= share}
    if later := [eval_id for eval_id in asked if eval_id not in due]:
        raise UserError(f"{later[0]}: is of after {share:g} of the training; leave --until out")
    return steps_until(training, share), due


class EvaluationError(UserError):
    """Evaluations that could not be made, with the reason of each."""


def _evaluations(run: RunFolder, asked: list[str]) -> dict[str, Evaluation]:
    """The evaluations to make, the small images first.

    Raises:
        UserError: one that was not asked of this run.
    """
    known = run.requests()
    for eval_id in asked:
        if eval_id not in known:
            raise UserError(f"{eval_id}: is no evaluation of {run.path}{nearest(eval_id, known)}")
    found = []
    for eval_id in asked or known:
        config = read_json(run.request_file(eval_id), needs=("config",))["config"]
        try:
            found.append((eval_id, Evaluation.model_validate_json(json.dumps(config))))
        except ValueError:
            raise UserError(f"{run.request_file(eval_id)}: is damaged; delete it") from None
    return dict(sorted(found, key=lambda pair: (pair[1].evaluate.resolution, pair[0])))


def _end_with_parent() -> None:
    """When the launcher that started this process is gone, stop as if asked to; then by force."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)  # it waits for a rank that is gone, or worse

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


if __name__ == "__main__":
    exit_status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is on disk; gloo's threads may abort a process that takes its time to end.
    os._exit(exit_status)
