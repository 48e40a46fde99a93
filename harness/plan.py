"""The plan: what an ablation still needs, from its grid and from what lies on disk."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.claim import Attempt, claim, last_attempt
from harness.config import Evaluation, Training
from harness.errors import UserError
from harness.files import read_json
from harness.grid import Grid, expand
from harness.provenance import code_id
from harness.record import RunFolder, archive, run_folder


@dataclass(frozen=True)
class PlannedRun:
    """One training with the evaluations that this ablation asks of it."""

    folder: RunFolder
    group_id: str
    seed: int
    training: Training
    label: str  # of the first cell that needs it
    evaluations: dict[str, Evaluation]
    state: str
    reason: str
    evaluation_states: dict[str, tuple[str, str]] = field(default_factory=dict)
    queued: str = ""  # what is said of the job that holds it
    ended: str = ""  # how its last job ended, where its folder does not tell

    @property
    def run_id(self) -> str:
        return self.folder.run_id

    @property
    def has_results(self) -> bool:
        """Every evaluation is there, of this code or of an earlier one."""
        return all(state in ("done", "stale") for state, _ in self.evaluation_states.values())

    def wanted(self, retry_failed: bool) -> tuple[str, ...]:
        """The evaluations to make: a failed one is tried again on request only."""
        again = ("new", "stopped", "failed") if retry_failed else ("new", "stopped")
        return tuple(e for e, (state, _) in self.evaluation_states.items() if state in again)


@dataclass(frozen=True)
class Plan:
    grid: Grid
    runs: tuple[PlannedRun, ...]

    @property
    def trainings_without_sharing(self) -> int:
        return sum(len(cell.runs) for cell in self.grid.cells)

    def counts(self) -> Counter[str]:
        return Counter(run.state for run in self.runs)

    def startable(self, retry_failed: bool) -> list[PlannedRun]:
        """The runs that nobody is at work on and that have something to do."""
        states = ("new", "failed", "stopped") if retry_failed else ("new",)
        return [run for run in self.runs if run.state in states]

    def images_saved(self) -> int:
        """Training images that cells with a common training do not have to see again."""
        all_cells = sum(len(c.runs) * c.training.train.images for c in self.grid.cells)
        return all_cells - sum(run.training.train.images for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "ablation": self.grid.ablation.name,
            "question": self.grid.ablation.question,
            "cells": len(self.grid.cells),
            "runs": [
                {
                    "run_id": run.run_id,
                    "group_id": run.group_id,
                    "seed": run.seed,
                    "label": run.label,
                    "state": run.state,
                    "reason": run.reason,
                }
                for run in self.runs
            ],
            "evaluations": [
                {
                    "run_id": run.run_id,
                    "eval_id": eval_id,
                    "resolution": list(run.evaluations[eval_id].evaluate.resolution),
                    "state": state,
                    "reason": reason,
                }
                for run in self.runs
                for eval_id, (state, reason) in run.evaluation_states.items()
            ],
            "dropped": dict(self.grid.dropped),
            "notes": list(self.grid.notes),
            "trainings_without_sharing": self.trainings_without_sharing,
            "code_id": code_id(),
        }


def make_plan(
    grid: Grid,
    outputs: Path,
    queued: Mapping[str, str] | None = None,
    ended: Mapping[str, str] | None = None,
) -> Plan:
    """Compare a grid with the run folders under `outputs`.

    Args:
        queued: run id -> what is said of the job that holds it and has not begun with it.
        ended: run id -> how its job ended, for those whose folders do not tell.

    Raises:
        UserError: a folder that a newer version wrote, or a damaged record.
    """
    needs: dict[str, tuple[str, int, Training, str, dict[str, Evaluation]]] = {}
    for cell in grid.cells:
        for seed, run_id in cell.runs:
            need = needs.setdefault(run_id, (cell.group_id, seed, cell.training, cell.label, {}))
            for measurement in cell.measurements:
                need[4][measurement.eval_id] = measurement.evaluation
    runs = []
    for run_id, (group_id, seed, training, label, evaluations) in needs.items():
        folder = run_folder(outputs, run_id)
        holder = (queued or {}).get(run_id, "")
        how = (ended or {}).get(run_id, "")
        state, reason, states = state_of(folder, evaluations, holder, how)
        if state == "stopped" and (why := _goes_on(grid, folder)):
            state, reason = "new", f"{reason}; goes on, for {why}"
        runs.append(
            PlannedRun(folder, group_id, seed, training, label, evaluations, state, reason, states,
                       holder, how)
        )  # fmt: skip
    return Plan(grid, tuple(runs))


def _goes_on(grid: Grid, folder: RunFolder) -> str:
    """Why a run that early stopping ended is not stopped in this ablation; empty where it is."""
    if grid.job.scheduler == "none":
        return "job.scheduler is none"
    # All of the ablation's, whatever --only left of them.
    own = {run_id for cell in expand(grid.ablation).cells for _, run_id in cell.runs}
    return "" if folder.stopped_against() <= own else "other runs than here were better there"


def state_of(
    folder: RunFolder, evaluations: Iterable[str], queued: str = "", ended: str = ""
) -> tuple[str, str, dict[str, tuple[str, str]]]:
    """A run's state, the reason for it, and the same for each of its evaluations.

    Args:
        queued: what is said of the job that holds it. ended: how its last job ended.
    """
    if not folder.exists():
        return "new", "not yet trained", dict.fromkeys(evaluations, ("new", "not yet trained"))
    folder.spec()
    done, last = folder.done(), last_attempt(folder)
    trained_by = set(done["code_ids"]) if done else set()
    states = {eval_id: _evaluation_state(folder, eval_id, trained_by) for eval_id in evaluations}
    kinds = Counter(state for state, _ in states.values())
    missing = kinds["new"] + kinds["failed"]
    if done and kinds["done"] == len(states):
        return "done", f"trained, {len(states)} evaluations", states
    if last is not None and last.alive:
        return "running", queued or _who(last), states
    if missing == 0 and done:
        return "stale", _first(states, "stale"), states
    if queued:
        return "queued", queued, states
    if not done and (why := folder.stopped()) is not None:
        left = {e: ("stopped", why) for e, (state, _) in states.items() if state == "new"}
        return "stopped", why, states | left
    if kinds["failed"] and not kinds["new"]:
        return "failed", _first(states, "failed"), states
    if last is not None and last.data.get("outcome") == "failed":
        return "failed", last.data.get("error") or "no reason was left; see log.txt", states
    if done:
        why = f" ({ended})" if ended else ""
        return "new", f"trained; {missing} of {len(states)} evaluations are missing{why}", states
    error = (last.data.get("error") if last is not None else "") or ended
    why = f" ({error})" if error else ""
    checkpoints = folder.checkpoints()
    if checkpoints:
        step = int(checkpoints[-1].name.removeprefix("step-"))
        reason = f"interrupted{why}; goes on from its checkpoint at step {step}"
        if others := _trained_by_others(folder):
            reason += f", made by code {min(others)} (--redo-stale starts over)"
        return "new", reason, states
    if last is not None:
        return "new", f"interrupted before its first checkpoint{why}", states
    return "new", f"not yet trained{why}", states


def _first(states: dict[str, tuple[str, str]], wanted: str) -> str:
    return next(reason for state, reason in states.values() if state == wanted)


def _trained_by_others(folder: RunFolder) -> set[str]:
    """Ids of code other than this that trained the run so far, by its record or checkpoint."""
    done, checkpoints = folder.done(), folder.checkpoints()
    found: list[str] = done["code_ids"] if done else []
    if not done and checkpoints:
        with contextlib.suppress(UserError):  # a damaged checkpoint is passed over
            found = read_json(checkpoints[-1] / "state.json", needs=("code_ids",))["code_ids"]
    return set(found) - {code_id()}


def _evaluation_state(folder: RunFolder, eval_id: str, trained_by: set[str]) -> tuple[str, str]:
    result = folder.result(eval_id)
    if result is None:
        if (failure := folder.failure(eval_id)) is not None:
            return "failed", failure
        return "new", "not yet measured" if trained_by else "not yet trained"
    others = (trained_by | {result["code_id"]}) - {code_id()}
    if others:
        return "stale", f"made by code {min(others)}, now it is {code_id()}"
    return "done", "measured"


def _who(attempt: Attempt) -> str:
    data = attempt.data
    return f"process {data['pid']} on {data['host'].split('/')[0]} is at work on it"


def redo_stale(plan: Plan) -> list[Path]:
    """Archive the stale runs, and the stale evaluations of runs whose training is not stale.

    A run that a process is at work on, or that a job in the queue holds, is left alone.
    """
    moved = []
    for run in plan.runs:
        if run.queued:
            continue
        stale = any(state == "stale" for state, _ in run.evaluation_states.values())
        others = _trained_by_others(run.folder) if run.folder.exists() else set()
        if not (stale or others):
            continue
        held = claim(run.folder, code_id=code_id())
        if held is None:
            continue
        if others:
            held.hold_still()
            moved.append(archive(run.folder))
            continue
        held.end("interrupted", "stale evaluations were moved aside")
        for eval_id, (state, _) in run.evaluation_states.items():
            if state == "stale":
                moved.append(archive(run.folder, eval_id))
    return moved
