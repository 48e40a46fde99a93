"""A folder of pictures: its layouts, its index, and what is noticed when it changes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import dataset, folder, folder_index
from harness.config import Data
from harness.data import open_data
from harness.facts import DatasetError
from harness.picture_files import center_crop
from harness.pictures import from_folder


@pytest.fixture(autouse=True)
def _indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESOLUTE_DATA", str(tmp_path / "data"))


def put(path: Path, height: int = 10, width: int = 12, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(len(path.name) + sum(str(path.name).encode()))
    shape = (height, width) if grey else (height, width, 3)
    Image.fromarray(draws.integers(0, 256, shape, np.uint8)).save(path)


def data(path: Path) -> Data:
    return Data(name="image_folder", folder=str(path), resolution=(8, 8))


def test_class_folders_with_a_tenth_held_out(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for i in range(30):
        put(place / f"class {'cab'[i % 3]}" / "deep" / f"{i:02}.png", height=10 + i, width=100)
    _, header = folder.index(place)
    facts = dataset.facts(data(place))
    assert facts == header.facts
    assert (facts.training, facts.held_out, facts.channels, facts.classes) == (27, 3, 3, 3)
    assert facts.side == 39
    assert header.names == ["class a", "class b", "class c"]
    sizes = ((10, 10), (11, 11), (5, 25), (25, 5), (5, 101), (99, 99))
    assert [dataset.upsampled(data(place), s) for s in sizes] == [0, 1 / 30, 0, 0.5, 1, 1]
    files = folder_index.open_files(place)
    both = files["train"].names + files["test"].names
    assert sorted(both) == sorted(p.relative_to(place).as_posix() for p in place.rglob("*.png"))
    for split in files.values():
        assert split.labels == [" abc".index(name[6]) - 1 for name in split.names]
    # The same again, and from a copy elsewhere: the digest is the content's.
    place.rename(tmp_path / "moved")
    assert folder.index(tmp_path / "moved")[1].facts == facts


def test_what_is_held_out_leaves_every_class_a_picture(tmp_path: Path) -> None:
    for i in range(30):
        put(tmp_path / f"alone-{i:02}" / "one.png")
    for i in range(30):
        put(tmp_path / "many" / f"{i:02}.png")
    _, splits = folder.layout(tmp_path)
    assert len(splits["test"]) == 6
    assert all(name.startswith("many/") for name in splits["test"])
    assert len(splits["train"]) == 54


def test_train_and_val_folders_and_pictures_as_adm_crops_them(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for i in range(6):
        put(place / "train" / "ab"[i % 2] / f"{i}.png", 20, 30, grey=True)
        put(place / "val" / "ab"[i % 2] / f"v{i}.jpg", 30, 20, grey=True)
    folder.index(place)
    facts = dataset.facts(data(place))
    assert (facts.training, facts.held_out, facts.channels, facts.classes) == (6, 6, 1, 2)
    assert facts.lossy == 0.5
    split = open_data(data(place), "train")
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 1]
    seen = split.images(torch.tensor([4, 0]), (8, 6))
    with Image.open(place / "train" / "b" / "3.png") as picture:
        np.testing.assert_array_equal(seen[0, 0], np.asarray(center_crop(picture, (8, 6))))


def test_the_share_that_is_enlarged_is_what_a_folder_of_them_says(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for i, (height, width) in enumerate(draws.integers(4, 12, (40, 2)).tolist()):
        put(tmp_path / "set" / f"{i:02}.png", height, width)
    folder.index(tmp_path / "set")
    for size in ((4, 4), (8, 8), (6, 10), (10, 6), (12, 4), (20, 20)):
        expected = from_folder(tmp_path / "set", size).facts["upsampled"]
        assert dataset.upsampled(data(tmp_path / "set"), size) == expected


@pytest.mark.parametrize(
    ("there", "taken", "passed_over"),
    [
        (("val", "test"), "val", ["test/"]),
        (("validation", "unlabelled", ".cache"), "validation", ["unlabelled/"]),
        (("valid",), "valid", []),
        (("test",), "test", []),
        (("holdout",), None, ["holdout/"]),
    ],
)
def test_the_held_out_folder_by_its_names(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    there: tuple[str, ...],
    taken: str | None,
    passed_over: list[str],
) -> None:
    for i in range(10):
        for name in ("train", *there):
            put(tmp_path / "set" / name / "a" / f"{i}.png")
    places, splits = folder.layout(tmp_path / "set")
    assert places == ["train", *([taken] if taken else [])]
    assert len(splits["test"]) == (10 if taken else 1)
    assert folder.passed_over(tmp_path / "set", places) == passed_over
    assert folder.main([str(tmp_path / "set")]) == 0
    told = capsys.readouterr().out
    words = f"  passed over: {', '.join(passed_over)}\n" if passed_over else "  shorter sides"
    assert f"  held out: {f'{taken}/' if taken else 'a tenth of train/'}\n{words}" in told


def test_a_class_that_is_linked_twice_is_two_classes(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for i in range(10):
        put(place / "train" / "b" / f"{i}.png")
    for link in ("train/a", "train/c", "val"):
        (place / link).symlink_to(place / ("train" if link == "val" else "train/b"))
    _, header = folder.index(place)
    assert header.names == ["a", "b", "c"]
    assert (header.facts.training, header.facts.held_out) == (30, 30)


def test_a_picture_that_breaks_off_is_found_unless_quick(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(10):
        put(tmp_path / "set" / f"{i}.png", 40, 40)
    bad = tmp_path / "set" / "7.png"
    bad.write_bytes(bad.read_bytes()[:3000])
    assert folder.main([str(tmp_path / "set")]) == 2
    assert "7.png: is broken" in capsys.readouterr().err
    assert folder.main([str(tmp_path / "set"), "--quick"]) == 0
    told = capsys.readouterr().out
    assert "1 class, colour" in told
    assert "held out: a tenth of all\n" in told


def test_pictures_without_classes_are_one_class(tmp_path: Path) -> None:
    for i in range(10):
        put(tmp_path / "set" / f"{i}.png")
    _, header = folder.index(tmp_path / "set")
    assert (header.facts.classes, header.facts.training, header.facts.held_out) == (1, 9, 1)


def test_layouts_that_are_refused(tmp_path: Path) -> None:
    for i in range(10):
        put(tmp_path / "mixed" / "a" / f"{i}.png")
        put(tmp_path / "unknown" / "train" / "a" / f"{i}.png")
    put(tmp_path / "mixed" / "beside.png")
    put(tmp_path / "unknown" / "val" / "b" / "0.png")
    put(tmp_path / "few" / "0.png")
    for name, words in (
        ("mixed", "beside them, such as beside.png"),
        ("unknown", "the class 'b' has held-out pictures and none to train on"),
        ("few", "has 1 picture; at least 10"),
        ("nowhere", "there is no such folder"),
    ):
        with pytest.raises(DatasetError, match=words):
            folder.index(tmp_path / name)


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for i in range(12):
        put(place / f"{i:02}.png")
    folder.index(place)
    dataset.check(data(place))
    opened = open_data(data(place), "train")
    before = (place / "03.png").stat()
    put(place / "new.png")
    with pytest.raises(DatasetError, match=r"has 13 pictures, its index 12 \(new.png is new\)"):
        dataset.check(data(place))
    (place / "new.png").unlink()
    (place / "03.png").rename(place / "away")
    with pytest.raises(DatasetError, match="not PNG, JPEG, WEBP or BMP, such as away"):
        dataset.check(data(place))
    (place / "away").unlink()
    with pytest.raises(DatasetError, match=r"03\.png is gone.*python -m harness.folder"):
        dataset.check(data(place))
    put(place / "03.png", 9)
    with pytest.raises(DatasetError, match=r"03\.png was changed since it was indexed"):
        dataset.check(data(place))
    # The same size and time, other content: seen when it is decoded.
    content = (place / "03.png").read_bytes()
    (place / "03.png").write_bytes(content[: before.st_size].ljust(before.st_size, b"x"))
    os.utime(place / "03.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    dataset.check(data(place))
    with pytest.raises(DatasetError, match=r"03\.png: is another file"):
        opened.images(torch.arange(opened.count), (8, 8))


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    place = tmp_path / "set"
    for i in range(10):
        put(place / f"{i}.png")
    file, _ = folder.index(place)
    other = json.loads(file.read_text()) | {"digest": "0" * 64}
    file.with_suffix(".files.json").write_text(json.dumps(other))
    with pytest.raises(DatasetError, match="not whole; make it again"):
        dataset.check(data(place))
    file.write_text("{")
    with pytest.raises(DatasetError, match="no usable index"):
        dataset.facts(data(place))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(10):
        put(tmp_path / "set" / "ab"[i % 2] / f"{i}.png")
    assert folder.main([str(tmp_path / "set")]) == 0
    told = capsys.readouterr().out
    for words in ("2 classes, colour", "9 pictures to train on, 1 held out", "100.0% are smaller"):
        assert words in told
    (tmp_path / "set" / "a" / "0.png").write_bytes(b"broken")
    assert folder.main([str(tmp_path / "set")]) == 2
    assert "0.png: is broken" in capsys.readouterr().err
