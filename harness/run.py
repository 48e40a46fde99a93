"""One job: train a frozen run folder to its end, then make the evaluations asked of it.

    python -m harness.run RUN_DIR

Start it as often as you like: what is finished is not done again. Several ranks are started by a
launcher, or by `torchrun --nproc-per-node 2 -m harness.run RUN_DIR`. Exit status: 0 all done,
1 failed (the reason is in attempts/ and log.txt), 2 bad input, 73 another process is at work on it,
75 stopped on request with everything kept: the same command goes on.
"""

import argparse
import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from harness.claim import Claim, claim
from harness.config import Evaluation, Job, Training
from harness.errors import UserError
from harness.provenance import check_own_packages, code_id, provenance
from harness.record import Json, RunFolder, read_json, write_json

DONE, FAILED, BAD_INPUT, BUSY, STOPPED = 0, 1, 2, 73, 75
PARENT = "RESOLUTE_PARENT"  # process id of the launcher; the run ends when it is gone


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run_dir", type=Path, help="a run folder that a sweep has prepared")
    options = parser.parse_args(arguments)
    check_own_packages()
    run = RunFolder(options.run_dir.resolve())
    try:
        if not run.exists():
            raise UserError(f"{options.run_dir}: is no run folder (it has no spec.json)")
        spec, job = run.spec(), read_json(run.path / "job.json")
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    if _complete(run):  # another sweep was quicker
        return DONE
    stop = _stop_on_signals()
    rank = int(os.environ.get("RANK", 0))
    held = None
    if rank == 0:
        held = claim(run, code_id=code_id(), ranks=int(os.environ.get("WORLD_SIZE", 1)))
        if held is None:
            print(f"{run.run_id}: another process is at work on it", file=sys.stderr)
            return BUSY
        _peer_error(run).unlink(missing_ok=True)
    _end_with_parent(stop)
    try:
        _work(run, spec, Job(**job), held, stop)
    except Exception as error:
        return _ended(run, held, error)
    if held:
        held.end("done")
    return DONE


def _complete(run: RunFolder) -> bool:
    measured = all(run.result_file(eval_id).exists() for eval_id in run.requests())
    return run.done_file.exists() and measured


def _ended(run: RunFolder, held: Claim | None, error: Exception) -> int:
    """Say and write down how a job that did not finish has ended."""
    from harness.train import Interrupted

    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        reason = f"no space left on the disk ({error.filename or run.path}); free some, then go on"
    stopped = isinstance(error, Interrupted)
    if not stopped and not isinstance(error, UserError):
        traceback.print_exc()
    if _is_lost_peer(error):
        # The other ranks see only a closed connection; the one that failed says why.
        time.sleep(2)
        told = _peer_error(run).read_text() if _peer_error(run).exists() else ""
        stopped, reason = not told, told or f"another rank of the run was lost ({reason})"
    elif held is None and not stopped:
        with contextlib.suppress(OSError):
            _peer_error(run).write_text(f"rank {os.environ['RANK']}: {reason}")
    print(reason, file=sys.stderr, flush=True)
    if held:
        # On a full disk this fails too: the attempt then reads as gone, and is taken up again.
        with contextlib.suppress(OSError):
            held.end("interrupted" if stopped else "failed", reason)
    return STOPPED if stopped else FAILED


def _peer_error(run: RunFolder) -> Path:
    return run.path / "attempts" / "rank-error.txt"


def _is_lost_peer(error: Exception) -> bool:
    """A collective failed because another process is gone, as gloo and NCCL put it."""
    signs = ("Connection closed by peer", "Connection reset by peer", "NCCL", "Broken pipe")
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    return not alone and isinstance(error, RuntimeError) and any(s in str(error) for s in signs)


def _work(
    run: RunFolder, spec: Json, job: Job, held: Claim | None, stop: Callable[[], bool]
) -> None:
    import torch

    from harness.engine import join_world, make_deterministic, quiet
    from harness.evaluate import evaluate
    from harness.train import train

    quiet()
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    make_deterministic(max(1, job.cpus // ranks))
    world = join_world()
    training, seed = Training.model_validate_json(json.dumps(spec["config"])), spec["seed"]
    progress: Json = held.progress if held else {}
    if held:
        name = torch.cuda.get_device_name() if world.device.type == "cuda" else "cpu"
        found = provenance(name) | {"ranks": world.size, "threads": torch.get_num_threads()}
        write_json(run.path / "provenance" / f"{held.number:04d}.json", found)
    if not run.done_file.exists():
        train(run, training, seed, job, world, _code(run), progress, stop)
    for eval_id, evaluation in _evaluations(run):
        if run.result_file(eval_id).exists():
            continue
        evaluate(run, training, seed, eval_id, evaluation, job.sample_batch, world, code_id(),
                 progress, stop)  # fmt: skip
        world.barrier()
    world.leave()


def _evaluations(run: RunFolder) -> list[tuple[str, Evaluation]]:
    """The evaluations asked of a run, the small images first."""
    asked = []
    for eval_id in run.requests():
        config = read_json(run.request_file(eval_id))["config"]
        asked.append((eval_id, Evaluation.model_validate_json(json.dumps(config))))
    return sorted(asked, key=lambda pair: (pair[1].evaluate.resolution, pair[0]))


def _code(run: RunFolder) -> tuple[str, list[str]]:
    """This code's id, and those of all attempts that have trained this run."""
    before = {
        read_json(file)["code_id"]
        for file in (run.path / "attempts").glob("[0-9]*.json")
        if run.checkpoints()
    }
    return code_id(), sorted(before | {code_id()})


def _stop_on_signals() -> Callable[[], bool]:
    """SIGTERM, SIGUSR2 and SIGINT ask for a stop at the next step; the answer says if one came."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())

    def stop_asked() -> bool:
        return asked.is_set()

    return stop_asked


def _end_with_parent(stop: Callable[[], bool]) -> None:
    """When the launcher that started this process is gone, stop as if asked to."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


if __name__ == "__main__":
    exit_status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is on disk; gloo's threads may abort a process that takes its time to end.
    os._exit(exit_status)
