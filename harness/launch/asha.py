"""Early stopping by Ray Tune's ASHA: at each rung, runs that are not among the best so far stop.

The scheduler is asynchronous: it compares a run with those that came to the rung before it, and
the first ones always go on (Li et al., "A system for massively parallel hyperparameter tuning",
arXiv:1810.05934).
"""

import math
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.files import FORMAT, write_json
from harness.record import run_folder
from harness.rungs import KEPT, Rung, figure

# Names in a trial's reports. Rung n is at KEPT**n units: there, and nowhere else, Tune's scheduler
# of this reduction factor looks.
BUDGET, FIGURE = "budget", "figure"

Ladders = Mapping[str, tuple[Rung, ...]]  # by run id


def report(number: int, value: float) -> None:
    """Tell the scheduler a trial's figure at rung `number`, from 0; smaller is better.

    Returns when the run may go on. Where it may not, Tune ends the worker.
    """
    from ray import tune

    tune.report({BUDGET: KEPT**number, FIGURE: value})


def scheduler(ladders: Ladders, due: Collection[tuple[str, int]], outputs: Path) -> Any:
    """A scheduler that knows what is measured already, and writes down each of its verdicts.

    Args:
        ladders: of all runs that are compared, whichever are to be started.
        due: (run id, rung) of what trials report: it may be measured and not yet judged.
    """
    from ray.tune.schedulers import ASHAScheduler

    class Asha(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if BUDGET not in result:  # the trial is over
                return str(self.CONTINUE)
            run = run_folder(outputs, Path(trial.config["work"]["run_dir"]).name)
            number = round(math.log(result[BUDGET], KEPT))
            known = SimpleNamespace(trial_id=run.run_id)
            worse = super().on_trial_result(tune_controller, known, result) == self.STOP
            # Once a training is over there is nothing to save.
            stops = worse and ladders[run.run_id][number].stops and run.done() is None
            write_verdict(run.run_id, number, stops, ladders, outputs)
            return str(self.STOP if stops else self.CONTINUE)

    most = max(len(rungs) for rungs in ladders.values())
    found = Asha(
        time_attr=BUDGET,
        metric=FIGURE,
        mode="min",
        grace_period=1,
        reduction_factor=KEPT,
        max_t=KEPT**most,
    )
    for run_id, rungs in ladders.items():
        known = SimpleNamespace(trial_id=run_id)
        found.on_trial_add(None, known)
        for number, rung in enumerate(rungs):
            if (run_id, number) in due:
                continue
            if measured := figure(run_folder(outputs, run_id), rung):
                result = {BUDGET: KEPT**number, FIGURE: measured[1]}
                ASHAScheduler.on_trial_result(found, None, known, result)  # judged before
    return found


def write_verdict(run_id: str, number: int, stops: bool, ladders: Ladders, outputs: Path) -> None:
    """Write down whether a run stops at rung `number`, and what it was compared with."""
    run = run_folder(outputs, run_id)
    rung = ladders[run_id][number]
    mine = figure(run, rung)
    assert mine is not None  # it was reported
    others = {
        other: found[1]
        for other, rungs in ladders.items()
        if number < len(rungs) and (found := figure(run_folder(outputs, other), rungs[number]))
    }
    verdict = {
        "format": FORMAT,
        "after": rung.after,
        "stops": stops,
        "metric": mine[0],
        "value": mine[1],
        "place": sum(value < mine[1] for value in others.values()) + 1,
        "of": len(others),
        "against": sorted(others.keys() - {run_id}),
        "time": time.time(),
    }
    if stops:  # first: whoever has a verdict at a rung is not judged there again
        write_json(run.stopped_file, verdict)
    write_json(run.verdict_file(rung.steps), verdict)
