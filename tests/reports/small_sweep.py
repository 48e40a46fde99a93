"""An outputs folder as a sweep leaves it, with known figures."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from harness.files import write_atomic, write_json
from harness.record import run_folder
from reports.naming import method_names

CODE, OTHER_CODE = "c0de" * 4, "01dc" * 4  # of the code that is here now, and of an earlier one
EXTRACTOR = "fashion-cnn"
HALF = 0.05  # half of every interval over samples, as a share of the figure
SHARED = 0.8  # share of what a sample does to a figure that it does in every method

BASE = """
data: {resolution: 12}
train: {images: 40000}
evaluate: {samples: 500}
"""
ABLATION = """
question: Does it hold up at 1.5x and 2x?
base: base.yaml
include:
  - {inference.law: pi}
  - {inference.resize: bicubic}
  - {model.encoding: sincos}
  - {positions.sampler: randomized, positions.range_multiplier: 2}
seeds: SEEDS
evaluate: {resolution: [12, 18, 24]}
baseline: {model.encoding: rope, positions.sampler: consecutive, inference.law: extrapolate,
  inference.resize: none}
"""
# FID of seed 0 by method and resolution; a seed adds 0.5 and what `lift` says.
FID = {
    "RoPE, extrapolated": {12: 10.0, 18: 20.0, 24: 40.0},
    "RoPE, PI": {12: 10.0, 18: 25.0, 24: 30.0},
    "RoPE, generated at 12 then bicubic": {12: 10.0, 18: 16.0, 24: 21.5},
    "sin-cos": {12: 11.0, 18: 60.0, 24: 123.4},
    "RPE-2D ×2 (RoPE)": {12: 12.0, 18: 15.0, 24: 20.94},
}

# Rows that do not all have the same columns, at shares of the training.
STAGED = """
question: Is it cheaper to train small first?
base: base.yaml
set: {train.snapshots: [0.25, 0.5, 0.75]}
include:
  - {data.resolution: 24}
  - train.stages: [{resolution: 12, images: 20000}, {resolution: 24, images: 20000}]
  - train.stages: [{resolution: 12, images: 20000}, {resolution: 24, images: 20000}]
    positions: {sampler: randomized, range_multiplier: 2}
seeds: SEEDS
evaluate: {resolution: [1x, 1.5x, 2x], after: [0.25, 0.5, 0.75, 1]}
baseline: {data.resolution: 24}
"""
# At the end of the training; before it FID is larger by the share that is left.
STAGED_FID = {
    "RoPE, trained at 12": {12: 10.0, 18: 20.0, 24: 40.0},
    "RoPE, trained at 24": {24: 12.0, 36: 24.0, 48: 48.0},
    "RoPE, trained at 12 then 24": {24: 11.0, 36: 16.0, 48: 90.0},
    "RPE-2D ×2 (RoPE), trained at 12 then 24": {24: 14.0, 36: 18.0, 48: 20.0},
}
# Trained at two sizes, with one baseline.
SIZES = """
question: Does it hold up from larger sizes?
base: base.yaml
axes: {data.resolution: [12, 24], inference.law: [pi, ntk]}
seeds: SEEDS
evaluate: {resolution: [1x, 2x]}
baseline: {data.resolution: 12, inference.law: pi}
"""
SIZES_FID = {
    "RoPE, PI, trained at 12": {12: 10.0, 24: 20.0},
    "RoPE, NTK, trained at 12": {12: 10.0, 24: 30.0},
    "RoPE, PI, trained at 24": {24: 12.0, 48: 50.0},
    "RoPE, NTK, trained at 24": {24: 12.0, 48: 40.0},
}
SECONDS = 100.0  # of every training
ORIGINALS = 32  # side of the true images

Record = dict[str, Any]


def write_outputs(
    record: Record,
    outputs: Path,
    fid: Mapping[str, Mapping[int, float]] = FID,
    lift: Mapping[tuple[str, int], float] | None = None,
    samples: bool = True,
) -> None:
    """What a finished sweep leaves; the figures are those of `figures`.

    Args:
        fid: method -> resolution -> FID with seed 0.
        lift: (method, seed) -> what is added to the FID of that seed beyond training size.
    """
    names = method_names(record["cells"])
    for cell in record["cells"]:
        for run in cell["runs"]:
            write_training(outputs, cell, run)
            for measurement in cell["measurements"]:
                method, seed = names[cell["cell_id"]], run["seed"]
                side = measurement["config"]["evaluate"]["resolution"][1]
                value = fid[method][side] + seed / 2
                value += (lift or {}).get((method, seed), 0.0) if side > 12 else 0.0
                value *= 2 - measurement["config"]["evaluate"]["after"]
                write_result(outputs, cell, run, measurement, value)
                if samples:
                    file = run_folder(outputs, run["run_id"]).samples_file(measurement["eval_id"])
                    write_samples(file, measurement["config"]["evaluate"]["resolution"])


def write_training(outputs: Path, cell: Record, run: Record, code: str = CODE) -> None:
    """A finished training: spec, metrics, provenance, weights, DONE."""
    folder = run_folder(outputs, run["run_id"])
    facts = {"run_id": run["run_id"], "group_id": cell["group_id"], "seed": run["seed"]}
    write_json(folder.spec_file, {"format": 1, "config": cell["config"], **facts})
    lines = [
        {"step": step, "images": 64 * step, "loss": 0.2 + 2.0 / step, "images_per_second": 400.0}
        for step in range(10, 626, 10)
    ]
    write_atomic(folder.metrics_file, "".join(json.dumps(line) + "\n" for line in lines))
    provenance = {"code_id": code, "commit": "ab" * 20, "diff": "", "python": "3.11.2",
                  "packages": {"torch": "2.14.0", "ray": None}, "host": "node1",
                  "processor": "EPYC", "kernels": {"OPENBLAS_CORETYPE": "Haswell"},
                  "device": "cpu", "ranks": 1}  # fmt: skip
    write_json(folder.path / "provenance" / "0001.json", provenance)
    done = {"code_id": code, "code_ids": [code], "images": 40000, "parameters": 1,
            "flops": 10**15, "seconds": 100.0, "time": 0.0}  # fmt: skip
    write_atomic(folder.weights_file, b"not read by a report")
    write_json(folder.done_file, {"format": 1} | done)


def figures(fid: float, upsampled: bool = False) -> dict[str, float]:
    """Every metric, from the FID; an upsampled image lacks detail, which patch FID alone sees."""
    return {
        "fid": fid,
        "patch-fid": fid * (3 if upsampled else 2),
        "sfid": fid * 4,
        "is": 10 - fid / 100,
        "precision": 1 - fid / 200,
        "recall": fid / 400,
        "kid": fid / 10_000,
        "density": 1 - fid / 300,
        "coverage": 1 - fid / 250,
    }


FLOOR = figures(0.5)


def write_result(
    outputs: Path,
    cell: Record,
    run: Record,
    measurement: Record,
    fid: float,
    code: str = CODE,
    marks: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
    bare: tuple[str, ...] = (),
    **protocol: Any,
) -> None:
    """A finished evaluation with this FID.

    Args:
        marks: kind of metric -> why it carries a mark.
        without: kinds of metric that could not be computed.
        bare: kinds of metric that have no interval.
        protocol: changes what it was measured by, or what the extractor was.
    """
    evaluate = measurement["config"]["evaluate"]
    side, count = evaluate["resolution"][1], protocol.get("samples", evaluate["samples"])
    own = {"sha256": "5" * 64, "reference": f"ref{side}", "manifold": f"man{side}",
           "patch": side // 2, "spatial": True}  # fmt: skip
    known = {"samples": count, "upsampled": float(side > ORIGINALS),
             "reference_images": evaluate["reference_images"], "labels": evaluate["labels"],
             "manifold_images": evaluate["manifold_images"],
             "interval": "95 %, infinitesimal jackknife over the samples"}  # fmt: skip
    own |= {key: protocol.pop(key) for key in [*own] if key in protocol}
    inference, trained = measurement["config"]["inference"], cell["config"]
    resized = inference["resize"] != "none"
    method = trained["model"]["encoding"], trained["positions"]["sampler"], inference["law"]
    plain = method == ("rope", "consecutive", "extrapolate") and not resized
    known_of = {k: value for k, value in figures(fid, resized).items() if k not in without}
    values, floor = named(known_of), named(FLOOR)
    ends = intervals({k: v for k, v in values.items() if k.partition(".")[0] not in bare})
    result = {
        "format": 1, "eval_id": measurement["eval_id"], "run_id": run["run_id"],
        "seed": run["seed"], "code_id": code, "config": measurement["config"],
        "protocol": known | protocol | {"extractors": {EXTRACTOR: own}},
        "metrics": values, "intervals": ends, "marks": named(marks or {}),
        "floor": floor, "floor_intervals": intervals(floor),
        "training": spent(trained, evaluate["after"]), "samples_sha256": "0" * 64,
        "seconds": {"sample": 20.0, "measure": 5.0}, "time": 0.0,
    }  # fmt: skip
    folder = run_folder(outputs, run["run_id"])
    write_json(folder.result_file(measurement["eval_id"]), result)
    influence = {metric: influence_of(value, count, plain) for metric, value in values.items()}
    write_atomic(folder.influence_file(measurement["eval_id"]), save(influence))


def spent(config: Record, after: float) -> dict[str, float]:
    """What a share of a training costs: 1000 FLOPs for each pixel of each image."""
    images = left = round(after * config["train"]["images"])
    flops = 0
    whole = {"images": images, "resolution": config["data"]["resolution"]}
    for stage in config["train"]["stages"] or [whole]:
        seen = min(left, stage["images"])
        flops += 1000 * seen * stage["resolution"][0] * stage["resolution"][1]
        left -= seen
    return {"images": images, "flops": flops, "seconds": after * SECONDS}


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{kind}.{EXTRACTOR}": value for kind, value in values.items()}


def intervals(values: Mapping[str, float]) -> dict[str, list[float]]:
    return {name: [value * (1 - HALF), value * (1 + HALF)] for name, value in values.items()}


def influence_of(value: float, count: int, plain: bool) -> np.ndarray:
    """float32 [count], with which the interval is that of `intervals`.

    A plain method and any other have a correlation of SHARED^2 = 0.64 where count is a multiple of
    4: the signs (+ - + -), (+ + - -) and (+ - - +) are orthogonal.
    """
    index = np.arange(count)
    own = (-1.0) ** ((index if plain else index + 1) // 2)
    values = SHARED * (-1.0) ** index + math.sqrt(1 - SHARED**2) * own
    error = HALF * value / NormalDist().inv_cdf(0.975)
    return (values * error * math.sqrt(count)).astype(np.float32)


def write_samples(file: Path, resolution: tuple[int, int]) -> None:
    """A grid of 10 x 4 grey images that differ by file."""
    height, width = resolution
    shade = zlib.crc32(f"{file.parent.parent.name}/{file.name}".encode()) % 200
    canvas = Image.new("L", (10 * (width + 1) - 1, 4 * (height + 1) - 1), 255)
    for index in range(40):
        left, top = index % 10 * (width + 1), index // 10 * (height + 1)
        canvas.paste(shade + index, (left, top, left + width, top + height))
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(file)
