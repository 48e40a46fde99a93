"""Measure anybody's samples: every figure with its interval, its floor and where it comes from.

    python -m harness.evaluate --samples FILE.npz --reference FILE.npz

Samples are an .npz with `arr_0` (uint8 [N, H, W, 3], as ADM's evaluator reads it) or a folder of
pictures of one size. The reference is a file of `python -m harness.reference`, an ADM reference
batch (its `mu`, `sigma`, `mu_s`, `sigma_s` are used), or images like the samples. Exit status:
0 measured, 2 bad input, 130 stopped by Ctrl-C.
"""

import argparse
import errno
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from harness import extractors, features, reference_file
from harness.errors import UserError
from harness.files import Json, check_writable, write_json
from harness.identity import digest
from harness.measure import Measured, measure, seen_by
from harness.metrics import splits_of
from harness.neighbours import NEIGHBOURS
from harness.npz import NpzBatch
from harness.pictures import ImageSet, from_path
from harness.progress import progress
from harness.provenance import code_id, seeing_id
from harness.reference import MANIFOLD, build, from_adm, whole
from harness.reference_file import Reference
from harness.result_table import show, size_of
from harness.shards import Shards, distinct, pixels_sha256, samples_sha256

BLOCK = 250  # images of a shard


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.output:
            check_writable(options.output)  # before hours of work
        result = run(options)
        show(result)
        if options.output:
            write_json(options.output, result)
            print(f"written to {options.output}")
    except (UserError, OSError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = options.features or "the folder of temporary files (TMPDIR)"
        print(f"no space left in {where}; free some" if full else error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = f"; go on with --features {options.features}" if options.features else ""
        print(f"stopped{kept}", file=sys.stderr)
        return 130
    return 0


def run(options: argparse.Namespace) -> Json:
    """Measure what the options name; the result as JSON.

    Raises:
        UserError: a file that cannot be used, or two that do not go together.
    """
    for said in options.weights:
        extractors.use_weights(said)
    device = features.device_named(options.device)
    samples = from_path(options.samples)
    held_out = from_path(options.held_out) if options.held_out else None
    given = _given(options.reference)
    _check(samples, held_out, given, options)
    names, left_out = _extractors(given, options)
    models = {name: features.load(name, device) for name in names}
    found = {name: _reference(given, name, model, options) for name, model in models.items()}
    result, about = _measured(samples, found, models, options, device)
    floor = Measured()
    if held_out is not None:
        # A fixed draw: the first ones of a sorted folder are often of few classes.
        drawn = from_path(options.held_out, count=samples.count)
        floor, _ = _measured(drawn, found, models, options, device)
    return {
        "samples": {"source": samples.describe, "digest": samples.digest, "count": samples.count,
                    "size": list(samples.size)} | about,
        "references": {name: real.facts | {"counts": dict(real.counts)}
                       for name, real in found.items()},
        "held_out": {"source": held_out.describe, "digest": held_out.digest} if held_out else None,
        "left_out": left_out,
        "protocol": {"neighbours": NEIGHBOURS, "splits": splits_of(samples.count),
                     "interval": "95 %, infinitesimal jackknife over the samples, reference fixed"},
        "metrics": result.metrics,
        "intervals": result.intervals,
        "marks": result.marks,
        "floor": floor.metrics,
        "floor_intervals": floor.intervals,
        "code_id": code_id(),
    }  # fmt: skip


def _given(path: Path) -> Reference | ImageSet:
    """What stands in the reference's place: statistics that were made before, or images."""
    if not path.is_dir() and reference_file.is_reference(path):
        return reference_file.load(path, reference_file.read(path).extractor)
    return from_path(path)


def _check(
    samples: ImageSet,
    held_out: ImageSet | None,
    given: Reference | ImageSet,
    options: argparse.Namespace,
) -> None:
    """Refuse what cannot be compared, before anything is computed."""
    size = given.size if isinstance(given, ImageSet) else tuple(given.facts["resolution"])
    if size != samples.size:
        raise UserError(
            f"{options.samples}: its images are {size_of(samples.size)}, those of the reference "
            f"{options.reference} {size_of(size)}; every extractor would resize both without a "
            "word: build a reference at the samples' size (python -m harness.reference)"
        )
    if samples.count < 2:
        raise UserError(f"{options.samples}: holds 1 image, at least 2 are needed")
    if isinstance(given, ImageSet) and given.count < 2:
        raise UserError(f"{options.reference}: holds 1 image, at least 2 are needed")
    if options.patch is not None and options.patch > min(samples.size):
        raise UserError(
            f"--patch {options.patch}: does not fit into {size_of(samples.size)}; use at most "
            f"{min(samples.size)}"
        )
    if isinstance(given, Reference):
        most = given.facts["images"]
        manifold = None if options.manifold is None else min(options.manifold, most)
        for option, asked in (("patch", options.patch), ("manifold", manifold)):
            if asked not in (None, given.facts[option]):
                raise UserError(
                    f"--{option} {asked}: {options.reference} was built with "
                    f"{given.facts[option]}; leave the option away, or build another: python -m "
                    f"harness.reference --{option} {asked}"
                )
    if held_out is None:
        return
    if held_out.size != samples.size:
        raise UserError(
            f"{options.held_out}: its images are {size_of(held_out.size)}, the samples "
            f"{size_of(samples.size)}; the floor needs real images of the samples' size"
        )
    if held_out.count < samples.count:
        raise UserError(
            f"{options.held_out}: holds {held_out.count} images; the floor needs as many as there "
            f"are samples, {samples.count}"
        )
    known = {samples.digest: "samples"}
    known[given.digest if isinstance(given, ImageSet) else given.facts["digest"]] = "reference"
    if held_out.digest in known:
        raise UserError(
            f"{options.held_out}: holds the images of the {known[held_out.digest]}; the floor "
            "needs real images that are in neither"
        )


def _extractors(
    given: Reference | ImageSet, options: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """The extractors to measure with, and those whose weights are not on this machine."""
    for name in options.extractors or ():
        extractors.facts(name)  # refuses a name that is none
    if isinstance(given, Reference):
        if options.extractors not in (None, [given.extractor]):
            raise UserError(
                f"{options.reference}: holds features of {given.extractor}, asked for "
                f"{', '.join(options.extractors)}; leave --extractors away, or give the images"
            )
        return [given.extractor], []
    if options.extractors:
        return list(dict.fromkeys(options.extractors)), []
    if not options.reference.is_dir() and NpzBatch(options.reference).statistics():
        extractors.weights_sha256(extractors.STANDARD)  # whose statistics the file carries
    there, left_out = [], []
    for name in extractors.FACTS:
        if extractors.facts(name).data == "glyphs":  # of use for nothing else
            continue
        try:
            extractors.weights_sha256(name)
            there.append(name)
        except extractors.MissingWeightsError:
            left_out.append(name)
    return there, left_out


def _reference(
    given: Reference | ImageSet, extractor: str, model: nn.Module, options: argparse.Namespace
) -> Reference:
    """The reference for an extractor: as given, or built of the images."""
    if isinstance(given, Reference):
        return given
    patch = options.patch or extractors.patch_side(extractor, given.size)
    manifold = options.manifold or MANIFOLD

    with progress(f"reference, {extractor}", given.count) as advance:
        if options.reference.is_dir():
            return build(given, extractor, manifold, patch, model, advance)
        batch = NpzBatch(options.reference)
        return from_adm(batch, extractor, patch, model, manifold, advance)


def _measured(
    images: ImageSet,
    found: Mapping[str, Reference],
    models: Mapping[str, nn.Module],
    options: argparse.Namespace,
    device: torch.device,
) -> tuple[Measured, Json]:
    """The figures of images by every extractor, and what their pixels say."""
    weights = {name: extractors.weights_sha256(name) for name in models}
    patches = {name: real.facts["patch"] for name, real in found.items()}
    count = images.count
    key = digest([images.digest, weights, patches, seeing_id()])
    with ExitStack() as stack:
        folder = options.features or Path(stack.enter_context(TemporaryDirectory()))
        shards = Shards(folder / key, key)
        todo = shards.missing(count, BLOCK)
        advance = stack.enter_context(progress(images.describe, sum(map(len, todo))))
        for indices, block in _blocks(images, count, todo):
            arrays = seen_by(models, patches, block, indices.start)
            shards.write(indices, arrays | {"sha256": pixels_sha256(block)})
            advance(len(block))
        result = Measured()
        for name, real in found.items():
            try:
                result |= measure(shards.seen_by(name), real, options.fid_infinity, device)
            except ValueError as error:
                raise UserError(f"{images.describe}, {name}: {error}") from None
        return result, {"sha256": samples_sha256(shards), "distinct": distinct(shards)}


def _blocks(images: ImageSet, count: int, todo: Sequence[range]) -> Iterator[tuple[range, Tensor]]:
    """The images of the ranges that are to be seen; all are read, for a file is read in order."""
    wanted = set(todo)
    start = 0
    for block in images.batches(BLOCK):
        indices = range(start, min(start + len(block), count))
        if indices in wanted:
            yield indices, block[: len(indices)]
        start = indices.stop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness.evaluate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--samples", type=Path, required=True, metavar="FILE.npz|FOLDER")
    add("--reference", type=Path, required=True, metavar="FILE|FOLDER")
    add(
        "--held-out",
        type=Path,
        metavar="FILE.npz|FOLDER",
        help="other real images: as many of them as there are samples make the floor",
    )
    add(
        "--extractors",
        nargs="+",
        metavar="NAME",
        help="default: the reference's own, or all whose weights are on this machine",
    )
    add("--patch", type=whole, metavar="SIDE", help="of the crops behind patch FID, in pixels")
    add(
        "--manifold",
        type=whole,
        metavar="N",
        help="real images behind precision, recall, density, coverage and KID, at most "
        f"(default: {MANIFOLD:,})",
    )
    add("--fid-infinity", action="store_true", help="also extrapolate FID to infinite samples")
    add(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="keep features there: a killed command goes on from them",
    )
    add("--output", type=Path, metavar="FILE.json", help="write the result, with all its origins")
    add("--weights", action="append", default=[], metavar="NAME=FILE", help="of an extractor")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    return parser  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
