"""Fashion-MNIST on disk: find it, get it, read it.

The data are the four idx files of Xiao et al. 2017 (arXiv:1708.07747; MIT licence): 60,000 training
and 10,000 test images of 28x28 grey values in 10 classes. Every read checks the contents against
their known sha256, so a result never rests on a damaged or a different file. The command that gets
them is `python -m harness.dataset`.
"""

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.facts import DatasetError, Facts, data_folder

# sha256 of each decompressed idx file, so it is the same for .gz files of any compression level.
FILES_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FACTS = Facts(
    # sha256 of the four decompressed contents one after the other, in the order above.
    digest="14410854cf7a289477dcfc7df3f8ec24741e281cdcc425ede0d9a748ca630214",
    side=32,  # the 28x28 padded by two zeros a side
    training=60_000,
    held_out=10_000,
    channels=1,
    classes=10,
)

_PREFIXES = {"train": "train", "test": "t10k"}
_COUNTS = {"train": FACTS.training, "test": FACTS.held_out}
_IMAGES_MAGIC, _LABELS_MAGIC = 0x0803, 0x0801  # idx: unsigned bytes in 3 and in 1 dimensions

PROJECT_FOLDER = Path(__file__).resolve().parent.parent / "data" / "fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
_COMMAND = "python -m harness.dataset"


def find(root: Path | None = None) -> Path:
    """The folder that holds the four idx files, plain or as .gz; only their presence is checked.

    The first hit of: `root` (if given, the only place looked at), `$RESOLUTE_DATA/fashion-mnist`,
    `data/fashion-mnist` in the project, Debian's `/usr/share/datasets/fashion-mnist`. In each, the
    folder `FashionMNIST/raw` that torchvision makes is looked at too.

    Raises:
        DatasetError: no place has all four files.
    """
    if root is not None:
        folder = _complete_folder(root)
        if folder is None:
            raise DatasetError(
                f"{root} does not hold Fashion-MNIST: {_what_is_missing(root)}.\n"
                f"Give the folder of the four idx files (.gz or plain), or run `{_COMMAND}`."
            )
        return folder
    places = [PROJECT_FOLDER, DEBIAN_FOLDER]
    if data := os.environ.get("RESOLUTE_DATA"):
        places.insert(0, Path(data) / "fashion-mnist")
    for place in places:
        folder = _complete_folder(place)
        if folder is not None:
            return folder
    raise DatasetError(
        f"Fashion-MNIST is in none of {', '.join(map(str, places))}. `{_COMMAND}` gets it; or give "
        f"a folder\nwith its four idx files, or install Debian's package {DEBIAN_PACKAGE}, or use "
        "torchvision's download of FashionMNIST."
    )


def obtain(destination: Path) -> Path:
    """Find the data set, or get it into `destination`; the folder that has it.

    Tried in this order: `destination` itself, `find()`, Debian's package (downloaded and unpacked
    without root), torchvision's download. What was got is verified, then appears by one rename.

    Raises:
        DatasetError: nothing worked (what each way said), or `destination` holds something else.
    """
    if (folder := _complete_folder(destination)) is not None:
        return folder
    try:
        return find()
    except DatasetError:
        pass
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DatasetError(
            f"{destination} exists, but {_what_is_missing(destination)}.\n"
            "Move it away, or name another folder with --destination."
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Beside the destination, because a rename does not cross file systems.
    work = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        ways: dict[str, Callable[[Path], Path]] = {
            "apt": _from_debian,
            "torchvision": _from_torchvision,
        }
        refusals = []
        for name, way in ways.items():
            (work / name).mkdir()
            try:
                complete = _take(way(work / name), work / "complete")
            except (OSError, RuntimeError, ImportError, subprocess.SubprocessError) as error:
                refusals.append(f"{name}: {_in_few_words(error)}")
                continue
            try:
                complete.rename(destination)
            except OSError:
                # Another process may have put it there meanwhile; then theirs is as good.
                if _complete_folder(destination) is None:
                    raise
            return destination
        raise DatasetError(
            f"Fashion-MNIST is not on this machine and could not be got ({'; '.join(refusals)}).\n"
            f"Copy its four idx files to {destination}, or to $RESOLUTE_DATA/fashion-mnist."
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read(
    folder: Path, split: Literal["train", "test"]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images `[N, 28, 28]` (0 black .. 255) and labels `[N]` (0..9), N = 60,000 or 10,000.

    Raises:
        DatasetError: a file is missing, unreadable, truncated or not the published one.
    """
    count = _COUNTS[split]
    images = _read_verified(
        folder, f"{_PREFIXES[split]}-images-idx3-ubyte", _IMAGES_MAGIC, (count, 28, 28)
    )
    labels = _read_verified(
        folder, f"{_PREFIXES[split]}-labels-idx1-ubyte", _LABELS_MAGIC, (count,)
    )
    return images, labels


def _read_verified(
    folder: Path, name: str, magic: int, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    path = _idx_file(folder, name)
    if path is None:
        raise DatasetError(f"{folder} has no {name}(.gz).\nRun `{_COMMAND}` for a complete folder.")

    def bad(reason: str) -> DatasetError:
        return DatasetError(
            f"{path} {reason}.\nMove {path.parent} away and run `{_COMMAND}` for a sound copy."
        )

    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except EOFError as error:
        raise bad("is truncated") from error
    except (OSError, zlib.error) as error:
        raise bad(f"cannot be read: {error}") from error
    # The idx header: a magic number, then one size a dimension, all big-endian 32-bit integers.
    header_bytes = 4 * (1 + len(shape))
    if len(content) < header_bytes:
        raise bad(f"is truncated: {len(content)} bytes")
    header = tuple(int(value) for value in np.frombuffer(content[:header_bytes], ">u4"))
    if header[0] != magic:
        raise bad(f"is no idx file of this kind: magic {header[0]:#06x}, expected {magic:#06x}")
    if header[1:] != shape:
        raise bad(f"has sizes {header[1:]}, expected {shape}")
    expected_bytes = header_bytes + int(np.prod(shape))
    if len(content) != expected_bytes:
        raise bad(f"has {len(content):,} bytes, expected {expected_bytes:,}")
    if hashlib.sha256(content).hexdigest() != FILES_SHA256[name]:
        raise bad("differs from the published file: its sha256 is another")
    # A copy, because an array over `bytes` is read-only.
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape).copy()


def _idx_file(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _complete_folder(place: Path) -> Path | None:
    for folder in (place, place / "FashionMNIST" / "raw"):
        if all(_idx_file(folder, name) for name in FILES_SHA256):
            return folder
    return None


def _what_is_missing(place: Path) -> str:
    if not place.exists():
        return "there is no such folder"
    if not place.is_dir():
        return "it is not a folder"
    return "no " + ", ".join(name for name in FILES_SHA256 if _idx_file(place, name) is None)


def _from_debian(work: Path) -> Path:
    """Download and unpack Debian's package inside `work`, with no change to the system."""
    impatient = ["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]
    download = ["download", DEBIAN_PACKAGE]
    try:
        _run(["apt-get", *impatient, *download], work)
    except subprocess.CalledProcessError:
        # No package lists here, or stale ones: fetch private ones, which needs no root either.
        (work / "state" / "lists" / "partial").mkdir(parents=True)
        (work / "cache" / "archives" / "partial").mkdir(parents=True)
        private = ["-o", f"Dir::State={work / 'state'}", "-o", f"Dir::Cache={work / 'cache'}"]
        _run(["apt-get", *impatient, *private, "update"], work)
        _run(["apt-get", *impatient, *private, *download], work)
    package = next(work.glob(f"{DEBIAN_PACKAGE}_*.deb"), None)
    if package is None:
        raise FileNotFoundError("apt-get download left no package")
    _run(["dpkg-deb", "-x", str(package), "unpacked"], work)
    return work / "unpacked" / DEBIAN_FOLDER.relative_to("/")


def _from_torchvision(work: Path) -> Path:
    from torchvision.datasets import FashionMNIST  # here only: it imports torch

    FashionMNIST(root=work, download=True)
    return work / "FashionMNIST" / "raw"


def _take(source: Path, target: Path) -> Path:
    """Move the four files of `source` into `target`, after a look at their contents."""
    target.mkdir(exist_ok=True)
    for name in FILES_SHA256:
        path = _idx_file(source, name)
        if path is None:
            raise FileNotFoundError(f"no {name} in what came")
        shutil.move(path, target / path.name)
    try:
        read(target, "train")
        read(target, "test")
    except DatasetError as error:
        shutil.rmtree(target)
        raise OSError(f"what came is damaged: {str(error).splitlines()[0]}") from error
    return target


def _run(command: list[str], folder: Path) -> None:
    environment = os.environ | {"LC_ALL": "C"}
    subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    )


def _in_few_words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        return (lines[-1] if lines else f"{error.cmd[0]} exited with {error.returncode}")[:160]
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def main(arguments: list[str] | None = None) -> int:
    """Print the folder that holds the data set, getting it first where needed; the exit code."""
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description="Find Fashion-MNIST on this machine, or get it."
    )
    parser.add_argument(
        "--destination",
        type=Path,
        default=data_folder() / "fashion-mnist",
        help="where to put it if it has to be got (default: %(default)s)",
    )
    try:
        folder = obtain(parser.parse_args(arguments).destination)
        read(folder, "train")
        read(folder, "test")
    except (DatasetError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(folder)
    return 0
