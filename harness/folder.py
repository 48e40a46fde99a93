"""Make a folder of pictures a data set, by an index of its files.

    python -m harness.folder FOLDER

decodes every picture once and writes the index (`harness.folder_index`); --quick reads the files
without decoding them, so that a broken one is only found in use. The folder is laid out as
FOLDER/train/CLASS/... with FOLDER/val/CLASS/... (or validation, valid, test: the first there is),
as FOLDER/CLASS/..., or has its pictures directly inside (one class). Without any of those, a tenth
of the pictures (at most 50,000, a fixed draw) is held out.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from harness.errors import UserError
from harness.facts import DatasetError, Facts
from harness.folder_index import SPLITS, Files, Header, listed, path_of, pictures, stamp, write
from harness.picture_files import Size, look, threads
from harness.progress import progress as progress_bar

HELD_OUT = ("val", "validation", "valid", "test")  # the first of these that is there
HELD_OUT_SHARE = 10  # one in so many
HELD_OUT_MOST = 50_000  # as many as ImageNet's validation split
_SEED = 0  # fixed: which pictures are held out is part of the data set
_BLOCK = 1024


def layout(folder: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The places searched, and the pictures of "train" and "test", sorted, relative to `folder`.

    Raises:
        DatasetError: no pictures, other files among them, or too few to hold any out.
    """
    if not (folder / "train").is_dir():
        return ["."], _held_out(folder, listed(folder, "."), ["."])
    train = listed(folder, "train")
    for place in HELD_OUT:
        if (folder / place).is_dir():
            return ["train", place], {"train": train, "test": listed(folder, place)}
    return ["train"], _held_out(folder, train, ["train"])


def _held_out(folder: Path, names: list[str], places: list[str]) -> dict[str, list[str]]:
    """A fixed draw of a tenth, which leaves every class a picture to train on."""
    from harness.draws import permutation  # here only: it imports torch

    count = min(len(names) // HELD_OUT_SHARE, HELD_OUT_MOST)
    if not count:
        raise DatasetError(
            f"{folder} has {pictures(len(names))}; at least {HELD_OUT_SHARE} are needed, of which "
            "a tenth is held out (or give it the folders train and val)"
        )
    left, test = Counter(class_of(name, places) for name in names), np.zeros(len(names), bool)
    for i in permutation(_SEED, "held out", 0, len(names)).tolist():
        own = class_of(names[i], places)
        if left[own] > 1 and test.sum() < count:
            left[own] -= 1
            test[i] = True
    return {
        split: [name for name, out in zip(names, test, strict=True) if out == (split == "test")]
        for split in SPLITS
    }


def classes_of(folder: Path, places: list[str], splits: dict[str, list[str]]) -> list[str]:
    """Class names, sorted; "" alone where the pictures lie in no class folders.

    Raises:
        DatasetError: pictures beside class folders, or a held-out class that is not trained.
    """
    there = {split: {class_of(name, places) for name in names} for split, names in splits.items()}
    found = sorted(there["train"] | there["test"])
    if "" in found and len(found) > 1:
        beside = min(n for names in splits.values() for n in names if not class_of(n, places))
        raise DatasetError(
            f"{folder} has pictures in class folders and beside them, such as {beside}; move these "
            "into a class"
        )
    if unknown := sorted(there["test"] - there["train"]):
        raise DatasetError(
            f"{folder}: the class {unknown[0]!r} has held-out pictures and none to train on; give "
            "it some, or take it out"
        )
    return found


def class_of(name: str, places: list[str]) -> str:
    """The class folder of a picture, "" where there is none."""
    parts = name.split("/")[0 if places == ["."] else 1 :]
    return parts[0] if len(parts) > 1 else ""


def index(
    folder: Path, progress: Callable[[int], None] | None = None, quick: bool = False
) -> tuple[Path, Header]:
    """Read every picture's file and write the index; the header's file, and the header.

    Args:
        folder: absolute.
        progress: told how many more files were read.
        quick: no picture is decoded, so that a broken one is only found in use.

    Raises:
        DatasetError: see `layout` and `classes_of`.
        picture_files.PictureError: a file is no picture, broken, transparent or has 16 bits.
    """
    places, splits = layout(folder)
    names = classes_of(folder, places, splits)
    labels = {name: label for label, name in enumerate(names)}
    sizes: Counter[Size] = Counter()
    see = partial(look, decode=not quick)
    made: dict[str, Files] = {}
    grey = lossy = 0
    total = hashlib.sha256(f"{len(names)} classes\n".encode())
    with ThreadPoolExecutor(threads()) as pool:
        for split in SPLITS:
            files = Files([], [], [], [])
            for start in range(0, len(splits[split]), _BLOCK):
                part = splits[split][start : start + _BLOCK]
                paths = [folder / name for name in part]
                files.stamps.extend(pool.map(stamp, paths))
                for name, seen in zip(part, pool.map(see, paths), strict=True):
                    label = labels[class_of(name, places)]
                    files.names.append(name)
                    files.sha256.append(seen.sha256)
                    files.labels.append(label)
                    total.update(f"{split} {label} {seen.sha256}\n".encode())
                    sizes[seen.size] += 1
                    grey, lossy = grey + seen.grey, lossy + seen.lossy
                if progress:
                    progress(len(part))
            made[split] = files
    count = sizes.total()
    facts = Facts(
        total.hexdigest(),
        side=max(map(min, sizes)),
        training=len(made["train"].names),
        held_out=len(made["test"].names),
        channels=1 if grey == count else 3,
        classes=len(names),
        lossy=lossy / count,
    )
    table = np.array([(*size, each) for size, each in sorted(sizes.items())])
    header = Header(facts, names, table)
    return write(folder, places, header, made), header


def main(arguments: list[str] | None = None) -> int:
    """Index a folder and say what is in it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m harness.folder", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="decode no picture")
    given = parser.parse_args(arguments)
    try:
        folder = path_of(given.folder)
        places, splits = layout(folder)
        with progress_bar("reading pictures", sum(map(len, splits.values()))) as advance:
            file, header = index(folder, advance, given.quick)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; no index was written", file=sys.stderr)
        return 130
    _say(folder, places, file, header)
    return 0


def passed_over(folder: Path, places: list[str]) -> list[str]:
    """Folders beside the `places` searched, as "name/"."""
    there = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [] if places == ["."] else sorted(f"{p.name}/" for p in there if p.name not in places)


def _held_out_place(places: list[str], count: int) -> str:
    if len(places) == 2:
        return f"{places[1]}/"
    share = "a tenth" if count < HELD_OUT_MOST else f"{count:,}"
    return f"{share} of {'all' if places == ['.'] else f'{places[0]}/'}"


def _say(folder: Path, places: list[str], file: Path, header: Header) -> None:
    facts = header.facts
    heights, widths, counts = header.sizes.T
    lengths = np.repeat(np.minimum(heights, widths), counts)
    colour = "grey" if facts.channels == 1 else "colour"
    classes = "1 class" if facts.classes == 1 else f"{facts.classes:,} classes"
    others = ", ".join(passed_over(folder, places))
    print(f"{folder}\n  {classes}, {colour}, digest {facts.digest[:16]}")
    print(f"  {pictures(facts.training)} to train on, {facts.held_out:,} held out")
    print(f"  held out: {_held_out_place(places, facts.held_out)}")
    print(f"  passed over: {others}\n" if others else "", end="")
    low, median, high = np.quantile(lengths, (0, 0.5, 1))
    print(f"  shorter sides {low:g} to {high:g} pixels, median {median:g}")
    small = header.smaller_than((256, 256))
    print(f"  {small:.1%} are smaller than 256, {facts.lossy:.1%} JPEG or WEBP")
    print(f"  index {file}")


if __name__ == "__main__":
    sys.exit(main())
