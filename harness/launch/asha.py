"""Early stopping by Ray Tune's ASHA: at each rung, runs that are not among the best so far stop.

The scheduler is asynchronous: it compares a run with those that came to the rung before it, and
the first ones always go on (Li et al., "A system for massively parallel hyperparameter tuning",
arXiv:1810.05934).
"""

import math
import time
from collections.abc import Mapping
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


def scheduler(ladders: Ladders, outputs: Path) -> Any:
    """A scheduler that knows what is measured already, and writes down whom it stops.

    Args:
        ladders: of all runs that are compared, whichever are to be started.
    """
    from ray.tune.schedulers import ASHAScheduler

    class Asha(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            decision: str = super().on_trial_result(tune_controller, trial, result)
            if decision == self.STOP:
                run = Path(trial.config["work"]["run_dir"]).name
                write_stopped(run, round(math.log(result[BUDGET], KEPT)), ladders, outputs)
            return decision

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
            if measured := figure(run_folder(outputs, run_id), rung):
                result = {BUDGET: KEPT**number, FIGURE: measured[1]}
                ASHAScheduler.on_trial_result(found, None, known, result)  # judged before
    return found


def write_stopped(run_id: str, number: int, ladders: Ladders, outputs: Path) -> None:
    """Write down that a run stops at rung `number`, and what it was compared with."""
    run = run_folder(outputs, run_id)
    rung = ladders[run_id][number]
    mine = figure(run, rung)
    assert mine is not None  # it was reported
    others = [
        found[1]
        for other, rungs in ladders.items()
        if number < len(rungs) and (found := figure(run_folder(outputs, other), rungs[number]))
    ]
    write_json(
        run.stopped_file,
        {
            "format": FORMAT,
            "after": rung.after,
            "rung": number,
            "metric": mine[0],
            "value": mine[1],
            "place": sum(value < mine[1] for value in others) + 1,
            "of": len(others),
            "time": time.time(),
        },
    )
