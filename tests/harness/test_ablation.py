"""The grammar of ablation files: what is refused and why, changes, bases, names."""

from pathlib import Path

import pytest

from harness.ablation import read_ablation
from harness.errors import UserError
from harness.grid import Grid, expand
from tests.tiny import Write

HEAD = "question: What?\nbase: base.yaml\n"


def grid(write: Write, text: str, *changes: str) -> Grid:
    return expand(read_ablation(write("a.yaml", HEAD + text), changes))


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
        ("seeds: [9223372036854775808]\n", "whole numbers from 0 to 2**63 - 1"),
        (f"seeds: {list(range(10_001))}\n", "of at most 10,000 whole numbers"),
        ("set: {trian: {}}\n", "a.yaml:3: unknown key 'trian'; did you mean 'train'?"),
        ("include: [{job.cpus: 2}]\n", "include: 'job.cpus' is one for all cells"),
        (
            "evaluate: {resolution: [8]}\nexclude: [{name: x, if: {evaluate.resolution: 8}}]\n",
            "a.yaml:4: if: 'evaluate.resolution' stands under 'evaluate' (at ",
        ),
        (
            "evaluate: {resolution: [8]}\nwhen: [{if: {evaluate.resolution: 8}, axes: {}}]\n",
            "see cells, not columns",
        ),
        (
            "evaluate: {resolution: [8]}\nbaseline: {evaluate.resolution: 8}\n",
            "a.yaml:4: baseline: 'evaluate.resolution' stands under 'evaluate'",
        ),
        (
            "evaluate: {inference.steps: [2, 3]}\ninclude: [{inference.steps: 2}]\n",
            "a.yaml:4: include: 'inference.steps' stands under 'evaluate'",
        ),
        (
            "evaluate: {inference.steps: [2, 3]}\naxes: {inference.steps: [2]}\n",
            "a.yaml:4: axes: 'inference.steps' stands under 'evaluate' too (at ",
        ),
        (
            "axes: {train.batch: [8]}\nzip: [{train.batch: [8]}]\n",
            "a.yaml:4: zip: 'train.batch' stands under 'axes' too (at ",
        ),
        (
            "axes: {train.batch: [8]}\nwhen: [{if: {train.batch: 8}, axes: {train.batch: [9]}}]\n",
            "a.yaml:4: when: 'train.batch' stands under 'axes' too (at ",
        ),
        ("zip: [{train.batch: [8]}, {train.batch: [9]}]\n", "stands under 'zip' too (at "),
        ("evaluate: {resolution: [8], evaluate.resolution: [8]}\n", "stands twice (first at"),
        ("exclude: [{name: x, if: {train.batch: []}}]\n", "if: train.batch: got []"),
        (
            "exclude:\n- {name: x, if: {train.batch: 8}}\n- {name: x, if: {train.batch: 9}}\n",
            "a.yaml:5: exclude: the name 'x' stands twice",
        ),
        ("baseline: {model.encoding: ropes}\n", "did you mean 'rope'?"),
        ("set: {job.ranks: 3}\n", "train.batch 32 is not divisible by job.ranks 3 x"),
        ("set: {job.ranks: 4, train.accumulation: 16}\n", "job.ranks 4 x train.accumulation 16"),
        ("set: {inference.guidance: 2, objective.label_dropout: 0}\n", "the null label"),
        (
            "set: {train.stages: [{resolutoin: 8}]}\n",
            "unknown key 'resolutoin'; did you mean 'reso",
        ),
        (
            "set: {train.stages: [{resolution: 8}]}\n",
            "train.stages: stage 1: 'images' is missing: images",
        ),
        (
            "set: {train.stages: [{resolution: 8, images: x}]}\n",
            "train.stages: stage 1: images: got 'x'",
        ),
        (
            "set: {inference.timestep_shift: sd4}\n",
            "allowed are none, sd3 or a number; did you mean",
        ),
        (
            f"axes: {{train.images: {list(range(100, 1100))}}}\n"
            f"evaluate: {{inference.steps: {list(range(1, 101))}}}\nseeds: {list(range(101))}\n",
            "1,000 cells x 101 seeds x 100 columns are 10,100,000 evaluations",
        ),
        ("evaluate: {resolutions: [8]}\n", "did you mean 'evaluate.resolution'"),
        ("evaluate: {train.batch: [8]}\n", "unknown key 'train.batch'"),
        ("evaluate: {resolution: 8}\n", "an axis is a list of values"),
        ("evaluate: {resolution: [9]}\n", "not divisible by model.patch 2"),
        ("evaluate: {resolution: [256]}\n", "more than 4 times fashion_mnist's images"),
        ("set: {data.resolution: 9}\n", "data.resolution 9x9 is not divisible by model.patch 2"),
        ("set: {positions.range_multiplier: 2}\n", "set positions.sampler: randomized"),
        ("axes: {model.encoding: [sincos], inference.law: [ntk]}\n", "does not exist for"),
        ("set: {train.batch: 30, train.accumulation: 4}\n", "not divisible by train.accumulation"),
        ("set: {evaluate.samples: 70000}\n", "more than fashion_mnist's 69700 real images"),
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
    with pytest.raises(UserError, match=r"evaluate\.resolution is an axis of this file"):
        grid(write, "evaluate: {resolution: [8]}\n", "evaluate.resolution=12")


def test_only_changes_that_alter_an_id_rename_the_ablation(write: Write) -> None:
    path = write("a.yaml", HEAD)
    assert read_ablation(path, ("job.cpus=2",)).name == "a"
    other = read_ablation(path, ("train.batch=16",)).name
    assert other.startswith("a+")
    assert read_ablation(path, ("job.cpus=2", "train.batch=16")).name == other


def test_the_name_is_that_of_a_file(write: Write) -> None:
    assert read_ablation(write("my a+b-1_2.3.yaml", HEAD)).name == "my a+b-1_2.3"
    for stem in ("a$b", ".hidden", "-x", "x" * 101, "a\nb"):
        with pytest.raises(UserError, match="rename the file") as caught:
            read_ablation(write(f"{stem}.yaml", HEAD))
        assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("number", [0, 10_001, 200_000_000_000])
def test_the_number_of_seeds_is_checked_before_they_are_listed(write: Write, number: int) -> None:
    with pytest.raises(UserError, match=r"allowed are 1 to 10,000"):
        read_ablation(write("a.yaml", HEAD), seeds=number)


def test_a_base_that_no_file_can_be_called(write: Write) -> None:
    with pytest.raises(UserError, match="there is no file") as caught:
        read_ablation(write("a.yaml", f"question: What?\nbase: {'b' * 5000}\n"))
    assert len(str(caught.value)) < 500
    with pytest.raises(UserError, match="there is no such file"):
        read_ablation(write("a.yaml", HEAD), base=Path("b" * 5000))


def test_a_missing_base_is_said(write: Write) -> None:
    for text in ("question: What?\n", "question: What?\nset: {data.resolution: 8}\n"):
        with pytest.raises(UserError, match=r"a\.yaml: '.*' is missing, and so is 'base'"):
            read_ablation(write("a.yaml", text))
    whole = "question: What?\nset: {data.resolution: 8, train.images: 640}\n"
    assert len(expand(read_ablation(write("a.yaml", whole))).cells) == 1


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


def test_a_base_is_the_same_however_it_is_written(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = write("a.yaml", HEAD), write("other.yaml", "base: base.yaml\n")
    monkeypatch.chdir(path.parent.parent)
    ways = (Path("other.yaml"), other, other.relative_to(Path.cwd()))
    names = {read_ablation(path, base=way).name for way in ways}
    assert len(names) == 1
    assert names != {read_ablation(path).name}


def test_another_base_under_the_same_question(write: Write) -> None:
    path = write("a.yaml", HEAD)
    other = write("other.yaml", "base: base.yaml\ntrain: {batch: 8}\n")
    for given in (other, type(other)("other.yaml")):  # from here, or from the ablation's folder
        assert expand(read_ablation(path, base=given)).cells[0].training.train.batch == 8
    with pytest.raises(UserError, match=r"--base nowhere\.yaml: there is no such file"):
        read_ablation(path, base=type(other)("nowhere.yaml"))


def test_a_question_is_asked(write: Write) -> None:
    for question in ("", "question: '  '\n", "question: 3\n"):
        with pytest.raises(UserError, match="'question' is missing"):
            read_ablation(write("a.yaml", question + "base: base.yaml\n"))
