"""What MLflow shows of an ablation's cells and seeds: params, points, tags, samples, states.

Metric names: `loss` and the like with their steps; `fid.fashion-cnn/24` for a result at 24x24
(`/16x24` where height and width differ), and before it `floor.` for real images against real ones
or `ci95.` for half of its 95 % interval over samples. Once all seeds are there, a cell has means.
"""

import json
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from harness.errors import UserError
from harness.files import Json
from harness.identity import digest
from harness.kinds import shown
from harness.metric_lines import Place, lines_after
from harness.mirror import Key, Memory, Point, Shown
from harness.reading import Figure, Reading, milliseconds, read_run, signature, size_name
from harness.record import RunFolder, run_folder

STATUS = {
    "done": "FINISHED", "stale": "FINISHED", "running": "RUNNING", "failed": "FAILED",
    "interrupted": "KILLED", "stopped": "KILLED", "waiting": "SCHEDULED", "queued": "SCHEDULED",
}  # fmt: skip
OF_AN_ATTEMPT = ("resolute.job", "resolute.nodes", "resolute.cause")  # tags: not of every one
NOT_METRICS = ("step", "images", "flops", "resolution", "time")  # of a line of metrics.jsonl


def short_names(record: Json) -> list[str]:
    """`encoding=rope law=pi`: the cells' labels without sections, to fit MLflow's narrow column.

    A key whose last part another section has too keeps its section.
    """
    keys = {key for cell in record["cells"] for key in cell["choices"]}
    last = Counter(key.split(".")[-1] for key in keys)
    short = {key: name if last[name := key.split(".")[-1]] == 1 else key for key in keys}
    names = []
    for cell in record["cells"]:  # the label has the file's order of keys
        choices, label = cell["choices"], str(cell["label"])
        ordered = sorted(choices, key=lambda key: label.find(f"{key}="))
        names.append(" ".join(f"{short[key]}={shown(choices[key])}" for key in ordered) or label)
    return names


def cell_params(cell: Json) -> dict[str, str]:
    """The cell's training configuration and inference settings, flat, as written in YAML."""
    sections = cell["config"] | {"inference": cell["inference"]}
    return {
        f"{section}.{key}": size_name(value) if key == "resolution" else shown(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def keys(record: Json) -> set[Key]:
    """Of all that an ablation's cells and their seeds can have in MLflow."""
    return {
        key
        for cell in record["cells"]
        for key in (_cell_key(cell), *(_seed_key(cell, run["run_id"]) for run in cell["runs"]))
    }


def show_cell(memory: Memory, outputs: Path, record: Json, index: int, name: str) -> None:
    """Bring the run of a cell, to be called `name`, and its seeds' up to what the folders say.

    What has not changed since it was read and shown costs neither a file nor a call.
    """
    cell = record["cells"][index]
    folders = [(r["seed"], run_folder(outputs, r["run_id"])) for r in cell["runs"]]
    now = {run.run_id: signature(run) for _, run in folders}
    key = _cell_key(cell)
    asked = (cell, name, index, record["baseline"])
    if memory.seen.get(key) == (now, asked):
        return
    begun: dict[int, Reading] = {}
    fresh: list[tuple[int, RunFolder]] = []
    for seed, run in folders:
        kept = memory.seen.get(_seed_key(cell, run.run_id))
        if kept and kept[0] == (now[run.run_id], cell):
            begun[seed] = kept[1]
        elif reading := read_run(run, cell):
            begun[seed] = reading
            fresh.append((seed, run))
    if not begun:
        return
    # Milliseconds that keep the file's order where cells share a training, hence its start.
    started = min(reading.started for reading in begun.values()) + len(record["cells"]) - index
    before = memory.runs.get(key)
    parent = memory.run(key, name, started, {"resolute.asked": digest(cell["runs"])})
    if parent is not before:  # its seeds belong to it by a tag
        fresh = [(seed, run) for seed, run in folders if seed in begun]
    for seed, run in fresh:
        _show_seed(memory, run, cell, seed, begun[seed], parent)
        if begun[seed].state != "running":  # an owner that dies changes no file
            memory.seen[_seed_key(cell, run.run_id)] = ((now[run.run_id], cell), begun[seed])
    states = [begun[seed].state if seed in begun else "waiting" for seed, _ in folders]
    readings = list(begun.values())
    finished = sum(STATUS[state] == "FINISHED" for state in states)
    tags = {
        "resolute.cell": cell["label"],
        "resolute.group_id": cell["group_id"],
        "resolute.baseline": "yes" if cell["cell_id"] == record["baseline"] else "no",
        "resolute.seeds": f"{finished} of {len(states)}",
        "resolute.state": ", ".join(f"{n} {state}" for state, n in Counter(states).items()),
        "resolute.code_id": " ".join(sorted({r.tags["resolute.code_id"] for r in readings})),
        "resolute.upsampled": max((r.tags["resolute.upsampled"] for r in readings), key=len),
    }
    points = []
    if len(readings) == len(folders):
        means = {
            name: Figure(
                fmean(r.figures[name].value for r in readings),
                max(r.figures[name].time for r in readings),
            )
            for name in readings[0].figures
            if all(name in r.figures for r in readings)
        }
        points = new_points(parent, means)
    memory.store.write(parent, points, cell_params(cell), tags)
    ends = [reading.ended for reading in readings if reading.ended]
    status = next(s for s in ("RUNNING", "FAILED", "KILLED", "SCHEDULED", "FINISHED")
                  if s in {STATUS[state] for state in states})  # fmt: skip
    ended = max(ends) if status in ("FAILED", "KILLED", "FINISHED") and ends else None
    memory.store.settle(parent, name, status, ended)
    if "running" not in states:
        memory.seen[key] = (now, asked)


def _cell_key(cell: Json) -> Key:
    return ("cell", cell["cell_id"], "")


def _seed_key(cell: Json, run_id: str) -> Key:
    return ("seed", cell["cell_id"], run_id)


def _show_seed(
    memory: Memory, run: RunFolder, cell: Json, seed: int, reading: Reading, parent: Shown
) -> None:
    key = _seed_key(cell, run.run_id)
    nested = {"mlflow.parentRunId": parent.id, "resolute.created": reading.created}
    child = memory.run(key, f"seed {seed}", reading.started, nested)
    try:
        synced = json.loads(child.tags.get("resolute.synced", "{}"))
    except ValueError:
        synced = {}
    lines, place = lines_after(run.metrics_file, memory.places.get(key, Place()))
    points, last, bad = _points_of(lines, synced.get("step", 0), run)
    bad.update(synced.get("not_finite", {}))
    points += new_points(child, reading.figures)
    copied = {}  # a tag each: all of them together may be longer than a tag can be
    for name, (file, content) in reading.samples.items():
        if child.tags.get(f"resolute.synced.{name}") != content:
            with tempfile.TemporaryDirectory() as folder:
                memory.store.artifact(child, Path(shutil.copy(file, Path(folder, name))), "samples")
            copied[f"resolute.synced.{name}"] = content
    tags = {
        **copied,
        **nested,
        **{tag: "" for tag in OF_AN_ATTEMPT if tag in child.tags},  # of the attempt before
        **reading.tags,
        "resolute.cell": cell["label"],
        "resolute.group_id": cell["group_id"],
        "resolute.synced": json.dumps({"step": last, "not_finite": bad}),
    }
    bad |= Counter(n for n, f in reading.figures.items() if not math.isfinite(f.value))
    if bad or "resolute.not_finite" in child.tags:
        tags["resolute.not_finite"] = ", ".join(f"{name} ({n}x)" for name, n in bad.items())
    memory.store.write(child, points, cell_params(cell) | {"seed": str(seed)}, tags)
    memory.places[key] = place
    memory.store.settle(child, f"seed {seed}", STATUS[reading.state], reading.ended)


def _points_of(
    lines: list[Json], after: int, run: RunFolder
) -> tuple[list[Point], int, Counter[str]]:
    """Points of the lines after a step, the last step, and how often a value was not finite.

    Steps that a killed run does again after its last checkpoint are passed over: they have the
    same values, and a second time would show as a second point.
    """
    points: list[Point] = []
    bad: Counter[str] = Counter()
    last = after
    try:
        for line in lines:
            step = line["step"]
            if step <= last:
                continue
            when = milliseconds(line["time"])
            for key, value in line.items():
                if key in NOT_METRICS:
                    continue
                if math.isfinite(value):
                    points.append(Point(key, value, step, when))
                else:
                    bad[key] += 1
            last = step
    except (KeyError, TypeError):
        raise UserError(f"{run.metrics_file}: a line is damaged (not JSON of a step)") from None
    return points, last, bad


def new_points(run: Shown, figures: Mapping[str, Figure]) -> list[Point]:
    """The figures that the run does not show yet. One measured anew becomes the latest.

    At step 0: MLflow draws a metric whose only step is 0 as bars, a run each, and anything else as
    a line over the steps, which would be one dot.
    """
    now = milliseconds(time.time())
    return [
        Point(name, f.value, 0, max(f.time, now) if name in run.metrics else f.time)
        for name, f in figures.items()
        if math.isfinite(f.value) and run.metrics.get(name) != f.value
    ]
