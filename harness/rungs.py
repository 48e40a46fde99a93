"""Early stopping: where runs are compared on the way, and by which figure. No torch, no ray.

A rung is one of `train.snapshots` at which the ablation has evaluations. There a run is judged by
its FID: at each size the best of its evaluations (they may differ in what is done at inference),
and of these the geometric mean. Runs are comparable where they are measured in the same ways.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.config import Evaluation, Training
from harness.errors import UserError
from harness.files import read_json
from harness.plan import Plan, PlannedRun
from harness.record import RunFolder
from harness.stages import steps_until

KEPT = 3  # of so many runs that come to a rung one goes on: the reduction factor
TINY = 1e-9  # an FID may come out as 0, or a little below


@dataclass(frozen=True)
class Rung:
    """A share of a training after which its run is compared with the others."""

    after: float
    steps: int  # of the training
    evaluations: tuple[str, ...]  # ids of those the ablation has there
    stops: bool = True  # whether a run may be stopped there: not so the baseline's


def ladder(
    training: Training, evaluations: Mapping[str, Evaluation], stops: bool = True
) -> tuple[Rung, ...]:
    """The rungs of a run, in order."""
    found = []
    for share in training.train.snapshots:
        there = tuple(sorted(e for e, one in evaluations.items() if one.evaluate.after == share))
        if there:
            found.append(Rung(share, steps_until(training, share), there, stops))
    return tuple(found)


def ladders(plan: Plan, launcher: str) -> dict[str, tuple[Rung, ...]]:
    """Run id -> its rungs, of every run in a plan; empty where nothing is stopped early.

    Raises:
        UserError: a run has none, two runs are not measured the same way at one of them, there
            are several seeds, or the launcher knows no early stopping.
    """
    found: dict[str, tuple[Rung, ...]] = {}
    if plan.grid.job.scheduler == "none":
        return found
    if launcher != "ray":
        raise UserError(
            f"job.scheduler asha needs --launcher ray; with {launcher} set job.scheduler: none"
        )
    if len(seeds := plan.grid.ablation.seeds) > 1:
        raise UserError(
            f"{plan.grid.ablation.path}: job.scheduler asha stops single runs, and a row needs all "
            f"of its {len(seeds)} seeds: give --seeds 1, then all seeds of the rows that are left "
            "with --only and job.scheduler=none"
        )
    # Every row is compared with it: without it the report has no difference.
    baseline = {
        run_id
        for cell in plan.grid.cells
        if cell.cell_id == plan.grid.baseline
        for _, run_id in cell.runs
    }
    ways: dict[float, tuple[object, PlannedRun]] = {}
    for run in plan.runs:
        found[run.run_id] = ladder(run.training, run.evaluations, run.run_id not in baseline)
        if not found[run.run_id]:
            raise UserError(
                f"{plan.grid.ablation.path}: job.scheduler asha compares runs on the way, and "
                f"'{run.label}' has nothing to compare: set train.snapshots, as [0.25, 0.5], and "
                "the column 'evaluate: {after: [0.25, 0.5, 1]}'; or set job.scheduler: none"
            )
        for rung in found[run.run_id]:
            way = _way(run.evaluations[e] for e in rung.evaluations)
            first, other = ways.setdefault(rung.after, (way, run))
            if first != way:
                raise UserError(
                    f"{plan.grid.ablation.path}: job.scheduler asha compares runs after "
                    f"{100 * rung.after:g} % of the training, but '{other.label}' and "
                    f"'{run.label}' are measured in other ways there (sizes, samples, "
                    "extractors); make them equal, or set job.scheduler: none"
                )
    return found


def _way(evaluations: Iterable[Evaluation]) -> object:
    """How a run is measured at a rung, whatever is done at inference."""
    return sorted({one.evaluate.model_dump_json() for one in evaluations})


def judged(run: RunFolder, rung: Rung, among: Collection[str]) -> bool:
    """Whether a run has its verdict at a rung, from a comparison with none but these runs."""
    file = run.verdict_file(rung.steps)
    return file.exists() and set(among).issuperset(read_json(file, needs=("against",))["against"])


def figure(run: RunFolder, rung: Rung) -> tuple[str, float] | None:
    """The metric and the figure by which a run is judged at a rung, smaller is better.

    None while an evaluation of it is missing, or where no figure is finite: nothing is judged then.
    """
    results = [run.result(eval_id) for eval_id in rung.evaluations]
    name = _metric(results)
    if name is None:
        return None
    best: dict[object, float] = {}
    for result in results:
        assert result is not None
        size, value = tuple(result["config"]["evaluate"]["resolution"]), result["metrics"][name]
        best[size] = min(value if math.isfinite(value) else math.inf, best.get(size, math.inf))
    mean = math.exp(sum(math.log(max(value, TINY)) for value in best.values()) / len(best))
    return (name, mean) if math.isfinite(mean) else None


def _metric(results: list[Any]) -> str | None:
    """The first FID that all of these have, those without a mark before the others."""
    if not results or not all(results):
        return None
    names = [name for name in results[0]["metrics"] if name.partition(".")[0] == "fid"]
    names = [name for name in names if all(name in result["metrics"] for result in results)]
    sound = [n for n in names if not any(n in result.get("marks", {}) for result in results)]
    return next(iter([*sound, *names]), None)
