"""What MLflow shows of an ablation's cells and seeds: params, points, tags, samples, states.

Metric names: `loss` and the like with their steps; `fid.fashion-cnn/24` for a result at 24x24
(`/16x24` where height and width differ), and before it `floor.` for real images against real ones
or `ci95.` for half of its 95 % interval over samples. Once all seeds are there, a cell has means.
"""

import json
import math
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from harness.claim import last_attempt
from harness.errors import UserError
from harness.files import Json, read_json
from harness.grid import shown
from harness.mirror import Memory, Point, Shown
from harness.plan import state_of
from harness.record import RunFolder, run_folder

STATUS = {
    "done": "FINISHED", "stale": "FINISHED", "running": "RUNNING", "failed": "FAILED",
    "interrupted": "KILLED", "waiting": "SCHEDULED",
}  # fmt: skip
NOT_METRICS = ("step", "images", "flops", "resolution", "time")  # of a line of metrics.jsonl


@dataclass(frozen=True)
class Figure:
    """An evaluation's value, and when it was measured."""

    value: float
    time: int  # milliseconds


@dataclass(frozen=True)
class Reading:
    """What a run folder says for one cell."""

    created: str  # tells a run folder from an archived one with the same id
    started: int  # milliseconds
    ended: int | None
    state: str
    tags: Mapping[str, str]
    figures: Mapping[str, Figure]
    samples: Mapping[str, tuple[Path, str]]  # shown name -> the file, its content's id


def signature(run: RunFolder) -> tuple[int, ...]:
    """Changes whenever the folder does: every file but metrics.jsonl appears by rename."""
    folders = [run.path / name for name in ("", "attempts", "eval", "samples", "provenance")]
    parts = [*folders, run.metrics_file]
    stats = [part.stat() for part in parts if part.exists()]
    return tuple(number for stat in stats for number in (stat.st_mtime_ns, stat.st_size))


def read_run(run: RunFolder, cell: Json) -> Reading | None:
    """What the folder says for `cell`; None before the first attempt at it.

    Raises:
        UserError: a damaged folder, or one that a newer version wrote.
    """
    attempts = sorted((run.path / "attempts").glob("[0-9]*.json"))
    if not run.exists() or not (attempts or run.metrics_file.exists()):
        return None
    started = read_json(attempts[0])["started"] if attempts else run.spec_file.stat().st_mtime
    state, reason, _ = state_of(run, [m["eval_id"] for m in cell["measurements"]])
    done, last = run.done(), last_attempt(run)
    if state == "new":
        state = "waiting" if done else "interrupted"
    figures: dict[str, Figure] = {}
    samples: dict[str, tuple[Path, str]] = {}
    marked: list[str] = []
    upsampled: list[str] = []
    codes = set(done["code_ids"] if done else [last.data["code_id"]] if last else [])
    for measurement, name in zip(cell["measurements"], column_names(cell), strict=True):
        result = run.result(measurement["eval_id"])
        if result is None:
            continue
        when = milliseconds(result["time"])
        codes.add(result["code_id"])
        half = {m: (high - low) / 2 for m, (low, high) in result.get("intervals", {}).items()}
        kinds = {"": result["metrics"], "floor.": result["floor"], "ci95.": half}
        for prefix, values in kinds.items():
            figures |= {f"{prefix}{m}/{name}": Figure(value, when) for m, value in values.items()}
        marked += [f"{m}/{name}: {why}" for m, why in result.get("marks", {}).items()]
        if share := result.get("protocol", {}).get("upsampled"):
            upsampled.append(f"{name}: reference {100 * share:.4g} % upsampled")
        file = run.samples_file(measurement["eval_id"])
        if file.exists():
            samples[f"{name}.png"] = (file, result["samples_sha256"][:16])

    ended = None
    if done and state in ("done", "stale"):
        ended = max((f.time for f in figures.values()), default=milliseconds(done["time"]))
    elif last and state != "running":
        ended = milliseconds(last.data.get("ended", last.file.stat().st_mtime))
    tags = {
        "resolute.run_id": run.run_id,
        "resolute.state": state,
        "resolute.reason": reason,
        "resolute.code_id": " ".join(sorted(codes)),
        "resolute.marked": "; ".join(marked),  # figures that must not be taken like others
        "resolute.upsampled": "; ".join(upsampled),  # measured against enlarged images
        **_commit(run),
    }
    return Reading(str(started), milliseconds(started), ended, state, tags, figures, samples)


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _commit(run: RunFolder) -> dict[str, str]:
    files = sorted((run.path / "provenance").glob("[0-9]*.json"))
    found = read_json(files[-1]) if files else {}
    if not found.get("commit"):
        return {}
    changed = " with uncommitted changes" if found.get("diff") else ""
    return {
        "resolute.commit": found["commit"] + changed,
        "mlflow.source.git.commit": found["commit"],  # MLflow's own column 'Version'
    }


def column_names(cell: Json) -> list[str]:
    """A short name for each measurement of a cell: its size, and what else differs between them."""
    columns = [m["column"] for m in cell["measurements"]]
    known = ("evaluate.resolution", "evaluate.extractors")  # they are in the metric's name
    others = [
        key
        for key in dict.fromkeys(key for column in columns for key in column)
        if key not in known and len({json.dumps(column.get(key)) for column in columns}) > 1
    ]
    names = []
    for measurement, column in zip(cell["measurements"], columns, strict=True):
        name = size_name(measurement["config"]["evaluate"]["resolution"])
        name += "".join(f" {key.split('.')[-1]} {shown(column[key])}" for key in others)
        names.append(re.sub(r"[^\w .:-]", "", name))  # what MLflow allows in a metric's name
    return names


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


def size_name(size: list[int]) -> str:
    """`24` for 24x24, `16x24` for height 16, width 24."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def cell_params(cell: Json) -> dict[str, str]:
    """The cell's training configuration and inference settings, flat, as written in YAML."""
    sections = cell["config"] | {"inference": cell["inference"]}
    return {
        f"{section}.{key}": size_name(value) if key == "resolution" else shown(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def show_cell(memory: Memory, outputs: Path, record: Json, index: int, name: str) -> None:
    """Bring the run of a cell, to be called `name`, and its seeds' up to what the folders say."""
    cell = record["cells"][index]
    folders = [(r["seed"], run_folder(outputs, r["run_id"])) for r in cell["runs"]]
    now = {run.run_id: signature(run) for _, run in folders}
    key = ("cell", cell["cell_id"], "")
    before = memory.seen.get(key)
    asked = (cell, name, index, record["baseline"])
    if before == (now, asked):
        return
    begun = {seed: reading for seed, run in folders if (reading := read_run(run, cell))}
    if not begun:
        return
    # Milliseconds that keep the file's order where cells share a training, hence its start.
    started = min(reading.started for reading in begun.values()) + len(record["cells"]) - index
    parent = memory.run(key, name, started, {})
    for seed, run in folders:
        if seed in begun:
            _show_seed(memory, run, cell, seed, begun[seed], parent)
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
    if "running" not in states:  # an owner that dies changes no file
        memory.seen[key] = (now, asked)


def _show_seed(
    memory: Memory, run: RunFolder, cell: Json, seed: int, reading: Reading, parent: Shown
) -> None:
    key = ("seed", cell["cell_id"], run.run_id)
    nested = {"mlflow.parentRunId": parent.id, "resolute.created": reading.created}
    child = memory.run(key, f"seed {seed}", reading.started, nested)
    try:
        synced = json.loads(child.tags.get("resolute.synced", "{}"))
    except ValueError:
        synced = {}
    points, last, bad = _new_lines(run, synced.get("step", 0))
    bad.update(synced.get("not_finite", {}))
    points += new_points(child, reading.figures)
    bad |= Counter(n for n, f in reading.figures.items() if not math.isfinite(f.value))
    copied = dict(synced.get("samples", {}))
    for name, (file, content) in reading.samples.items():
        if copied.get(name) != content:
            with tempfile.TemporaryDirectory() as folder:
                memory.store.artifact(child, Path(shutil.copy(file, Path(folder, name))), "samples")
            copied[name] = content
    tags = {
        **nested,
        **reading.tags,
        "resolute.cell": cell["label"],
        "resolute.group_id": cell["group_id"],
        "resolute.synced": json.dumps({"step": last, "samples": copied, "not_finite": bad}),
    }
    if bad:
        tags["resolute.not_finite"] = ", ".join(f"{name} ({n}x)" for name, n in bad.items())
    memory.store.write(child, points, cell_params(cell) | {"seed": str(seed)}, tags)
    memory.store.settle(child, f"seed {seed}", STATUS[reading.state], reading.ended)


def _new_lines(run: RunFolder, after: int) -> tuple[list[Point], int, Counter[str]]:
    """Points of the lines after a step, the last step, and how often a value was not finite.

    Steps that a killed run does again after its last checkpoint are passed over: they have the
    same values, and a second time would show as a second point.
    """
    points: list[Point] = []
    bad: Counter[str] = Counter()
    last = after
    try:
        for line in run.metrics():
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
    except (ValueError, KeyError, TypeError):
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
