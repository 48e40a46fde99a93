import time
from collections.abc import Iterator

import pytest

from harness.ablation import Ablation, read_ablation
from harness.config import Training
from harness.errors import UserError
from harness.grid import Grid, expand, to_json
from harness.points import Choices, Fields, alone, count_cells, product, under
from tests.tiny import ROOT, Write

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


@pytest.mark.parametrize(
    ("values", "condition", "dropped"),
    [
        ("data.resolution: [8, 12]", "data.resolution: [12, 12]", 1),
        ("data.resolution: [8, [12, 12]]", "data.resolution: 12", 1),
        ("data.resolution: [8, [8, 12], 12]", "data.resolution: [8, 12]", 1),
        ("data.resolution: [8, [8, 12], 16]", "data.resolution: [[8, 12], 16]", 2),
        ("train.betas: [[0.9, 0.9], [0.5, 0.9]]", "train.betas: [[0.9, 0.9], [0, 0.9]]", 1),
        ("train.batch: [8, 16]", "data.resolution: [[8, 8], 12], train.batch: 16", 1),
        ("train.weight_decay: [1, 2]", "train.weight_decay: 1.0", 1),
    ],
)
def test_conditions_compare_what_values_mean(
    write: Write, values: str, condition: str, dropped: int
) -> None:
    found = grid(write, f"axes: {{{values}}}\nexclude: [{{name: x, if: {{{condition}}}}}]\n")
    assert found.dropped == {"x": dropped}
    found = grid(
        write,
        f"axes: {{{values}}}\nwhen: [{{if: {{{condition}}}, axes: {{train.ema: [0, 0.5]}}}}]\n",
    )
    assert len([c for c in found.cells if "train.ema" in c.choices]) == 2 * dropped


def test_the_baseline_compares_what_values_mean(write: Write) -> None:
    found = grid(write, "axes: {data.resolution: [8, 12]}\nbaseline: {data.resolution: [12, 12]}\n")
    assert found.baseline == found.cells[1].cell_id


def test_a_product_that_is_all_excluded_is_noted_beside_an_include(write: Write) -> None:
    found = grid(
        write, "exclude: [{name: x, if: {train.batch: 32}}]\ninclude: [{train.batch: 16}]\n"
    )
    assert labels(found) == ["train.batch=16"]
    assert "'exclude' drops every cell of the axes (x dropped 1)" in found.notes[0]


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


def test_without_columns_the_training_size_is_measured(write: Write) -> None:
    text = "axes: {data.resolution: [8, [8, 16]]}\ninclude: [{evaluate.resolution: 12}]\n"
    sizes = [c.measurements[0].evaluation.evaluate.resolution for c in grid(write, text).cells]
    assert sizes == [(8, 8), (8, 16), (12, 12)]


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
    assert count_cells(huge, Fields(huge.fixed)) == 1001**2
    started = time.process_time()
    with pytest.raises(UserError, match=r"1,002,001 cells"):
        expand(huge)
    assert time.process_time() - started < 1  # not the time of a million cells


def counted(write: Write, text: str) -> int:
    ablation = read_ablation(write("a.yaml", HEAD + text))
    count = count_cells(ablation, Fields(ablation.fixed))
    if count <= 1000:
        assert sum(1 for _ in points_of(ablation)) == count
    return count


def points_of(ablation: Ablation) -> Iterator[Choices]:
    fields = Fields(ablation.fixed)
    for point in product([*alone(ablation.axes), *ablation.zips]):
        yield from under(ablation.when, point, fields)


def test_cells_are_counted_under_rules(write: Write) -> None:
    exclusive = "".join(
        f"  - {{if: {{train.batch: {batch}}}, axes: {{train.ema: [0, 0.1, 0.2]}}}}\n"
        for batch in range(1, 21)
    )
    axes = f"axes: {{train.batch: {list(range(1, 31))}, model.depth: [1, 2]}}\n"
    assert counted(write, axes + "when:\n" + exclusive) == 2 * (20 * 3 + 10)
    chained = (
        "  - {if: {train.batch: [1, 2]}, axes: {train.ema: [0, 0.5], model.heads: [1, 2]}}\n"
        "  - {if: {train.ema: 0.5, model.depth: 2}, axes: {train.warmup: [0, 0.1, 0.2]}}\n"
    )
    assert counted(write, axes + "when:\n" + chained) == 28 * 2 + 2 * (4 + 2 + 2 * 3)
    zipped = "zip: [{train.batch: [1, 2, 3], model.depth: [1, 1, 2]}, {model.width: [8, 16]}]\n"
    assert counted(write, zipped + "when:\n" + chained) == 2 * (2 * 4 + 1)


def test_a_long_walk_of_the_count_ends(write: Write) -> None:
    many = list(range(1000, 2001))
    text = f"axes: {{train.images: {many}, train.batch: {many}}}\nwhen:\n"
    text += "  - {if: {train.images: 1000, train.batch: 1000}, axes: {train.ema: [0, 0.1]}}\n"
    started = time.process_time()
    assert counted(write, text) > 1_000_000
    assert time.process_time() - started < 2


@pytest.mark.slow
def test_ten_thousand_cells_expand_quickly(write: Write) -> None:
    large = big(write, 100)
    started = time.process_time()
    assert len(expand(large).cells) == 10_000
    assert time.process_time() - started < 4  # about 1 s on an idle core


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


def test_rows_say_what_stages_decide(write: Write) -> None:
    stages = "set: {train.stages: [{resolution: 8, images: 320}, {resolution: 16, images: 320}]}\n"
    for axis in ("train.images: [640, 1280]", "data.resolution: [8, 16]"):
        with pytest.raises(UserError, match=r"has no effect with train\.stages, which"):
            grid(write, f"{stages}axes: {{{axis}}}\n")
    grid(write, stages + "axes: {train.images: [640]}\n")


def test_conditions_on_fields_that_are_lists(write: Write) -> None:
    stages = "[{resolution: 8, images: 320}, {resolution: 16, images: 320}]"
    axes = f"axes: {{train.stages: [[], {stages}], model.encoding: [rope, none]}}\n"
    for condition, left in (("[]", 2), (stages, 2), (f"[[], {stages}]", 0)):
        rule = f"exclude: [{{name: x, if: {{train.stages: {condition}}}}}]\n"
        found = grid(write, axes + rule + "include: [{train.batch: 16}]\n").cells
        assert len(found) == left + 1
    kept = "set: {train.snapshots: [0.5]}\naxes: {train.batch: [16, 32]}\n"
    rule = "exclude: [{name: x, if: {train.snapshots: [0.5], train.batch: 16}}]\n"
    assert len(grid(write, kept + rule).cells) == 1


def test_the_example_of_the_grammar_is_an_ablation(write: Write) -> None:
    page = (ROOT / "docs" / "grammar.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    text = text.replace("base/fashion_mnist.yaml", f"{ROOT}/ablations/base/fashion_mnist.yaml")
    found = expand(read_ablation(write("example.yaml", text)))
    assert len(found.cells) == 21
    assert found.baseline is not None
    assert found.dropped == {"sincos-is-slow-to-widen": 2}
