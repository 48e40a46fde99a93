"""What a run folder says for a cell: its state, figures, samples and tags; and if it changed."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.claim import last_attempt
from harness.files import Json, read_json
from harness.kinds import shown
from harness.plan import state_of
from harness.record import RunFolder

# Every file of a run appears by rename, which changes its folder; only metrics.jsonl grows.
PARTS = ("", "attempts", "eval", "samples", "provenance", "metrics.jsonl")


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


def signature(run: RunFolder) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever the folder does; six calls of the file system, and no file is opened."""
    found = []
    for part in PARTS:
        try:
            stat = os.stat(f"{run.path}/{part}")
        except FileNotFoundError:
            continue
        found.append((part, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


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
        **_place(last.data if last else {}),
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


def _place(attempt: Json) -> dict[str, str]:
    """Where the last attempt was made and the kind of its end, as far as its file tells."""
    told = {
        "resolute.job": attempt.get("job"),
        "resolute.nodes": " ".join(attempt.get("nodes") or []),
        "resolute.cause": attempt.get("cause"),
    }
    return {key: str(value) for key, value in told.items() if value}


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


def size_name(size: list[int]) -> str:
    """`24` for 24x24, `16x24` for height 16, width 24."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"
