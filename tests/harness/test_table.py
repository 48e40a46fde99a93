from io import StringIO
from pathlib import Path

from rich.console import Console

from harness.ablation import read_ablation
from harness.claim import claim
from harness.files import write_json
from harness.grid import expand
from harness.plan import Plan, make_plan
from harness.record import prepare
from harness.table import Watch, duration, figures, show_plan, status
from tests.tiny import Write


def plan_of(write: Write, tmp_path: Path) -> Plan:
    text = (
        "question: What [bold]?\nbase: base.yaml\n"
        "axes: {data.resolution: [[8, 12]], model.encoding: [rope, sincos]}\n"
        "exclude: [{name: '[red]', if: {model.encoding: none}}]\n"
        "evaluate: {resolution: [8]}\n"
    )
    plan = make_plan(expand(read_ablation(write("a.yaml", text))), tmp_path / "outputs")
    for run in plan.runs:
        prepare(run.folder, run.training, run.group_id, run.seed, plan.grid.job, run.evaluations)
    return plan


def test_durations() -> None:
    assert [duration(s) for s in (3, 75, 3700, 360_000)] == [
        "3 s", "1 min 15 s", "1 h 01 min", "100 h 00 min",
    ]  # fmt: skip


def test_a_line_tells_the_work_at_hand(write: Write, tmp_path: Path) -> None:
    run = plan_of(write, tmp_path).runs[0]
    assert status(run)["state"] == "new"
    held = claim(run.folder)
    assert held is not None
    assert status(run)["work"] == "starting"
    held.progress |= {
        "stage": "train", "step": 5, "steps": 20, "loss": 0.5,
        "images_per_second": 812.3, "seconds_left": 75.0,
    }  # fmt: skip
    held.end("interrupted")
    data = held.data | {"progress": held.progress}
    write_json(held.file, data)  # as while it was alive
    line = status(run)
    assert (line["work"], line["loss"]) == ("step 5/20", "0.5000")
    assert (line["images/s"], line["left"]) == ("812", "1 min 15 s")


def test_names_with_brackets_are_shown_as_they_are(write: Write, tmp_path: Path) -> None:
    plan = plan_of(write, tmp_path)
    screen = StringIO()
    console = Console(file=screen, width=160)
    show_plan(plan, console, every_run=True)
    shown = screen.getvalue()
    assert "What [bold]?" in shown
    assert "data.resolution=[8, 12]" in shown
    assert "exclude '[red]' dropped 0 cells" in shown
    terminal = Console(file=StringIO(), width=60, height=10, force_terminal=True)
    table = Watch(list(plan.runs), terminal)._table()
    console.print(table)
    assert table.row_count == 2


def test_the_best_figures_have_their_own_name_and_count(write: Write, tmp_path: Path) -> None:
    text = (
        "question: q?\nbase: base.yaml\naxes: {inference.law: [extrapolate, pi, ntk]}\n"
        "evaluate: {resolution: [8, 12], samples: [40, 80]}\n"
    )
    grid = expand(read_ablation(write("b.yaml", text)))
    (run,) = make_plan(grid, tmp_path / "outputs").runs
    assert figures(run) == ""
    values = {"extrapolate": 14.6, "pi": 15.0, "ntk": 16.0}
    for eval_id, evaluation in run.evaluations.items():
        side, count = evaluation.evaluate.resolution[0], evaluation.evaluate.samples
        value = values[evaluation.inference.law] + side - 8 - (10 if count == 40 else 0)
        metrics = {"fid-infinity.fashion-cnn": 1.0, "patch-fid.fashion-cnn": 2.0, "fid": 3.0,
                   "fid.fashion-cnn": value}  # fmt: skip
        result = {"code_id": "c0de", "metrics": metrics, "marks": {"fid": "40 samples"},
                  "protocol": {"upsampled": float(side > 8)}}  # fmt: skip
        write_json(run.folder.result_file(eval_id), result)
    assert figures(run) == "best fid.fashion-cnn 14.6 @8x8  18.6 @12x12§"


def test_the_figures_are_those_of_the_longest_training(write: Write, tmp_path: Path) -> None:
    text = (
        "question: q?\nbase: base.yaml\nset: {train.snapshots: [0.25, 0.5]}\n"
        "evaluate: {resolution: [8], after: [0.25, 0.5, 1]}\n"
    )
    (run,) = make_plan(expand(read_ablation(write("c.yaml", text))), tmp_path / "outputs").runs
    told = []
    values = {0.25: 7.0, 0.5: 8.0, 1.0: 9.0}
    for eval_id, evaluation in run.evaluations.items():
        metrics = {"fid.fashion-cnn": values[evaluation.evaluate.after]}
        write_json(run.folder.result_file(eval_id), {"code_id": "c0de", "metrics": metrics})
        told.append(figures(run).removeprefix("best fid.fashion-cnn "))
    assert told == ["7 @8x8 after 25 %", "8 @8x8 after 50 %", "9 @8x8"]
