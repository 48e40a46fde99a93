import time

import pytest

from harness.ablation import Ablation, read_ablation
from harness.config import Training
from harness.errors import UserError
from harness.grid import Grid, count_cells, expand, to_json
from tests.tiny import Write

HEAD = "question: What?\nbase: base.yaml\n"


def grid(write: Write, text: str, *changes: str, only: str | None = None) -> Grid:
    return expand(read_ablation(write("a.yaml", HEAD + text), changes), only)


def labels(found: Grid) -> list[str]:
    return [cell.label for cell in found.cells]


def test_the_empty_grid_is_its_base(write: Write) -> None:
    found = grid(write, "")
    assert labels(found) == ["base"]
    assert [seed for seed, _ in found.cells[0].runs] == [0]


def test_axes_are_a_product_and_zips_go_together(write: Write) -> None:
    found = grid(
        write,
        "axes: {model.encoding: [rope, sincos], train.batch: [16, 32]}\n"
        "zip: [{augmentation.kind: [none, resize_crop], micro_conditioning.kind: [none, crop]}]\n",
    )
    assert len(found.cells) == 2 * 2 * 2
    pairs = {
        (c.training.augmentation.kind, c.training.micro_conditioning.kind) for c in found.cells
    }
    assert pairs == {("none", "none"), ("resize_crop", "crop")}


def test_when_adds_axes_under_another_value(write: Write) -> None:
    found = grid(
        write,
        "axes: {model.encoding: [rope, sincos, none]}\n"
        "when:\n  - {if: {model.encoding: rope}, axes: {inference.law: [extrapolate, pi, ntk]}}\n"
        "evaluate: {resolution: [8, 12]}\n",
    )
    assert len(found.cells) == 3 + 1 + 1
    assert len({c.group_id for c in found.cells}) == 3


def test_exclude_counts_what_it_drops(write: Write) -> None:
    found = grid(
        write,
        "axes: {model.encoding: [rope, sincos], train.batch: [16, 32]}\n"
        "exclude:\n"
        "  - {name: small, if: {model.encoding: sincos, train.batch: 16}}\n"
        "  - {name: never, if: {train.batch: 64}}\n"
        "  - {name: either, if: {model.encoding: [none, rope], train.batch: 32}}\n",
    )
    assert found.dropped == {"small": 1, "never": 0, "either": 1}
    assert labels(found) == [
        "model.encoding=rope train.batch=16",
        "model.encoding=sincos train.batch=32",
    ]


def test_conditions_see_values_that_no_axis_sets(write: Write) -> None:
    found = grid(
        write,
        "axes: {train.batch: [16, 32]}\n"
        "exclude: [{name: all rope of 16, if: {model.encoding: rope, train.batch: 16}}]\n",
    )
    assert found.dropped == {"all rope of 16": 1}


def test_include_adds_and_identical_cells_merge(write: Write) -> None:
    found = grid(
        write,
        "axes: {model.encoding: [rope, sincos]}\n"
        "include: [{model.encoding: none}, {model.encoding: rope}, {train.batch: 32}]\n",
    )
    assert labels(found) == ["model.encoding=rope", "model.encoding=sincos", "model.encoding=none"]
    assert len(found.notes) == 2
    assert "merged" in found.notes[0]


def test_a_repeated_value_merges_with_a_note(write: Write) -> None:
    found = grid(write, "axes: {positions.range_multiplier: [1, 1.0]}\n")
    assert len(found.cells) == 1
    assert "merged" in found.notes[0]


def test_methods_of_inference_share_one_training(write: Write) -> None:
    found = grid(
        write,
        "axes: {inference.law: [extrapolate, pi, ntk]}\nseeds: [0, 1]\n"
        "evaluate: {resolution: [8, 12, 16]}\n",
    )
    assert len({run_id for cell in found.cells for _, run_id in cell.runs}) == 2
    at_training_size = {cell.measurements[0].eval_id for cell in found.cells}
    assert len(at_training_size) == 1  # every law is the identity at scale 1
    assert len({m.eval_id for c in found.cells for m in c.measurements}) == 1 + 2 * 3


def test_evaluation_axes_are_columns(write: Write) -> None:
    found = grid(write, "evaluate: {resolution: [8, [8, 12]], inference.guidance: [1, 2]}\n")
    columns = [dict(m.column) for m in found.cells[0].measurements]
    assert columns[1] == {"evaluate.resolution": 8, "inference.guidance": 2}
    assert found.cells[0].measurements[2].evaluation.evaluate.resolution == (8, 12)


def test_ids_depend_on_meaning_not_on_spelling(write: Write) -> None:
    one = grid(write, "set: {train.learning_rate: 1e-3, train.batch: 16}\n")
    two = grid(write, "set: {train: {batch: 16, learning_rate: 0.001}}\nseeds: [0, 3]\n")
    assert one.cells[0].runs[0] == two.cells[0].runs[0]
    assert one.cells[0].runs[0][1] != two.cells[0].runs[1][1]
    other = grid(write, "set: {train.batch: 16}\n", "train.learning_rate=2e-4")
    assert other.cells[0].group_id != one.cells[0].group_id


def test_where_the_work_is_done_changes_no_id(write: Write) -> None:
    one = grid(write, "")
    two = grid(write, "set: {job.cpus: 2, job.ranks: 2, job.checkpoint_every: 7}\n")
    assert one.cells[0].runs == two.cells[0].runs
    assert two.job.ranks == 2


def test_the_baseline_is_one_cell(write: Write) -> None:
    axes = "axes: {model.encoding: [rope, sincos], train.batch: [16, 32]}\n"
    found = grid(write, axes + "baseline: {model.encoding: sincos, train.batch: 32}\n")
    assert found.baseline == found.cells[3].cell_id
    with pytest.raises(UserError, match=r"a\.yaml:4: baseline 'model\.encoding=none' is no cell"):
        grid(write, axes + "baseline: {model.encoding: none}\n")
    with pytest.raises(UserError, match="is 2 cells"):
        grid(write, axes + "baseline: {model.encoding: rope}\n")


def test_only_picks_cells_by_text_or_pattern(write: Write) -> None:
    axes = "axes: {model.encoding: [rope, sincos], train.batch: [16, 32]}\n"
    assert len(grid(write, axes, only="sincos").cells) == 2
    assert len(grid(write, axes, only="*rope*batch=32").cells) == 1
    with pytest.raises(UserError, match="matches none of the 4 cells"):
        grid(write, axes, only="ropes")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("axis: {}\n", "a.yaml:3: unknown key 'axis'; did you mean 'axes'"),
        ("axes: {model.encodin: [rope]}\n", "a.yaml:3: unknown key 'model.encodin'; did you mean"),
        ("axes: {model.encoding: []}\n", "a.yaml:3: axes: model.encoding: the axis is empty"),
        ("axes: {model.encoding: rope}\n", "an axis is a list of values"),
        ("axes: {job.cpus: [1, 2]}\n", "unknown key 'job.cpus'"),
        ("axes: {model.encoding: [rope, sinkos]}\n", "a.yaml:3: model.encoding: got 'sinkos'"),
        ("axes: [1]\n", "axes must be a mapping"),
        ("zip:\n  - {train.batch: [16, 32], model.width: [16]}\n", "lists must be equally long"),
        ("exclude: [{if: {train.batch: 32}}]\n", "'name' is missing"),
        ("exclude: [{name: x, if: {train.batch: 32}}]\n", "drops every cell (x dropped 1)"),
        ("exclude: [{name: x, iff: {train.batch: 32}}]\n", "unknown key 'iff'; did you mean 'if'"),
        ("exclude: [{name: x, if: {model.encoding: ropes}}]\n", "got 'ropes'"),
        ("when: [{if: {model.encoding: rope}}]\n", "'axes' is missing"),
        ("seeds: []\n", "a.yaml:3: seeds: got []"),
        ("seeds: [0, 0]\n", "each seed may stand once"),
        ("seeds: [-1]\n", "seeds: got [-1]"),
        ("seeds: 3\n", "seeds: got 3"),
        ("evaluate: {resolutions: [8]}\n", "did you mean 'evaluate.resolution'"),
        ("evaluate: {train.batch: [8]}\n", "unknown key 'train.batch'"),
        ("evaluate: {resolution: 8}\n", "an axis is a list of values"),
        ("evaluate: {resolution: [9]}\n", "not divisible by model.patch 2"),
        ("evaluate: {resolution: [64]}\n", "has no real images to compare with"),
        ("set: {data.resolution: 9}\n", "data.resolution 9x9 is not divisible by model.patch 2"),
        ("set: {positions.range_multiplier: 2}\n", "set positions.sampler: randomized"),
        ("axes: {model.encoding: [sincos], inference.law: [ntk]}\n", "does not exist for"),
        ("set: {train.batch: 30, train.accumulation: 4}\n", "not divisible by train.accumulation"),
        ("set: {evaluate.samples: 20000}\n", "more than fashion_mnist's 10000 held-out images"),
        ("set: 3\n", "set must be a mapping"),
        ("include: {train.batch: 3}\n", "include must be a list"),
    ],
)
def test_errors(write: Write, text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        grid(write, text)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert str(caught.value).startswith("/")


def test_changes_on_the_command_line(write: Write) -> None:
    axes = "axes: {model.encoding: [rope, sincos]}\n"
    assert grid(write, axes, "train.images=64").cells[0].training.train.images == 64
    with pytest.raises(UserError, match="is an axis of this file; pick cells with --only"):
        grid(write, axes, "model.encoding=rope")
    with pytest.raises(UserError, match="a change is KEY=VALUE"):
        grid(write, axes, "train.images")
    with pytest.raises(UserError, match=r"did you mean 'train.images'"):
        grid(write, axes, "train.imags=3")
    with pytest.raises(UserError, match=r"train\.images: got 'x'"):
        grid(write, axes, "train.images=x")


def test_bases(write: Write) -> None:
    write("middle.yaml", "base: base.yaml\ntrain: {batch: 16}\n")
    found = read_ablation(write("b.yaml", "question: What?\nbase: middle.yaml\n"))
    assert expand(found).cells[0].training.train.batch == 16
    write("loop.yaml", "base: ring.yaml\n")
    write("ring.yaml", "base: loop.yaml\n")
    with pytest.raises(UserError, match="goes in a circle"):
        read_ablation(write("c.yaml", "question: What?\nbase: loop.yaml\n"))
    with pytest.raises(UserError, match=r"there is no file .*bse\.yaml; did you mean 'base\.yaml'"):
        read_ablation(write("d.yaml", "question: What?\nbase: bse.yaml\n"))
    write("e.yaml", "seeds: [1]\n")
    misplaced = write("f.yaml", "question: What?\nbase: e.yaml\n")
    with pytest.raises(UserError, match="belongs into an ablation"):
        read_ablation(misplaced)


def test_another_base_under_the_same_question(write: Write) -> None:
    path = write("a.yaml", HEAD)
    other = write("other.yaml", "base: base.yaml\ntrain: {batch: 8}\n")
    for given in (other, type(other)("other.yaml")):  # from here, or from the ablation's folder
        assert expand(read_ablation(path, base=given)).cells[0].training.train.batch == 8
    with pytest.raises(UserError, match=r"--base nowhere\.yaml: there is no such file"):
        read_ablation(path, base=type(other)("nowhere.yaml"))


def test_a_question_is_asked(write: Write) -> None:
    with pytest.raises(UserError, match="'question' is missing"):
        read_ablation(write("a.yaml", "base: base.yaml\n"))


def big(write: Write, side: int) -> Ablation:
    images = ", ".join(str(1000 + i) for i in range(side))
    decay = ", ".join(str(0.001 * i) for i in range(side))
    return read_ablation(
        write(
            "a.yaml",
            HEAD + f"axes: {{train.images: [{images}], train.weight_decay: [{decay}]}}\n"
            "seeds: [0, 1, 2]\nevaluate: {resolution: [8, 12]}\n",
        )
    )


def test_more_than_a_million_is_refused_before_anything_is_expanded(write: Write) -> None:
    huge = big(write, 1001)
    assert count_cells(huge) == 1001**2
    started = time.process_time()
    with pytest.raises(UserError, match=r"1,002,001 cells"):
        expand(huge)
    assert time.process_time() - started < 1  # not the time of a million cells


def test_all_ids_of_a_large_grid_differ(write: Write) -> None:
    found = expand(big(write, 40))
    assert len(found.cells) == 1600
    assert len({run_id for cell in found.cells for _, run_id in cell.runs}) == 4800


def test_to_json_is_plain_and_complete(write: Write) -> None:
    found = grid(
        write, "axes: {inference.law: [extrapolate, pi]}\nevaluate: {resolution: [8, 12]}\n"
    )
    record = to_json(found)
    assert record["question"] == "What?"
    assert [cell["inference"]["law"] for cell in record["cells"]] == ["extrapolate", "pi"]
    again = Training.model_validate_json(found.cells[0].training.model_dump_json())
    assert again == found.cells[0].training
