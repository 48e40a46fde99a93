"""On a machine with one CUDA GPU: the tests that need it, the quickstart's runs, training speed.

    benchmarks/gpu.sh [OUTPUT_DIR]        # meant to take under 8 minutes on one H100
    benchmarks/gpu.sh --cpu OUTPUT_DIR    # the same parts, scaled down, without a GPU

Figures go to stdout as tables and to OUTPUT_DIR/gpu.json; nothing is asserted about speed.
Exit status: 0 all parts ran, 1 a test or a run failed, 2 torch or a CUDA device is missing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.ablation import read_ablation
from harness.config import Training
from harness.files import read_json, write_json
from harness.grid import expand
from harness.provenance import ROOT, provenance
from harness.record import RunFolder, prepare, run_folder

Json = dict[str, Any]

PARTS = ("tests", "quickstart", "steps")
LIMIT = 300  # seconds for any one process
NO_MEMORY = 3  # exit status of benchmarks.steps


@dataclass(frozen=True)
class Dit:
    """A model of the DiT paper (arXiv 2212.09748), and the batch that it is timed with."""

    name: str
    width: int
    depth: int
    heads: int
    batch: int


MODELS = (
    Dit("DiT-S/2", 384, 12, 6, 256),
    Dit("DiT-B/2", 768, 12, 12, 128),
    Dit("DiT-XL/2", 1152, 28, 16, 64),
)


@dataclass(frozen=True)
class Scale:
    """How much of each part is done."""

    models: tuple[Dit, ...]
    steps: tuple[str, ...]  # further arguments of benchmarks.steps
    quickstart: tuple[str, ...]  # KEY=VALUE changes
    environment: dict[str, str]


GPU = Scale(MODELS, (), ("job.gpus=1",), {})
CPU = Scale(
    (Dit("DiT-S/2", 384, 12, 6, 2),),
    ("--warmup", "1", "--blocks", "2", "--steps", "1", "--matmul", "1024"),
    (
        "train.images=640",
        "evaluate.samples=20",
        "evaluate.reference_images=200",
        "evaluate.manifold_images=50",
        "inference.steps=2",
    ),
    {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
)


class FailedError(Exception):
    """A process of a part did not do its work; the others go on."""


def python(
    scale: Scale, *arguments: object, log: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """This interpreter with `arguments`; what it prints goes to `log`, or here."""
    environment = os.environ | scale.environment
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    command = [sys.executable, *map(str, arguments)]
    try:
        if log is None:
            return subprocess.run(command, env=environment, cwd=ROOT, timeout=LIMIT)
        with log.open("ab") as file:
            return subprocess.run(
                command, env=environment, cwd=ROOT, timeout=LIMIT, stdout=file, stderr=file
            )
    except subprocess.TimeoutExpired:
        raise FailedError(f"python {' '.join(command[1:3])}: not done in {LIMIT} s") from None


def tests(scale: Scale, work: Path) -> Json:
    """The tests marked `cuda`: counts, and why any were skipped or failed."""
    report = work / "tests.xml"
    # Other warnings on another machine are no failure here; and nothing is left in the tree.
    python(
        scale, "-m", "pytest", "tests/test_cuda.py", "-m", "cuda", "-q", "-W", "default",
        "-p", "no:cacheprovider", f"--junitxml={report}",
    )  # fmt: skip
    if not report.exists():
        raise FailedError("pytest ended without a report")
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    reasons = {
        f"{kind}: {case.attrib['name'] if kind != 'skipped' else ''} {found.get('message', '')}"
        for case in suite.iter("testcase")
        for kind in ("failure", "error", "skipped")
        for found in case.iter(kind)
    }
    return {
        **counts,
        "passed": counts["tests"] - sum(counts[n] for n in ("failures", "errors", "skipped")),
        "seconds": float(suite.attrib["time"]),
        "reasons": sorted(" ".join(reason.split())[:300] for reason in reasons),
    }


def quickstart(scale: Scale, work: Path) -> Iterable[Json]:
    """The quickstart's runs, each in a process of its own, one after the other."""
    grid = expand(read_ablation(ROOT / "ablations" / "quickstart.yaml", scale.quickstart))
    runs: dict[str, tuple[RunFolder, Training, int]] = {}
    for cell in grid.cells:
        for seed, run_id in cell.runs:
            folder = run_folder(work, run_id)
            evaluations = {m.eval_id: m.evaluation for m in cell.measurements}
            prepare(folder, cell.training, cell.group_id, seed, grid.job, evaluations)
            runs[run_id] = folder, cell.training, seed
    for folder, training, seed in runs.values():
        started = time.monotonic()
        status = python(scale, "-m", "harness.run", folder.path, log=folder.log_file).returncode
        if status:
            told = "\n".join(folder.log_tail(20))
            raise FailedError(f"harness.run ended with {status}:\n{told}")
        yield run_figures(folder, training, seed, time.monotonic() - started)


def run_figures(folder: RunFolder, training: Training, seed: int, wall: float) -> Json:
    """What one finished run took, and what its evaluations say."""
    done = folder.done()
    assert done is not None
    speeds = [line["images_per_second"] for line in folder.metrics()]
    results = [folder.result(eval_id) for eval_id in folder.requests()]
    evaluations = [evaluation_figures(result) for result in results if result is not None]
    return {
        "run_id": folder.run_id,
        "training": f"{training.model.encoding} {training.positions.sampler} "
        f"x{training.positions.range_multiplier:g}",
        "seed": seed,
        "images": done["images"],
        "wall_seconds": wall,
        "train_seconds": done["seconds"],
        "images_per_second": statistics.median(speeds),
        "evaluations": sorted(evaluations, key=lambda e: (e["resolution"], e["inference"])),
    }


def evaluation_figures(result: Json) -> Json:
    """One evaluation: how it was sampled, its distance and that of held-out real images."""
    inference = result["config"]["inference"]
    metric = next(name for name in result["metrics"] if name.startswith("fid"))
    ways = [inference["law"], inference["attention_scale"], inference["resize"]]
    return {
        "eval_id": result["eval_id"],
        "resolution": result["config"]["evaluate"]["resolution"],
        "inference": " ".join([ways[0], *(way for way in ways[1:] if way != "none")]),
        "samples": result["protocol"]["samples"],
        "metric": metric,
        "fid": result["metrics"][metric],
        "interval": result["intervals"].get(metric),
        "floor": result["floor"][metric],
        "seconds": sum(result["seconds"].values()),
    }


def steps(scale: Scale, work: Path) -> Iterable[Json]:
    """Training speed, one process a model; a batch that does not fit is halved, and said so."""
    for model in scale.models:
        batch, output = model.batch, work / "steps.json"
        while True:
            status = python(
                scale, "-m", "benchmarks.steps", "--width", model.width, "--depth", model.depth,
                "--heads", model.heads, "--batch", batch, "--output", output, *scale.steps,
            ).returncode  # fmt: skip
            if status != NO_MEMORY or batch == 1:
                break
            batch //= 2
        if status:
            raise FailedError(f"{model.name}: benchmarks.steps ended with {status}")
        yield {"model": model.name, "batch_asked": model.batch} | read_json(output)
        output.unlink()


def device(scale: Scale, work: Path) -> Json:
    """The device, as a child sees it: this process takes none of the GPU's memory."""
    output = work / "facts.json"
    if python(scale, "-m", "benchmarks.steps", "--facts", "--output", output).returncode:
        raise FailedError(f"torch or deepspeed cannot be imported by {sys.executable}")
    return read_json(output)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table with aligned columns; floats with three digits that count."""
    cells = [list(header), *([_shown(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def quickstart_tables(runs: Sequence[Json]) -> str:
    """What each run took, then every evaluation."""
    took = table(
        ["run", "training", "seed", "images", "wall s", "training s", "images/s"],
        [
            [r["run_id"], r["training"], r["seed"], r["images"], r["wall_seconds"],
             r["train_seconds"], r["images_per_second"]]
            for r in runs
        ],
    )  # fmt: skip
    measured = table(
        ["training", "size", "inference", "samples", "metric", "FID", "real floor", "s"],
        [
            [r["training"], "x".join(map(str, e["resolution"])), e["inference"], e["samples"],
             e["metric"], e["fid"], e["floor"], e["seconds"]]
            for r in runs
            for e in r["evaluations"]
        ],
    )  # fmt: skip
    return f"{took}\n\n{measured}"


def steps_table(rows: Sequence[Json]) -> str:
    """Training speed of each model."""
    return table(
        ["model", "batch", "images/s", "ms/step", "of it draws", "peak GiB", "TFLOP/s",
         "matmul TFLOP/s", "share"],
        [
            [r["model"], r["batch"], r["images_per_second"], r["ms_per_step"], r["draws_ms"],
             r["peak_memory_gib"], r["tflops"], r["matmul_tflops"], f"{r['share_of_matmul']:.1%}"]
            for r in rows
        ],
    )  # fmt: skip


def measure(options: argparse.Namespace, record: Json, file: Path, work: Path) -> list[str]:
    """Do the parts asked for, saving after each run and model; what failed."""
    scale, parts, failures = CPU if options.cpu else GPU, options.only or PARTS, []
    try:
        if "tests" in parts:
            print("\n## Tests", flush=True)
            record["tests"] = found = tests(scale, work)
            write_json(file, record)
            print("\n".join(found["reasons"]))
            if found["failures"] + found["errors"]:
                failures.append(f"{found['failures'] + found['errors']} tests failed")
    except FailedError as error:
        failures.append(str(error))
    for name, part, shown in (
        ("quickstart", quickstart, quickstart_tables),
        ("steps", steps, steps_table),
    ):
        if name not in parts:
            continue
        print(f"\n## {name.capitalize()}", flush=True)
        record[name] = []
        try:
            for row in part(scale, work):
                record[name].append(row)
                write_json(file, record)
                print(f"{row.get('training') or row['model']} done", flush=True)
        except FailedError as error:
            failures.append(str(error))
        if record[name]:
            print("\n" + shown(record[name]), flush=True)
    return failures


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "output", type=Path, nargs="?", default=ROOT / "benchmarks" / "results",
        metavar="OUTPUT_DIR", help="where gpu.json goes (default: benchmarks/results)",
    )  # fmt: skip
    parser.add_argument("--cpu", action="store_true", help="scaled down, on the CPU")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part alone; may be given twice"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = parse(arguments)
    started, file = time.monotonic(), options.output.resolve() / "gpu.json"
    with tempfile.TemporaryDirectory(prefix="resolute-") as folder:
        work = Path(folder)
        try:
            found = device(CPU if options.cpu else GPU, work)
        except FailedError as error:
            print(error, file=sys.stderr)
            return 2
        if found["name"] == "cpu" and not options.cpu:
            print("torch finds no CUDA device here; --cpu runs a small form", file=sys.stderr)
            return 2
        origin = provenance(found["name"])
        origin["changed"] = bool(origin.pop("diff"))  # against the commit
        del origin["host"]
        record: Json = {"scale": "cpu" if options.cpu else "gpu", "device": found} | {
            "provenance": origin
        }
        told = [f"{key} {value}" for key, value in found.items() if value is not None]
        told += [f"{name} {origin['packages'][name]}" for name in ("torch", "deepspeed")]
        print(f"{', '.join(told)}; commit {origin['commit']}, code {origin['code_id']}", flush=True)
        failures = measure(options, record, file, work)
    record |= {"failures": failures, "seconds": time.monotonic() - started}
    write_json(file, record)
    print(f"\n{record['seconds']:.0f} s in all; {file}")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
