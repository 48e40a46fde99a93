"""Fashion-MNIST on disk. Fakes stand at the process boundary: an `apt-get` on PATH."""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import fashion_mnist
from harness.facts import DatasetError


@pytest.fixture(scope="module")
def real() -> Path:
    try:
        return fashion_mnist.find()
    except DatasetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def plain(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files, decompressed."""
    folder = tmp_path_factory.mktemp("plain")
    for name in fashion_mnist.FILES_SHA256:
        packed = real / f"{name}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else b""
        (folder / name).write_bytes(content or (real / name).read_bytes())
    return folder


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine that has the data set in none of the usual places, and no apt."""
    monkeypatch.setattr(fashion_mnist, "PROJECT_FOLDER", tmp_path / "project" / "fashion-mnist")
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian" / "fashion-mnist")
    monkeypatch.delenv("RESOLUTE_DATA", raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    fake(tmp_path, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    return tmp_path


def fake(machine: Path, name: str, script: str) -> None:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def fake_debian(machine: Path, source: Path) -> None:
    """A working `apt-get download` and a `dpkg-deb -x` that unpacks the files of `source`."""
    fake(machine, "apt-get", f"touch {fashion_mnist.DEBIAN_PACKAGE}_1_all.deb")
    folder = fashion_mnist.DEBIAN_FOLDER
    fake(machine, "dpkg-deb", f'mkdir -p "$3{folder}" && cp {source}/*ubyte* "$3{folder}"')


def links(source: Path, folder: Path) -> Path:
    """A folder of links to the files of `source`, so that a test can replace one of them."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_published_contents(plain: Path) -> None:
    contents = [(plain / name).read_bytes() for name in fashion_mnist.FILES_SHA256]
    assert hashlib.sha256(b"".join(contents)).hexdigest() == fashion_mnist.FACTS.digest
    # Xiao et al. 2017, section 2: the classes are balanced in both splits.
    for split, per_class in (("train", 6000), ("test", 1000)):
        images, labels = fashion_mnist.read(plain, split)
        assert images.shape == (10 * per_class, 28, 28)
        assert images.dtype == labels.dtype == np.uint8
        assert np.bincount(labels).tolist() == [per_class] * 10


def test_compressed_and_plain_files_read_the_same(plain: Path, tmp_path: Path) -> None:
    for name in fashion_mnist.FILES_SHA256:
        if name.startswith("t10k"):
            packed = gzip.compress((plain / name).read_bytes(), compresslevel=1)
            (tmp_path / f"{name}.gz").write_bytes(packed)
    for a, b in zip(
        fashion_mnist.read(plain, "test"), fashion_mnist.read(tmp_path, "test"), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert a.flags.writeable


def test_find_takes_the_first_place(
    nowhere: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links(plain, fashion_mnist.DEBIAN_FOLDER)
    assert fashion_mnist.find() == fashion_mnist.DEBIAN_FOLDER
    links(plain, fashion_mnist.PROJECT_FOLDER)
    assert fashion_mnist.find() == fashion_mnist.PROJECT_FOLDER
    shared = links(plain, nowhere / "shared" / "fashion-mnist")
    monkeypatch.setenv("RESOLUTE_DATA", str(nowhere / "shared"))
    assert fashion_mnist.find() == shared
    given_root = links(plain, nowhere / "given")
    assert fashion_mnist.find(given_root) == given_root


def test_find_takes_torchvisions_folder(nowhere: Path, plain: Path) -> None:
    raw = links(plain, nowhere / "tv" / "FashionMNIST" / "raw")
    assert fashion_mnist.find(nowhere / "tv") == raw


def test_a_given_root_does_not_fall_through(nowhere: Path, plain: Path) -> None:
    links(plain, fashion_mnist.PROJECT_FOLDER)
    root = links(plain, nowhere / "root")
    (root / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetError, match="no t10k-labels-idx1-ubyte"):
        fashion_mnist.find(root)
    with pytest.raises(DatasetError, match="there is no such folder"):
        fashion_mnist.find(nowhere / "misspelt")


@pytest.mark.usefixtures("nowhere")
def test_find_names_the_ways_to_get_it() -> None:
    with pytest.raises(DatasetError) as caught:
        fashion_mnist.find()
    message = str(caught.value)
    for part in ("idx files", "dataset-fashion-mnist", "torchvision", "python -m harness.dataset"):
        assert part in message
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t10k-labels-idx1-ubyte.gz", lambda sound: gzip.compress(sound)[:-700], "is truncated"),
        ("t10k-labels-idx1-ubyte.gz", lambda sound: sound, "cannot be read: Not a gzipped file"),
        ("t10k-labels-idx1-ubyte", lambda sound: sound[:-1], "has 10,007 bytes, expected 10,008"),
        ("t10k-labels-idx1-ubyte", lambda sound: sound[:7], "is truncated: 7 bytes"),
        ("t10k-labels-idx1-ubyte", lambda sound: b"\0\0\x08\x03" + sound[4:], "magic 0x0803"),
        ("t10k-labels-idx1-ubyte", lambda sound: sound[:7] + b"\0" + sound[8:], r"sizes \(9984,\)"),
        ("t10k-labels-idx1-ubyte", lambda sound: sound[:-1] + b"\x0a", "sha256 is another"),
    ],
)
def test_a_damaged_file_is_named(
    plain: Path, tmp_path: Path, name: str, content, reason: str
) -> None:
    folder = links(plain, tmp_path / "damaged")
    sound = (plain / "t10k-labels-idx1-ubyte").read_bytes()
    (folder / "t10k-labels-idx1-ubyte").unlink()
    (folder / name).write_bytes(content(sound))
    with pytest.raises(DatasetError, match=reason) as caught:
        fashion_mnist.read(folder, "test")
    assert str(folder / name) in str(caught.value)
    assert "python -m harness.dataset" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no train-images-idx3-ubyte"):
        fashion_mnist.read(tmp_path, "train")


@settings(max_examples=25, deadline=None)
@given(position=st.integers(0, 10_007), change=st.integers(1, 255), cut=st.booleans())
def test_any_changed_byte_or_cut_is_noticed(
    plain: Path,
    tmp_path_factory: pytest.TempPathFactory,
    position: int,
    change: int,
    cut: bool,
) -> None:
    folder = links(plain, tmp_path_factory.mktemp("changed") / "folder")
    labels = folder / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[position] ^= change
    labels.unlink()
    labels.write_bytes(content[:position] if cut else content)
    with pytest.raises(DatasetError, match="t10k-labels-idx1-ubyte"):
        fashion_mnist.read(folder, "test")


def test_obtain_from_debian(nowhere: Path, plain: Path) -> None:
    fake_debian(nowhere, plain)
    destination = nowhere / "new" / "fashion-mnist"
    assert fashion_mnist.obtain(destination) == destination
    fashion_mnist.read(destination, "test")
    assert [path.name for path in destination.parent.iterdir()] == ["fashion-mnist"]
    # The same again finds it, with no apt at all.
    fake(nowhere, "apt-get", "exit 1")
    assert fashion_mnist.obtain(destination) == destination


def test_obtain_from_debian_without_package_lists(nowhere: Path, plain: Path) -> None:
    fake_debian(nowhere, plain)
    download = (nowhere / "bin" / "apt-get").read_text().splitlines()[1]
    script = f"""
case "$*" in
  *Dir::State=*update) touch "$(pwd)/state/lists/some_list" ;;
  *Dir::State=*download*) test -e state/lists/some_list && {download} ;;
  *) exit 100 ;;
esac"""
    fake(nowhere, "apt-get", script)
    fashion_mnist.read(fashion_mnist.obtain(nowhere / "new"), "test")


def test_obtain_from_torchvision(
    nowhere: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download_to(root: Path, download: bool) -> None:
        assert download
        shutil.copytree(plain, root / "FashionMNIST" / "raw")

    module = types.ModuleType("torchvision.datasets")
    monkeypatch.setattr(module, "FashionMNIST", download_to, raising=False)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    fashion_mnist.read(fashion_mnist.obtain(nowhere / "new"), "test")


def test_obtain_says_what_each_way_said(nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fashion_mnist.main(["--destination", str(nowhere / "new" / "fashion-mnist")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "apt: E: Unable to locate package; torchvision: " in printed.err
    assert len(printed.err.splitlines()) == 2
    assert list((nowhere / "new").iterdir()) == []


def test_obtain_refuses_a_damaged_delivery(nowhere: Path, plain: Path) -> None:
    source = links(plain, nowhere / "source")
    (source / "train-labels-idx1-ubyte").unlink()
    (source / "train-labels-idx1-ubyte").write_bytes(b"not the labels")
    fake_debian(nowhere, source)
    with pytest.raises(DatasetError, match="what came is damaged"):
        fashion_mnist.obtain(nowhere / "new" / "fashion-mnist")
    assert list((nowhere / "new").iterdir()) == []


def test_obtain_leaves_other_files_alone(nowhere: Path, plain: Path) -> None:
    fake_debian(nowhere, plain)
    occupied = nowhere / "occupied"
    occupied.mkdir()
    (occupied / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="Move it away"):
        fashion_mnist.obtain(occupied)
    assert [path.name for path in occupied.iterdir()] == ["notes.txt"]


def test_command_prints_the_folder(real: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness.dataset", "--destination", str(tmp_path / "unused")]
    project = Path(fashion_mnist.__file__).parents[1]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout == f"{real}\n"
    assert done.stderr == ""
    assert not (tmp_path / "unused").exists()
