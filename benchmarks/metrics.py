"""From decoded samples to all metrics, against torch-fidelity on the same images; and memory.

    python -m benchmarks.metrics [--samples 10000] [--repeat 5] [--output FILE]

Held-out Fashion-MNIST images with some noise stand for the generated ones; the extractor is
fashion-cnn on both sides. torch-fidelity reads PNG folders, which are written beforehand. All of it
runs in one process, ours and theirs in turn, and the fastest round of each counts, for other work
on the machine only adds to it. Only the memory is measured in processes of their own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_fidelity
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from harness import features
from harness.config import Data
from harness.data import real_images
from harness.draws import normal
from harness.metrics import Moments, frechet_distance, inception_score, kid, merged, moments
from harness.neighbours import prdc
from harness.uncertainty import (
    frechet_gradient,
    frechet_influence,
    kid_influence,
    score_influence,
    standard_error,
)

EXTRACTOR = "fashion-cnn"
SIZE = (32, 32)
NOISE = 12.0  # standard deviation in grey levels: enough for a distance well above the floor
BLOCK = 1000  # images or features at a time
VIEWS = ("features", "patch")
WIDTH = 2048  # of the features in the timing of the FID's error

Json = dict[str, Any]

THEIRS = {
    "fid": "frechet_inception_distance",
    "is": "inception_score_mean",
    "kid": "kernel_inception_distance_mean",
    "precision": "precision",
    "recall": "recall",
}


def noisy(images: Tensor) -> Tensor:
    """uint8 images with the noise that makes them a generator's."""
    noise = NOISE * normal(0, "benchmark", 0, tuple(images.shape))
    return (images + noise).round().clamp(0, 255).byte()


def write_pngs(images: Tensor, folder: Path) -> str:
    """Write uint8 [N, 1, h, w] as PNG files; the folder's name."""
    folder.mkdir()
    for index, image in enumerate(images.numpy()):
        Image.fromarray(image[0]).save(folder / f"{index:06d}.png", compress_level=1)
    return str(folder)


def by_torch_fidelity(generated: str, real: str) -> dict[str, float]:
    """Their figures from two folders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # four workers on two cores: their choice
        found = torch_fidelity.calculate_metrics(
            input1=generated, input2=real, isc=True, fid=True, kid=True, prc=True,
            feature_extractor=EXTRACTOR, cuda=False, cache=False, verbose=False,
        )  # fmt: skip
    return {kind: found[name] for kind, name in THEIRS.items()}


def by_us(generated: Tensor, real: Tensor) -> dict[str, float]:
    """The same figures, and density and coverage, from decoded images."""
    model = features.load(EXTRACTOR)
    seen, seen_real = features.see(model, generated), features.see(model, real)
    a, b = (streamed(each["features"].split(BLOCK)) for each in (seen, seen_real))
    around = prdc(seen["features"], seen_real["features"])
    return {
        "fid": frechet_distance(a.mean, a.covariance, b.mean, b.covariance),
        "is": inception_score(seen["logits"]),
        "kid": kid(seen["features"], seen_real["features"]),
        **{kind: value for kind, (value, _) in around.items()},
    }


def streamed(blocks: Iterator[Tensor] | tuple[Tensor, ...]) -> Moments:
    """Moments of all blocks together."""
    return reduce(merged, map(moments, blocks))


def errors(generated: Tensor, real: Tensor, logits: Tensor) -> dict[str, float]:
    """Standard errors of those figures that do not come with theirs."""
    a, b = (streamed(each.split(BLOCK)) for each in (generated, real))
    gradient = frechet_gradient(a.mean, a.covariance, b.mean, b.covariance)
    return {
        "fid": standard_error(frechet_influence(generated, gradient)),
        "is": standard_error(score_influence(logits)),
        "kid": standard_error(kid_influence(generated, real)),
    }


def in_turn(repeat: int, **actions: Callable[[], object]) -> dict[str, float]:
    """Least seconds of each action, done one after the other, `repeat` times round."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeat):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(taken) for name, taken in seconds.items()}


def against_torch_fidelity(samples: int, repeat: int) -> Json:
    """Seconds and figures of both on the same images."""
    data = Data(name="fashion_mnist", resolution=SIZE)
    held_out, real = (
        torch.cat([*real_images(data, split, samples, SIZE)]) for split in ("test", "train")
    )
    generated = noisy(held_out)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [write_pngs(generated, Path(folder, "a")), write_pngs(real, Path(folder, "b"))]
        model = features.load(EXTRACTOR)
        seconds = in_turn(
            repeat,
            theirs=lambda: found.update(theirs=by_torch_fidelity(*paths)),
            ours=lambda: found.update(ours=by_us(generated, real)),
            of_it_features=lambda: [features.see(model, images) for images in (generated, real)],
        )
    seen, seen_real = features.see(model, generated), features.see(model, real)["features"]
    seconds |= in_turn(repeat, errors=lambda: errors(seen["features"], seen_real, seen["logits"]))
    # They take the mean of the features in float32: what is left with their code in float64.
    statistics_of = [
        fid_features_to_statistics(each.double()) for each in (seen["features"], seen_real)
    ]
    in_double = fid_statistics_to_metric(*statistics_of, verbose=False)
    return {
        "seconds": seconds,
        "ratio": seconds["theirs"] / seconds["ours"],
        "theirs": found["theirs"],
        "their_fid_in_float64": in_double["frechet_inception_distance"],
        "ours": found["ours"],
        "standard_errors": errors(seen["features"], seen_real, seen["logits"]),
    }


def error_of_a_distance(samples: int, repeat: int) -> Json:
    """The FID's standard error against the FID itself, from features of WIDTH dimensions."""
    draws = np.random.default_rng(0)
    mixing = draws.normal(size=(WIDTH, WIDTH)) * np.geomspace(1, 0.01, WIDTH)
    reference = (np.zeros(WIDTH), mixing @ mixing.T)
    values = torch.from_numpy(1.1 * draws.normal(size=(samples, WIDTH)) @ mixing.T).float()
    known = streamed(values.split(BLOCK))

    def single() -> float:
        found = streamed(values.split(BLOCK))
        return frechet_distance(found.mean, found.covariance, *reference)

    def jackknife() -> float:
        gradient = frechet_gradient(known.mean, known.covariance, *reference)
        blocks = [frechet_influence(block, gradient) for block in values.split(BLOCK)]
        return standard_error(np.concatenate(blocks))

    seconds = in_turn(repeat, fid=single, error=jackknife)
    return {"seconds": seconds, "ratio": seconds["error"] / seconds["fid"], "width": WIDTH}


def images_of(count: int, model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What the extractor sees in `count` random images, none of which is kept."""
    for start in range(0, count, BLOCK):
        draws = np.random.default_rng(start)
        pixels = draws.integers(0, 256, (min(BLOCK, count - start), 1, *SIZE), dtype=np.uint8)
        yield features.see(model, torch.from_numpy(pixels), patch=16, first=start)


def hold(what: str, count: int) -> None:
    """Compute metrics of `count` random images, for the memory that it takes."""
    model = features.load(EXTRACTOR)
    if what == "distances":  # two of them: twice over the images
        found: dict[str, Moments] = {}
        for seen in images_of(count, model):
            for view in VIEWS:
                part = moments(seen[view])
                found[view] = merged(found[view], part) if view in found else part
        gradients = {}
        for view, own in found.items():
            real = own.mean + 1, 1.1 * own.covariance
            frechet_distance(own.mean, own.covariance, *real)
            gradients[view] = frechet_gradient(own.mean, own.covariance, *real)
        u: dict[str, list[np.ndarray]] = {view: [] for view in VIEWS}
        for seen in images_of(count, model):
            for view in VIEWS:
                u[view].append(frechet_influence(seen[view], gradients[view]))
        for parts in u.values():
            standard_error(np.concatenate(parts))
    elif what == "neighbours":  # all features of the samples, and 10,000 of the reference
        every, manifold = (
            torch.cat([seen["features"] for seen in images_of(n, model)]) for n in (count, 10_000)
        )
        prdc(every, manifold)
        kid(every, manifold)
        kid_influence(every, manifold)


def peak_mib(what: str, count: int) -> float:
    """Most memory that a process held which computes `what`."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--hold", what, "--samples", str(count)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(ended.stdout.split()[-1])


def memory(samples: int) -> Json:
    """Peak MiB with nothing, `samples` and four times as many."""
    start = peak_mib("nothing", samples)
    counts = (samples, 4 * samples)
    return {"start": start} | {
        what: {str(count): peak_mib(what, count) for count in counts}
        for what in ("distances", "neighbours")
    }


def report(result: Json) -> None:
    """Print what was measured."""
    part, seconds = result["torch_fidelity"], result["torch_fidelity"]["seconds"]
    print(
        f"{result['samples']:,} samples against as many, {EXTRACTOR}, {result['threads']} threads"
    )
    print(f"  torch-fidelity, from PNG folders   {seconds['theirs']:8.2f} s")
    print(f"  ours, from decoded images          {seconds['ours']:8.2f} s   x{part['ratio']:.2f}")
    print(f"    of it features                   {seconds['of_it_features']:8.2f} s")
    print(f"  and errors of FID, IS and KID      {seconds['errors']:8.2f} s")
    print(f"\n{'':12}{'torch-fidelity':>16}{'ours':>16}{'difference':>12}")
    for kind, theirs in part["theirs"].items():
        ours = part["ours"][kind]
        print(f"{kind:12}{theirs:16.9f}{ours:16.9f}{abs(ours - theirs):12.1e}")
    theirs = part["their_fid_in_float64"]
    print(f"fid, their mean in float64 too{abs(part['ours']['fid'] - theirs):26.1e}")
    single, error = (result["error"]["seconds"][name] for name in ("fid", "error"))
    print(f"\none FID of {result['samples']:,} x {WIDTH}   {single:.2f} s")
    print(f"its standard error        {error:.2f} s   x{result['error']['ratio']:.2f}")
    held = result["memory"]
    print(f"\npeak memory in MiB; {held['start']:.0f} before the first image")
    for what in ("distances", "neighbours"):
        print(f"  {what:12}" + "".join(f"{int(n):>9,}: {mib:.0f}" for n, mib in held[what].items()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5, help="rounds; the fastest counts")
    parser.add_argument("--output", type=Path, help="JSON file to write as well")
    parser.add_argument("--hold", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args(arguments)
    if options.hold:
        hold(options.hold, options.samples)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return 0
    result = {
        "samples": options.samples,
        "threads": torch.get_num_threads(),
        "memory": memory(options.samples),  # first: a process begins with its parent's peak
        "torch_fidelity": against_torch_fidelity(options.samples, options.repeat),
        "error": error_of_a_distance(options.samples, options.repeat),
    }
    report(result)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
