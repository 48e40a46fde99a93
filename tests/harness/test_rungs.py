"""Where runs are compared on the way: the rungs, the figure, and what cannot be compared."""

import json
from pathlib import Path

import pytest

from harness.ablation import read_ablation
from harness.errors import UserError
from harness.grid import expand
from harness.plan import make_plan
from harness.record import RunFolder
from harness.rungs import Rung, figure, ladders
from tests.tiny import Write

STOPPING = """\
question: Which rate?
base: base.yaml
set: {train.snapshots: [0.25, 0.5], job.scheduler: asha}
axes: {train.learning_rate: [1e-3, 2e-3], inference.law: [extrapolate, pi]}
evaluate: {resolution: [8, 12], after: [0.25, 1]}
"""


def found(path: Path, *changes: str, launcher: str = "ray") -> dict[str, tuple[Rung, ...]]:
    return ladders(make_plan(expand(read_ablation(path, changes)), path.parent / "none"), launcher)


def test_rungs_are_the_snapshots_that_have_evaluations(write: Write) -> None:
    path = write("stop.yaml", STOPPING)
    runs = found(path)
    assert len(runs) == 2
    for (rung,) in runs.values():  # nothing is measured after a half
        assert (rung.after, rung.steps) == (0.25, 5)
        assert len(rung.evaluations) == 3  # at 8 pixels the two laws are the same
    assert found(path, "job.scheduler=none") == {}


@pytest.mark.parametrize(
    ("old", "new", "launcher", "told"),
    [
        ("train.snapshots: [0.25, 0.5], ", "", "ray", "after 0.25"),
        (", after: [0.25, 1]", "", "ray", "has nothing to compare: set train.snapshots"),
        ("job.scheduler: asha", "job.scheduler: asha", "inline", "needs --launcher ray; with inl"),
        ("job.scheduler: asha", "job.scheduler: asha", "slurm", "needs --launcher ray; with slurm"),
        ("resolution: [8, 12]", "resolution: [1x]", "ray", "are measured in other ways there"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    write: Write, old: str, new: str, launcher: str, told: str
) -> None:
    text = STOPPING.replace(old, new)
    if "1x" in new:
        text = text.replace("axes: {", "axes: {data.resolution: [8, 16], ")
    with pytest.raises(UserError, match=told):
        found(write("stop.yaml", text), launcher=launcher)


def test_the_figure_is_the_mean_over_sizes_of_the_best_way(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    (run.path / "eval").mkdir(parents=True)

    def measured(eval_id: str, size: int, **fids: float) -> None:
        run.result_file(eval_id).write_text(
            json.dumps({
                "code_id": "", "config": {"evaluate": {"resolution": [size, size]}},
                "metrics": {f"fid.{name}": value for name, value in fids.items()} | {"is.a": 1.0},
                "marks": {"fid.a": "too few samples"},
            })
        )  # fmt: skip

    rung = Rung(0.5, 10, ("one", "two", "three"))
    measured("one", 8, a=1, b=4)
    measured("two", 12, a=1, b=16)
    assert figure(run, rung) is None  # one is missing
    measured("three", 12, a=1, b=9)
    assert figure(run, rung) == ("fid.b", pytest.approx(6.0))
    measured("one", 8, a=1, b=float("inf"))
    assert figure(run, rung) is None
