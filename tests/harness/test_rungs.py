"""Where runs are compared on the way: the rungs, the figure, and what cannot be compared."""

import json
from pathlib import Path

import pytest

from harness.ablation import read_ablation
from harness.errors import UserError
from harness.files import write_json
from harness.grid import expand
from harness.launch.asha import write_verdict
from harness.plan import make_plan
from harness.record import RunFolder
from harness.rungs import Rung, figure, judged, ladders
from tests.tiny import Write, prepared

STOPPING = """\
question: Which rate?
base: base.yaml
set: {train.snapshots: [0.25, 0.5], job.scheduler: asha}
axes: {train.learning_rate: [1e-3, 2e-3], inference.law: [extrapolate, pi]}
evaluate: {resolution: [8, 12], after: [0.25, 1]}
baseline: {train.learning_rate: 2e-3, inference.law: pi}
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
    assert [rung.stops for (rung,) in runs.values()] == [True, False]  # not the baseline
    assert found(path, "job.scheduler=none") == {}


@pytest.mark.parametrize(
    ("old", "new", "launcher", "told"),
    [
        ("train.snapshots: [0.25, 0.5], ", "", "ray", "after 0.25"),
        (", after: [0.25, 1]", "", "ray", "has nothing to compare: set train.snapshots"),
        ("job.scheduler: asha", "job.scheduler: asha", "inline", "needs --launcher ray; with inl"),
        ("job.scheduler: asha", "job.scheduler: asha", "slurm", "needs --launcher ray; with slurm"),
        (
            "question:",
            "seeds: [0, 1]\nquestion:",
            "ray",
            "needs all of its 2 seeds: give --seeds 1",
        ),
        ("resolution: [8, 12]", "resolution: [1x]", "ray", "are measured in other ways there"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    write: Write, old: str, new: str, launcher: str, told: str
) -> None:
    text = STOPPING.replace(old, new)
    if "1x" in new:
        text = text.replace("axes: {", "axes: {data.resolution: [8, 16], ")
        text = text.replace("baseline: {", "baseline: {data.resolution: 8, ")
    with pytest.raises(UserError, match=told):
        found(write("stop.yaml", text), launcher=launcher)


def test_a_verdict_holds_where_all_are_that_it_was_a_comparison_with(
    write: Write, tmp_path: Path
) -> None:
    outputs, path = tmp_path / "outputs", write("stop.yaml", STOPPING)
    better = prepared(outputs, path, cell=2)  # the other learning rate
    worse = prepared(outputs, path)
    rungs = found(path)
    for run, value in ((better, 1.0), (worse, 2.0)):
        for eval_id in rungs[run.run_id][0].evaluations:
            write_json(run.result_file(eval_id), {
                "code_id": "", "config": {"evaluate": {"resolution": [8, 8]}},
                "metrics": {"fid.a": value},
            })  # fmt: skip

    def states(*changes: str) -> list[str]:
        grid = expand(read_ablation(path, changes))
        return [run.state for run in make_plan(grid, outputs).runs]

    (rung,) = rungs[worse.run_id]
    assert not judged(worse, rung, rungs)  # measured, and then a kill came
    write_verdict(worse.run_id, 0, True, rungs, outputs)
    assert judged(worse, rung, rungs)
    assert not judged(worse, rung, [worse.run_id])
    assert worse.stopped_against() == {better.run_id}
    assert "number 2 of 2 runs" in (worse.stopped() or "")
    assert states() == ["stopped", "new"]
    assert states("job.scheduler=none") == ["new", "new"]
    # Another ablation, which has only one of them; --only takes none away.
    text = STOPPING.replace("[1e-3, 2e-3]", "[1e-3, 3e-3]").replace("rate: 2e-3", "rate: 3e-3")
    other, picked = expand(read_ablation(write("other.yaml", text))), "learning_rate=0.001"
    first = make_plan(other, outputs).runs[0]
    assert (first.run_id, first.state) == (worse.run_id, "new")
    assert first.reason.endswith("goes on, for other runs than here were better there")
    assert make_plan(expand(read_ablation(path), picked), outputs).counts() == {"stopped": 1}
    prepared(outputs, path)  # a command that fails before it starts anything
    assert worse.stopped_file.exists()


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
