"""The run folder: the truth about one training run and its evaluations.

    <outputs>/runs/<run_id>/
        spec.json               what is trained, frozen: configuration, seed, ids
        job.json                where and in what portions (may change between attempts)
        requests/<eval_id>.json evaluations asked of this run, frozen
        attempts/0001.json      who works or worked on it (harness.claim); 0001.stop asks it to end
        provenance/0001.json    commit, uncommitted diff, packages, host, device of that attempt
        metrics.jsonl           one line each `job.log_every` steps
        checkpoints/step-00000200/
        weights.safetensors     the moving average of the trained weights, fp32
        weights-00000100.safetensors   the same after that many steps, of train.snapshots
        DONE                    the training is finished; written after everything it speaks for
        eval/<eval_id>.json     a finished evaluation with its figures
        eval/<eval_id>.failed.json   why one failed when it was last tried
        rungs/00000100.json     what early stopping made of it there: by which figure, against whom
        stopped.json            the one of these that ended it, until it goes on
        samples/<eval_id>.png   a grid of its first images
        log.txt                 what its processes printed

A finished file appears by rename, so whatever has its final name is whole.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import FORMAT, Json, read_json, write_json
from harness.identity import training_json


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run, and what can be read from them."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def weights_file(self) -> Path:
        return self.path / "weights.safetensors"

    def snapshot_file(self, step: int) -> Path:
        """The averaged weights after so many steps."""
        return self.path / f"weights-{step:08d}.safetensors"

    @property
    def done_file(self) -> Path:
        return self.path / "DONE"

    @property
    def log_file(self) -> Path:
        return self.path / "log.txt"

    def request_file(self, eval_id: str) -> Path:
        return self.path / "requests" / f"{eval_id}.json"

    def result_file(self, eval_id: str) -> Path:
        return self.path / "eval" / f"{eval_id}.json"

    def influence_file(self, eval_id: str) -> Path:
        return self.path / "eval" / f"{eval_id}.influence.safetensors"

    def shards_folder(self, eval_id: str) -> Path:
        return self.path / "features" / eval_id

    def samples_file(self, eval_id: str) -> Path:
        return self.path / "samples" / f"{eval_id}.png"

    def exists(self) -> bool:
        return self.spec_file.exists()

    def spec(self) -> Json:
        return read_json(self.spec_file)

    def done(self) -> Json | None:
        """What `DONE` says of the finished training; None while it, or its weights, are not there.

        Lost weights are made again from the last checkpoint.
        """
        if not (self.done_file.exists() and self.weights_file.exists()):
            return None
        return read_json(self.done_file, needs=("code_ids", "images", "seconds"))

    def result(self, eval_id: str) -> Json | None:
        """A finished evaluation, or None."""
        file = self.result_file(eval_id)
        return read_json(file, needs=("code_id", "metrics")) if file.exists() else None

    def failure_file(self, eval_id: str) -> Path:
        return self.path / "eval" / f"{eval_id}.failed.json"

    def failure(self, eval_id: str) -> str | None:
        """Why an evaluation failed when it was last tried, or None."""
        file = self.failure_file(eval_id)
        return str(read_json(file, needs=("error",))["error"]) if file.exists() else None

    @property
    def stopped_file(self) -> Path:
        return self.path / "stopped.json"

    def verdict_file(self, step: int) -> Path:
        """What early stopping made of the run after so many steps."""
        return self.path / "rungs" / f"{step:08d}.json"

    def stopped_against(self) -> set[str]:
        """Ids of the runs that this one was compared with when early stopping ended it."""
        return set(read_json(self.stopped_file).get("against", ()))

    def stopped(self) -> str | None:
        """Why early stopping ended this run, or None where it did not."""
        if not self.stopped_file.exists():
            return None
        told = read_json(self.stopped_file, needs=("after", "metric", "value", "place", "of"))
        return (
            f"stopped early, after {100 * told['after']:.3g} % of the training: {told['metric']} "
            f"{told['value']:.3g} there is number {told['place']} of {told['of']} runs so far"
        )

    def checkpoints(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob(f"step-{'[0-9]' * 8}"))

    def requests(self) -> list[str]:
        """Ids of the evaluations asked of this run."""
        return sorted(file.stem for file in (self.path / "requests").glob("*.json"))

    def metrics(self) -> Iterator[Json]:
        """The lines of metrics.jsonl; a last line that a kill cut short is passed over."""
        if not self.metrics_file.exists():
            return
        with self.metrics_file.open(errors="replace") as file:
            for line in file:
                if not line.endswith("\n"):
                    return
                try:
                    yield json.loads(line)
                except ValueError:
                    raise UserError(
                        f"{self.metrics_file}: is damaged (a line is not JSON); remove that line"
                    ) from None

    def log_tail(self, lines: int = 5) -> list[str]:
        """The last lines that its processes printed."""
        if not self.log_file.exists():
            return []
        with self.log_file.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            text = file.read().decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()][-lines:]


def run_folder(outputs: Path, run_id: str) -> RunFolder:
    return RunFolder(outputs / "runs" / run_id)


def prepare(
    run: RunFolder,
    training: Any,
    group_id: str,
    seed: int,
    job: Any,
    evaluations: Mapping[str, Any],
) -> None:
    """Freeze what a job is to do: spec, job and requests, each written once by rename.

    Args:
        training: `config.Training`, canonical. job: `config.Job`.
        evaluations: eval id -> `config.Evaluation`, canonical.
    """
    spec = training_json(training)
    spec |= {"run_id": run.run_id, "group_id": group_id, "seed": seed}
    # The same pictures may have moved to another folder.
    if not run.exists() or run.spec()["config"]["data"] != spec["config"]["data"]:
        write_json(run.spec_file, spec)
    write_json(run.path / "job.json", job.model_dump(mode="json"))
    for eval_id, evaluation in evaluations.items():
        if not run.request_file(eval_id).exists():
            request = {"format": FORMAT, "eval_id": eval_id}
            request |= {"config": evaluation.model_dump(mode="json")}
            write_json(run.request_file(eval_id), request)


def archive(run: RunFolder, eval_id: str | None = None) -> Path:
    """Move a stale run, or one stale evaluation of it, out of the way; nothing is deleted."""
    source = run.path if eval_id is None else run.result_file(eval_id)
    folder = run.path.parent.parent / "archive"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = run.run_id if eval_id is None else f"{run.run_id}-{eval_id}.json"
    number = 0
    while (target := folder / f"{stamp}-{number}-{name}").exists():
        number += 1
    source.rename(target)
    return target
