"""Measure anybody's samples: every figure with its interval, its floor and where it comes from.

    python -m harness.evaluate --samples FILE.npz --reference FILE.npz

Samples are an .npz with `arr_0` (uint8 [N, H, W, 3], as ADM's evaluator reads it) or a folder of
pictures of one size. The reference is a file of `python -m harness.reference`, an ADM reference
batch (its `mu`, `sigma`, `mu_s`, `sigma_s` are used), or images like the samples. Exit status:
0 measured, 2 bad input.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from harness import extractors, features, reference_file
from harness.errors import UserError
from harness.identity import digest
from harness.measure import Measured, measure, seen_by
from harness.metrics import splits_of
from harness.neighbours import NEIGHBOURS
from harness.npz import NpzBatch
from harness.pictures import ImageSet, from_path
from harness.progress import progress
from harness.provenance import code_id, measuring_id
from harness.record import Json, write_json
from harness.reference import build, from_adm
from harness.reference_file import Reference
from harness.shards import Shards, pixels_sha256, samples_sha256

BLOCK = 250  # images of a shard


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        result = run(options)
    except (UserError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    _show(result)
    if options.output:
        write_json(options.output, result)
        print(f"written to {options.output}")
    return 0


def run(options: argparse.Namespace) -> Json:
    """Measure what the options name; the result as JSON.

    Raises:
        UserError: a file that cannot be used, or two that do not go together.
        ValueError: too few samples for a metric.
    """
    for said in options.weights:
        extractors.use_weights(said)
    samples = from_path(options.samples)
    held_out = from_path(options.held_out) if options.held_out else None
    device = features.device_named(options.device)
    names, left_out = _extractors(options)
    models = {name: features.load(name, device) for name in names}
    patches = {name: options.patch or extractors.patch_side(name, samples.size) for name in models}
    found = {name: _reference(options, name, models[name], patches[name]) for name in models}
    for real in found.values():
        _check_sizes(samples, real, options)
        patches[real.extractor] = real.facts["patch"]
    if held_out is not None and held_out.size != samples.size:
        raise UserError(
            f"{options.held_out}: its images are {_size(held_out.size)}, the samples "
            f"{_size(samples.size)}; the floor needs real images of the samples' size"
        )
    if held_out is not None and held_out.count < samples.count:
        raise UserError(
            f"{options.held_out}: holds {held_out.count} images; the floor needs as many as there "
            f"are samples, {samples.count}"
        )
    result, sha256 = _measured(samples, samples.count, found, models, patches, options, device)
    floor = Measured()
    if held_out is not None:
        floor, _ = _measured(held_out, samples.count, found, models, patches, options, device)
    return {
        "samples": {"source": samples.describe, "digest": samples.digest, "count": samples.count,
                    "size": list(samples.size), "sha256": sha256},
        "references": {name: real.facts | {"counts": dict(real.counts)}
                       for name, real in found.items()},
        "held_out": held_out.describe if held_out else None,
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


def _extractors(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The extractors to measure with, and those whose weights are not on this machine."""
    for name in options.extractors or ():
        extractors.facts(name)  # refuses a name that is none
    if not options.reference.is_dir() and reference_file.is_reference(options.reference):
        own = reference_file.read(options.reference).extractor
        if options.extractors not in (None, [own]):
            raise UserError(
                f"{options.reference}: holds features of {own}, asked for "
                f"{', '.join(options.extractors)}; leave --extractors away, or give the images"
            )
        return [own], []
    if options.extractors:
        return list(dict.fromkeys(options.extractors)), []
    there, left_out = [], []
    for name in extractors.FACTS:
        try:
            extractors.weights_sha256(name)
            there.append(name)
        except extractors.ExtractorError:
            left_out.append(name)
    return there, left_out


def _reference(
    options: argparse.Namespace, extractor: str, model: nn.Module, patch: int
) -> Reference:
    path = options.reference
    if not path.is_dir() and reference_file.is_reference(path):
        return reference_file.load(path, extractor)
    images = from_path(path)
    manifold = min(options.manifold, images.count)
    with progress(f"reference, {extractor}", images.count) as advance:
        if path.is_dir():
            return build(images, extractor, manifold, patch, model, advance)
        return from_adm(NpzBatch(path), extractor, patch, model, manifold, advance)


def _check_sizes(samples: ImageSet, real: Reference, options: argparse.Namespace) -> None:
    if tuple(real.facts["resolution"]) != samples.size:
        raise UserError(
            f"{options.samples}: its images are {_size(samples.size)}, those of the reference "
            f"{options.reference} {_size(real.facts['resolution'])}; every extractor would resize "
            "both without a word: build a reference at the samples' size (python -m "
            "harness.reference --resolution)"
        )


def _measured(
    images: ImageSet,
    count: int,
    found: Mapping[str, Reference],
    models: Mapping[str, nn.Module],
    patches: Mapping[str, int | None],
    options: argparse.Namespace,
    device: torch.device,
) -> tuple[Measured, str]:
    """The figures of the first `count` images by every extractor, and the hash of their pixels."""
    weights = {name: extractors.weights_sha256(name) for name in models}
    key = digest([images.digest, count, weights, dict(patches), measuring_id()])
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
            read = partial(_view, shards, name)
            result |= measure(read, real, options.fid_infinity, device)
        return result, samples_sha256(shards)


def _blocks(images: ImageSet, count: int, todo: Sequence[range]) -> Iterator[tuple[range, Tensor]]:
    """The images of the ranges that are to be seen; all are read, for a file is read in order."""
    wanted = set(todo)
    start = 0
    for block in images.batches(BLOCK):
        indices = range(start, min(start + len(block), count))
        if indices in wanted:
            yield indices, block[: len(indices)]
        start = indices.stop


def _view(shards: Shards, extractor: str, view: str) -> Iterator[Tensor]:
    return shards.read(f"{extractor}/{view}")


def _show(result: Json) -> None:
    """The figures as a table, and what a reader must know of them."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("metric", "left"), ("value", "right"), ("95 % interval", "right"),
                           ("real images", "right")):  # fmt: skip
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for name, value in result["metrics"].items():
        low_high = result["intervals"].get(name)
        told = f"{low_high[0]:.5g} to {low_high[1]:.5g}" if low_high else "–"
        floor = result["floor"].get(name)
        mark = " †" if name in result["marks"] else ""
        real = f"{floor:.5g}" if floor is not None else "–"
        table.add_row(name, f"{value:.5g}{mark}", told, real)
    console.print(table)
    for name, reason in result["marks"].items():
        console.print(f"† {name}: {reason}", soft_wrap=True, highlight=False)
    samples = result["samples"]
    lines = [
        f"samples: {samples['count']} of {_size(samples['size'])}, {samples['source']}, "
        f"sha256 {samples['digest'][:16]}"
    ]
    for name, facts in result["references"].items():
        lines.append(
            f"reference: {_counts(facts)} of {facts['source']}, digest {facts['digest'][:16]}; "
            f"{name}, weights {facts['extractor_sha256'][:16]}, crops of {facts['patch']}"
        )
    if not result["held_out"]:
        lines.append("real images: not measured; give some with --held-out for the floor")
    if result["left_out"]:
        lines.append(
            f"left out, because their weights are not on this machine: "
            f"{', '.join(result['left_out'])} (python -m harness.extractors says how to get them)"
        )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _counts(facts: Mapping[str, Any]) -> str:
    counts = {str(n) if n is not None else "an unknown number" for n in facts["counts"].values()}
    return " or ".join(sorted(counts)) + " images"


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


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
    add("--patch", type=_positive, metavar="SIDE", help="of the crops behind patch FID, in pixels")
    add(
        "--manifold",
        type=_positive,
        default=10_000,
        metavar="N",
        help="real images behind precision, recall, density, coverage and KID (%(default)s)",
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


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
