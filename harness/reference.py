"""Reference statistics of real images: built in one pass, kept in a file, never silently wrong.

    python -m harness.reference --data fashion_mnist --resolution 24
    python -m harness.reference --data image_folder --folder FOLDER --resolution 256
    python -m harness.reference --images FOLDER_OR_NPZ --resolution 256 --extractors dinov2

makes one file for each extractor. `harness.reference_file` has the value and its file.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from harness import extractors, features, metrics, pictures
from harness.config import Data
from harness.dataset import NAMES
from harness.errors import UserError, nearest
from harness.files import Json, check_writable
from harness.neighbours import NEIGHBOURS
from harness.npz import STATISTICS, NpzBatch
from harness.npz_arrays import file_sha256
from harness.picture_files import files
from harness.pictures import ImageSet, Progress
from harness.progress import progress as progress_bar
from harness.provenance import seeing_id
from harness.reference_file import (
    FORMAT,
    VIEWS,
    Reference,
    WrongReferenceError,
    cached,
    is_reference,
    load,
    read,
    save,
)

__all__ = [
    "Reference", "WrongReferenceError", "build", "cached", "facts_of", "from_adm", "is_reference",
    "load", "read", "save",
]  # fmt: skip

SUFFIXES = (".safetensors", ".npz")
MANIFOLD = 10_000  # images: what ADM's reference batches hold
USUAL = {"fashion_mnist": "fashion-cnn", "glyphs": "glyph-cnn"}  # extractors that ship


def facts_of(images: ImageSet, extractor: str, manifold: int, patch: int | None) -> Json:
    """What `build` would write of itself, without building: same facts, same reference.

    Raises:
        extractors.ExtractorError: no such extractor, or its weights are not on this machine.
    """
    return {
        "format": FORMAT,
        "source": images.describe,
        "digest": images.digest,
        "resolution": list(images.size),
        "channels": images.channels,
        "images": images.count,
        "manifold": min(manifold, images.count),
        "patch": patch,
        "extractor": extractor,
        "extractor_sha256": extractors.weights_sha256(extractor),
        "features_code": seeing_id(),
        **images.facts,
    }


def build(
    images: ImageSet,
    extractor: str,
    manifold: int,
    patch: int | None,
    model: torch.nn.Module,
    progress: Progress | None = None,
) -> Reference:
    """See all images once and keep what metrics need of them.

    Memory: a block of images, one D x D matrix a view, and the manifold's features; it does not
    grow with the count of images.

    Args:
        manifold: at most so many images' features are kept (`ImageSet.drawn` says which); 0: none.
        patch: side in pixels of one random crop of each image; None: no statistics of crops.
        model: from `features.load(extractor, device)`.
        progress: told how many more images are done; may raise to stop.

    Raises:
        WrongReferenceError: fewer than 2 images, crops larger than the images, features that are
            not finite.
    """
    if images.count < 2:
        raise WrongReferenceError(
            f"{images.describe}: 1 image has no covariance; at least 2 are needed, and more than "
            f"{extractors.facts(extractor).features} for one of full rank"
        )
    if patch is not None and not 1 <= patch <= min(images.size):
        raise WrongReferenceError(
            f"{images.describe}: crops of {patch} pixels do not fit {images.size[0]}x"
            f"{images.size[1]}; at most {min(images.size)}"
        )
    facts = facts_of(images, extractor, manifold, patch)
    rows = torch.from_numpy(images.drawn(facts["manifold"]))
    kept: list[torch.Tensor] = []
    totals: dict[str, metrics.Moments] = {}
    done = 0
    for block in images.batches(images.block):
        try:
            seen = features.see(model, block, patch, first=done)
            for view in VIEWS:
                if view in seen:
                    here = metrics.moments(seen[view])
                    totals[view] = metrics.merged(totals[view], here) if done else here
        except ValueError as error:
            raise WrongReferenceError(
                f"{images.describe}: images {done} to {done + len(block) - 1}: {error}"
            ) from None
        within = rows[(rows >= done) & (rows < done + len(block))] - done
        kept.append(seen["features"][within])
        done += len(block)
        if progress:
            progress(len(block))
    if done != images.count:
        raise WrongReferenceError(f"{images.describe}: {done} images came of {images.count}")
    nearby = torch.cat(kept)
    return Reference(
        extractor,
        facts,
        {view: total.mean for view, total in totals.items()},
        {view: total.covariance for view, total in totals.items()},
        {view: total.count for view, total in totals.items()},
        nearby if manifold else None,
        {k: metrics.radii(nearby, k) for k in NEIGHBOURS if len(nearby) > k},
    )


def from_adm(
    batch: NpzBatch,
    extractor: str,
    patch: int | None,
    model: torch.nn.Module,
    manifold: int = MANIFOLD,
    progress: Progress | None = None,
) -> Reference:
    """A reference of ADM's batch file: its stored statistics, and the rest from its images.

    `mu`, `sigma`, `mu_s`, `sigma_s` are those of the field's own Inception network over a whole
    training set, so they are taken for that extractor only, and their count is unknown (None);
    for any other, and for crops and the manifold, `arr_0` is measured. `facts["stored"]` names
    what was taken from the file, `facts["ignored"]` what of it was left.

    Raises:
        npz.NpzError: the images or the statistics cannot be used.
        WrongReferenceError: statistics of another width than the extractor's, or see `build`.
    """
    taken: dict[str, tuple[str, str]] = {}
    stored = batch.statistics() if extractor == extractors.STANDARD else {}
    known = extractors.facts(extractor)
    for view, mean, covariance, width in (
        ("features", "mu", "sigma", known.features),
        ("spatial", "mu_s", "sigma_s", known.spatial),
    ):
        if mean in stored:
            if len(stored[mean]) != width:
                raise WrongReferenceError(
                    f"{batch.path}: {mean} has {len(stored[mean])} values, {extractor} gives "
                    f"{width}; it is of another network: leave it out to measure the images"
                )
            taken[view] = mean, covariance
    built = build(pictures.from_npz(batch.path), extractor, manifold, patch, model, progress)
    there = [name for pair in STATISTICS.items() for name in pair if name in batch.keys]
    used = [name for pair in taken.values() for name in pair]
    means = {view: stored[mean] for view, (mean, _) in taken.items()}
    covariances = {view: stored[covariance] for view, (_, covariance) in taken.items()}
    return replace(
        built,
        facts=built.facts | {"stored": used, "ignored": [n for n in there if n not in used]},
        mean={**built.mean, **means},
        covariance={**built.covariance, **covariances},
        counts={**built.counts, **dict.fromkeys(taken)},
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written of what was under way", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    for said in options.weights:
        extractors.use_weights(said)
    usual = USUAL.get(options.data, extractors.STANDARD)
    names = list(dict.fromkeys(options.extractors or [usual]))
    if options.output and len(names) > 1:
        raise UserError("--output names one file, a file holds one extractor; give one, or neither")
    if options.output and options.output.suffix not in SUFFIXES:
        raise UserError(f"--output {options.output}: must end in {' or '.join(SUFFIXES)}")
    device = features.device_named(options.device)
    _check_source(options)
    for name in names:
        extractors.weights_sha256(name)  # refuses what is missing before the long work starts
    images = _images(options)
    for name in names:
        patch = extractors.patch_side(name, images.size) if options.patch is None else options.patch
        facts = facts_of(images, name, options.manifold, patch or None)
        path = options.output or Path(_file_name(options, images, name))
        check_writable(path)
        if path.exists() and not options.force:
            there = read(path)
            if there.facts != facts:
                differing = sorted(
                    key for key in facts | there.facts if facts.get(key) != there.facts.get(key)
                )
                raise UserError(
                    f"{path}: is there already, of other {', '.join(differing)}; name another "
                    "--output, or give --force to replace it"
                )
            print(f"{path} is there already:")
        else:
            model = features.load(name, device)
            with progress_bar(f"seeing with {name}", images.count) as advance:
                made = build(images, name, options.manifold, patch or None, model, advance)
            save(made, path, images)
        _say(path, facts, name)


def _check_source(options: argparse.Namespace) -> None:
    if options.data not in (None, *NAMES):
        raise UserError(
            f"no data set {options.data!r}; there are: {', '.join(NAMES)}"
            f"{nearest(options.data, NAMES)}"
        )
    if (options.folder is not None) != (options.data == "image_folder"):
        raise UserError("--data image_folder needs --folder FOLDER, and nothing else has one")
    if options.data is not None and options.resolution is None:
        raise UserError("--data needs --resolution, such as 24 or 24x32")


def _images(options: argparse.Namespace) -> ImageSet:
    if options.data is None:
        path, count = options.images, options.count
        total = count or (len(files(path)) if path.is_dir() else 0)
        with progress_bar("looking at pictures", total) as advance:
            return pictures.from_path(path, options.resolution, count, advance)
    data = Data(name=options.data, folder=options.folder, resolution=options.resolution)
    return pictures.from_dataset(data, options.split, options.count, options.resolution)


def _say(path: Path, facts: Json, extractor: str) -> None:
    """What a file holds, in a few lines."""
    sides = "x".join(map(str, facts["resolution"]))
    width = extractors.facts(extractor).features
    print(path)
    print(
        f"  {facts['images']} images of {facts['source']} at {sides}, digest {facts['digest'][:16]}"
    )
    print(f"  {extractor}, weights {facts['extractor_sha256'][:16]}, crops of {facts['patch']}")
    print(f"  manifold of {facts['manifold']} images")
    if facts["images"] <= width:
        print(f"  TOO FEW for a covariance of full rank: more than {width} images are needed")
    if facts.get("upsampled"):
        print(f"  {facts['upsampled']:.1%} of the images are smaller than that and were enlarged")
    if facts.get("lossy"):
        print(f"  {facts['lossy']:.1%} of the pictures are JPEG or WEBP, which changes FID")
    print(f"  sha256 {file_sha256(path)}")


def _file_name(options: argparse.Namespace, images: ImageSet, extractor: str) -> str:
    named = Path(options.folder).resolve().name if options.folder else options.data
    source = f"{named}-{options.split}" if options.data else options.images.resolve().name
    source = source.removesuffix(".npz")
    count = f"-{images.count}" if options.count else ""
    return f"{source}{count}-{'x'.join(map(str, images.size))}-{extractor}.safetensors"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.reference", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    what.add_argument("--images", type=Path, metavar="FOLDER|FILE.npz", help="pictures or arr_0")
    add("--folder", metavar="FOLDER", help="of --data image_folder (see harness.folder)")
    add(
        "--resolution",
        type=_resolution,
        metavar="24|24x32",
        help="height x width; pictures are"
        " brought to it by ADM's centre crop (default: as they are, if all are of one size)",
    )
    add("--count", type=whole, metavar="N", help="that many images, a fixed draw (default: all)")
    add("--split", choices=("train", "test"), default="train", help="of --data (%(default)s)")
    add(
        "--manifold",
        type=_whole_or_none,
        default=MANIFOLD,
        metavar="N",
        help="images behind precision, recall, density, coverage and KID, at most (%(default)s; "
        "0: none)",
    )
    add(
        "--extractors",
        nargs="+",
        metavar="NAME",
        help=f"of {', '.join(extractors.FACTS)} (default: {extractors.STANDARD}; "
        "fashion-cnn and glyph-cnn of the data sets that are small)",
    )
    add(
        "--patch",
        type=_whole_or_none,
        metavar="SIDE",
        help="of the crops behind patch FID, in pixels; 0: "
        "none (default: half the shorter side, at most the extractor's input)",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="ends in .safetensors, or in .npz for others' "
        "evaluators (default: a name that tells data, resolution and extractor, here)",
    )
    add("--weights", action="append", default=[], metavar="NAME=FILE", help="of an extractor")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--force", action="store_true", help="replace an output of other contents")
    return parser  # fmt: skip


def _resolution(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(s.isdecimal() and 0 < int(s) <= 2**16 for s in sides):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected pixels such as 24 or 24x32")
    return int(sides[0]), int(sides[-1])


def whole(text: str) -> int:
    """A number of a command line, above 0."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number above 0")
    return int(text)


def _whole_or_none(text: str) -> int:
    return 0 if text == "0" else whole(text)


if __name__ == "__main__":
    sys.exit(main())
