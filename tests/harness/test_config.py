from pathlib import Path

import pytest

from harness.config import KEYS, Evaluation, Training
from harness.errors import UserError
from harness.settings import build, check_key, check_value, flatten
from harness.yamlfile import Value, load, plain
from tests.tiny import Write, command


def flat(write: Write, extra: str = "") -> dict[str, Value]:
    return flatten(load(write("a.yaml", "data: {resolution: 8}\n" + extra)))


def test_every_key_says_what_it_means() -> None:
    assert len(KEYS) > 30
    assert all(field.description and len(field.description) > 8 for field in KEYS.values())


def test_keys_and_defaults(write: Write) -> None:
    training = build(Training, flat(write, "train: {images: 100, learning_rate: 1e-4}\n"))
    assert training.data.resolution == (8, 8)
    assert training.train.learning_rate == 1e-4
    assert training.model.encoding == "rope"
    assert build(Evaluation, {}).inference.law == "extrapolate"


def test_a_configuration_is_frozen(write: Write) -> None:
    training = build(Training, flat(write, "train: {images: 100}\n"))
    with pytest.raises(ValueError, match="frozen"):
        training.train.images = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: {imags: 100}\n", "a.yaml:2: unknown key 'train.imags'; did you mean 'train.imag"),
        ("tain: {images: 100}\n", "unknown key 'tain.images'; did you mean 'train.images'"),
        ("model: {images: 100}\n", "did you mean 'train.images'"),
        ("train: {images: 1.5}\n", "a.yaml:2: train.images: got 1.5: should be a valid integer"),
        ("train: {images: '100'}\n", "train.images: got '100'"),
        ("train: {images: yes}\n", "train.images: got 'yes'"),
        ("train: {images: true}\n", "train.images: got True"),
        ("train: {images: -5}\n", "greater than or equal to 1"),
        ("train: {images: .inf}\n", "train.images: got inf"),
        ("train: {images: 9, learning_rate: .nan}\n", "finite"),
        ("train: {images: 9, betas: [0.9, 2]}\n", "train.betas: got [0.9, 2]"),
        (
            "train: {images: 9, betas: [0.9, 1]}\n",
            "train.betas: got [0.9, 1]: should be less than 1",
        ),
        ("train: {images: 9, betas: [0.9]}\n", "train.betas: got [0.9]: must be two numbers"),
        ("train: {images: 9, betas: 0.9}\n", "train.betas: got 0.9: must be two numbers"),
        ("train: {images: 1000000000001}\n", "train.images: got 1000000000001: should be less"),
        ("train: {images: 9, batch: 1048577}\n", "less than or equal to 1048576"),
        ("train: {images: 9}\nmodel: {width: 65537}\n", "less than or equal to 65536"),
        ("train: {images: 9}\nmodel: {depth: 1001}\n", "less than or equal to 1000"),
        ("train: {images: [[[9]]]}\n", "train.images: got [[[9]]]"),
        ("train: {images: {}}\n", "a.yaml:2: train.images: got {}: should be a valid integer"),
        ("train: {images: {a: 1}}\n", "a.yaml:2: train.images: got {'a': 1}"),
        ("trian: {}\n", "a.yaml:2: unknown key 'trian'; did you mean 'train'?"),
        ("train:\n", "a.yaml:2: train is a section: got nothing; it has images, stages, "),
        ("train: 5\n", "a.yaml:2: train is a section: got 5; it has images, stages, "),
        ("train: {}\n", "a.yaml:2: train is a section: got {}; it has images, stages, "),
        ("a: {" * 300 + "b: 1" + "}" * 300 + "\n", "unknown key 'a.a.a."),
        ("train: {images: 9}\nmodel: {encoding: rop}\n", "did you mean 'rope'"),
        ("train: {images: 9}\nmodel: {encoding: 3}\n", "model.encoding: got 3"),
        ("model: {width: 8}\n", "'train.images' is missing"),
        ("train.images: 100\ntrain: {images: 100}\n", "'train.images' stands twice"),
    ],
)
def test_errors_name_file_line_key_value_and_choices(
    write: Write, tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        build(Training, flat(write, text))
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def test_the_largest_values_are_allowed(write: Write) -> None:
    text = (
        "train: {images: 1000000000000, batch: 1048576, betas: [0, 0.9999]}\nmodel: {depth: 1000}\n"
    )
    assert build(Training, flat(write, text)).train.betas == (0, 0.9999)


@pytest.mark.parametrize(("given", "size"), [(16, (16, 16)), ([16, 24], (16, 24))])
def test_sizes(given: object, size: tuple[int, int]) -> None:
    values = {"data.resolution": Value(given, "x:1"), "train.images": Value(9, "x:1")}
    assert build(Training, values).data.resolution == size


@pytest.mark.parametrize("given", [[1, 2, 3], "16", 0, [16, -1], None, True])
def test_sizes_that_are_none(given: object) -> None:
    values = {"data.resolution": Value(given, "x:1"), "train.images": Value(9, "x:1")}
    with pytest.raises(UserError, match=r"x:1: data\.resolution: got"):
        build(Training, values)


def test_a_single_value_is_checked_without_the_rest() -> None:
    assert check_value("model.encoding", Value("sincos", "x")) == "sincos"
    assert check_value("data.resolution", Value([8, 16], "x")) == (8, 16)
    assert check_value("data.resolution", Value(8, "x")) == (8, 8)
    with pytest.raises(UserError, match="did you mean 'sincos'"):
        check_value("model.encoding", Value("sinkos", "x"))
    with pytest.raises(UserError, match=r"train\.images: got 'a'"):
        check_value("train.images", Value("a", "x"))


def test_every_key_can_be_listed() -> None:
    shown = command("harness.config")
    assert shown.returncode == 0
    assert all(key in shown.stdout for key in KEYS)


def test_plain_unwraps(write: Write) -> None:
    assert plain(flat(write)) == {"data.resolution": 8}


def test_extractors_are_a_list_whose_order_does_not_matter(write: Write) -> None:
    def built(text: str) -> tuple[str, ...]:
        return build(Evaluation, flat(write, text)).evaluate.extractors

    assert built("evaluate: {extractors: dinov2}\n") == ("dinov2",)
    assert built("evaluate: {extractors: [fashion-cnn, dinov2, dinov2]}\n") == (
        "dinov2",
        "fashion-cnn",
    )
    with pytest.raises(UserError, match=r"did you mean 'dinov2'"):
        built("evaluate: {extractors: [dinov3]}\n")
    with pytest.raises(UserError, match="at least 1"):
        built("evaluate: {extractors: []}\n")


def test_keys_explain_themselves() -> None:
    one = command("harness.config", "model.encoding")
    (line,) = one.stdout.splitlines()
    assert line.split()[:3] == ["model.encoding", "=", "rope"]
    assert line.endswith("(none, sincos, learned, rope, rope-mixed)")
    section = command("harness.config", "augmentation", "evaluate.resolution").stdout.splitlines()
    assert [line.split()[0] for line in section] == [
        "augmentation.kind", "augmentation.max_scale", "evaluate.resolution"
    ]  # fmt: skip
    assert "= data.resolution" in section[-1]
    wrong = command("harness.config", "modle")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "unknown key 'modle'; did you mean 'model'?\n"


def test_a_field_without_its_section_is_told_with_it() -> None:
    with pytest.raises(UserError, match=r"unknown key 'images'; did you mean 'train\.images'"):
        check_key("images", "x")
