"""What a report speaks of, read from a grid record and the run folders under `outputs`."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from harness.files import read_json
from harness.plan import state_of
from harness.provenance import code_id
from harness.record import RunFolder, run_folder
from reports.column import Column, all_columns, column_of, finals
from reports.formats import extractor, family, in_order, of
from reports.naming import method_names, training_names
from reports.settings import Settings, settings_of

Json = Mapping[str, Any]
Intervals = Mapping[str, tuple[float, float]]  # metric -> low, high

_PROTOCOL = {"sha256": "extractor_sha256"}  # what is called otherwise outside of its extractor


@dataclass(frozen=True)
class Row:
    """One cell in one column with one seed: an evaluation, finished or not."""

    cell_id: str
    method: str
    column: Column
    seed: int
    run_id: str
    eval_id: str
    is_baseline: bool = False
    is_twin: bool = False  # of the baseline, in a column that the baseline does not have
    state: str = "new"  # of the evaluation, as harness.plan has it
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)  # empty until it is finished
    intervals: Intervals = field(default_factory=dict)  # 95 %, over the samples
    marks: Mapping[str, str] = field(default_factory=dict)  # metric -> why not to trust it
    floor: Mapping[str, float] = field(default_factory=dict)  # real images measured the same way
    floor_intervals: Intervals = field(default_factory=dict)
    influence: Path | None = None  # the file with what each sample does to each metric
    protocol: Json = field(default_factory=dict)
    code_ids: frozenset[str] = frozenset()  # of the code that trained and measured it
    seconds: float = 0.0  # of the evaluation
    training: Json = field(default_factory=dict)  # images, flops, seconds up to what was measured

    @cached_property
    def protocols(self) -> Mapping[str, Json]:
        """Extractor -> by what its figures were measured, flat.

        What other extractors saw is no part of it, nor is how the intervals were computed.
        """
        shared = {k: v for k, v in self.protocol.items() if k not in ("extractors", "interval")}
        if not self.upsampled:  # as in results from before there was such a share
            shared.pop("upsampled", None)
        return {
            name: shared | {"extractor": name} | {_PROTOCOL.get(k, k): v for k, v in own.items()}
            for name, own in self.protocol.get("extractors", {}).items()
        }

    @cached_property
    def _keys(self) -> Mapping[str, str]:
        return {name: json.dumps(own, sort_keys=True) for name, own in self.protocols.items()}

    def protocol_key(self, metric: str) -> str:
        """Equal for evaluations whose figures may be compared."""
        return self._keys.get(extractor(metric)) or json.dumps(self.protocol, sort_keys=True)

    @property
    def finished(self) -> bool:
        """Measured, whether or not the row may show it."""
        return self.state in ("done", "stale")

    @property
    def upsampled(self) -> float:
        """Share of the reference's images that had to be enlarged for this size."""
        return float(self.protocol.get("upsampled", 0.0))

    @property
    def evaluation(self) -> tuple[str, str]:
        """Rows with the same one show one and the same evaluation."""
        return self.run_id, self.eval_id


@dataclass(frozen=True)
class Run:
    """One training run that rows of the report rest on."""

    folder: RunFolder
    group_id: str
    seed: int
    name: str
    images: int  # asked for
    state: str
    reason: str
    done: Json | None
    provenance: tuple[Json, ...]  # one for each attempt


@dataclass(frozen=True)
class Sweep:
    """Everything that a report is made of."""

    name: str
    file: str
    question: str
    seeds: tuple[int, ...]
    baseline: str | None  # a cell id, if it is among the methods
    dropped: Mapping[str, int]
    notes: tuple[str, ...]
    methods: Mapping[str, str]  # cell id -> name, in the order of the file
    labels: Mapping[str, str]  # cell id -> what the ablation file says of it
    settings: Mapping[str, Settings]  # cell id -> dotted key -> value
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    runs: tuple[Run, ...]
    training_sizes: tuple[tuple[int, int], ...]
    code_id: str  # of the code that is here now
    protocols: tuple[str, ...]  # all that a figure was measured by, in the order of the columns

    @cached_property
    def asked(self) -> frozenset[tuple[str, Column]]:
        """The cells and the columns that they have: not every cell has every column."""
        return frozenset((row.cell_id, row.column) for row in self.rows)

    @cached_property
    def stopped(self) -> frozenset[tuple[str, Column]]:
        """The cells and the columns that have no result because early stopping ended a run."""
        return frozenset((r.cell_id, r.column) for r in self.rows if r.state == "stopped")

    @cached_property
    def trained(self) -> "Sweep":
        """Without the columns of snapshots from the midst of the training."""
        return self.narrowed(finals(self.columns))

    @cached_property
    def baselines(self) -> Mapping[Column, str]:
        """Column -> the cell that rows are compared with there: the baseline, or a twin of it."""
        return {row.column: row.cell_id for row in self.rows if row.is_baseline or row.is_twin}

    @cached_property
    def of_baseline(self) -> "Sweep":
        """Without the columns that neither the baseline nor a twin of it has."""
        return self.narrowed([column for column in self.columns if column in self.baselines])

    def narrowed(self, columns: Sequence[Column]) -> "Sweep":
        """With these columns alone, and the methods that have any of them."""
        rows = tuple(row for row in self.rows if row.column in columns)
        left = {row.cell_id for row in rows}
        methods = {cell_id: name for cell_id, name in self.methods.items() if cell_id in left}
        return replace(self, columns=tuple(columns), rows=rows, methods=methods)

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics that were measured, FID first."""
        return in_order(metric for row in self.rows for metric in row.metrics)

    @property
    def fid(self) -> str | None:
        """The metric that the text speaks of."""
        return leading(self.rows)[0]


def leading(rows: Sequence[Row]) -> tuple[str | None, str | None]:
    """The metrics that the text speaks of: an FID, and the patch FID beside it.

    It is the first FID with a figure that carries no mark, if there is one.
    """
    known = in_order(metric for row in rows for metric in row.metrics)
    sound = {metric for row in rows for metric in row.metrics if metric not in row.marks}
    fids = [metric for metric in known if family(metric) == "fid"]
    fid = next((metric for metric in fids if metric in sound), fids[0] if fids else None)
    patch = of("patch-fid", fid) if fid else None
    return fid, patch if patch in known else None


def read(record: Json, outputs: Path) -> Sweep:
    """The sweep of a grid record (`harness.grid.to_json`) as it stands under `outputs`.

    Raises:
        UserError: a damaged file, or one that a newer version wrote.
    """
    cells = record["cells"]
    methods = method_names(cells)
    sizes = tuple(dict.fromkeys(tuple(cell["config"]["data"]["resolution"]) for cell in cells))
    runs = _runs(cells, outputs)
    states = {run_id: states for run_id, (_, states) in runs.items()}
    settings = {cell["cell_id"]: settings_of(cell) for cell in cells}
    own = {
        cell["cell_id"]: [column_of(one, sizes) for one in cell["measurements"]] for cell in cells
    }
    twins = _twins(settings, own, record["baseline"])
    rows = [
        _row(cell, methods, record["baseline"], twins, measurement, one, sizes, outputs, states)
        for cell in cells
        for measurement in cell["measurements"]
        for one in cell["runs"]
    ]
    rows = _without_stopped(list({(r.cell_id, r.column, r.seed): r for r in rows}.values()))
    columns = all_columns([r.column for r in rows if r.cell_id == one] for one in methods)
    return Sweep(
        name=record["name"],
        file=record["file"],
        question=record["question"],
        seeds=tuple(record["seeds"]),
        baseline=record["baseline"] if record["baseline"] in methods else None,
        dropped=record["dropped"],
        notes=tuple(record["notes"]),
        methods=methods,
        labels={cell["cell_id"]: cell["label"] for cell in cells},
        settings=settings,
        columns=columns,
        rows=tuple(rows),
        runs=tuple(run for run, _ in runs.values()),
        training_sizes=sizes,
        code_id=code_id(),
        protocols=_protocols(rows, columns),
    )


def _without_stopped(rows: list[Row]) -> list[Row]:
    """Where a seed was stopped early, the other seeds of the row are no result either.

    They were picked by their figures, so their mean would flatter the row.
    """
    stopped = {(row.cell_id, row.column) for row in rows if row.state == "stopped"}
    return [
        replace(row, metrics={}, intervals={}, marks={}, influence=None)
        if (row.cell_id, row.column) in stopped
        else row
        for row in rows
    ]


def _twins(
    settings: Mapping[str, Settings], columns: Mapping[str, Sequence[Column]], baseline: str | None
) -> dict[Column, str]:
    """Column that the baseline lacks -> the cell that is the baseline but for its training size.

    A twin that is alone in a column is none: there is nothing to compare with it.
    """
    if baseline is None or baseline not in settings:
        return {}

    def sizeless(cell_id: str) -> Settings:
        return {k: v for k, v in settings[cell_id].items() if k != "data.resolution"}

    alike = [one for one in settings if one != baseline and sizeless(one) == sizeless(baseline)]
    rows = Counter(column for own in columns.values() for column in set(own))
    found: dict[Column, str] = {}
    for cell_id in alike:
        for column in columns[cell_id]:
            if column not in columns[baseline] and rows[column] > 1:
                found.setdefault(column, cell_id)
    return found


def _protocols(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[str, ...]:
    found = (
        row.protocol_key(metric)
        for column in columns
        for row in rows
        if row.column == column
        for metric in row.metrics
    )
    return tuple(dict.fromkeys(found))


def _runs(cells: list[Json], outputs: Path) -> dict[str, tuple[Run, Json]]:
    """Run id -> the run, and eval id -> (state, reason)."""
    names = training_names(cells)
    asked: dict[str, dict[str, None]] = {}
    for cell in cells:
        for run in cell["runs"]:
            wanted = asked.setdefault(run["run_id"], {})
            wanted.update((m["eval_id"], None) for m in cell["measurements"])
    found: dict[str, tuple[Run, Json]] = {}
    for cell in cells:
        for one in cell["runs"]:
            run_id = one["run_id"]
            if run_id in found:
                continue
            folder = run_folder(outputs, run_id)
            state, reason, states = state_of(folder, asked[run_id])
            run = Run(
                folder=folder,
                group_id=cell["group_id"],
                seed=one["seed"],
                name=names[cell["group_id"]],
                images=cell["config"]["train"]["images"],
                state=state,
                reason=reason,
                done=folder.done(),
                provenance=tuple(
                    read_json(file)
                    for file in sorted((folder.path / "provenance").glob("[0-9]*.json"))
                ),
            )
            found[run_id] = (run, states)
    return found


def _row(
    cell: Json,
    methods: Mapping[str, str],
    baseline: str | None,
    twins: Mapping[Column, str],
    measurement: Json,
    run: Json,
    sizes: tuple[tuple[int, int], ...],
    outputs: Path,
    states: Mapping[str, Json],
) -> Row:
    folder = run_folder(outputs, run["run_id"])
    result = folder.result(measurement["eval_id"]) or {}
    trained = (folder.done() or {}) if result else {}
    state, reason = states[run["run_id"]][measurement["eval_id"]]
    made_by = {*trained.get("code_ids", ()), *([result["code_id"]] if result else ())}
    column = column_of(measurement, sizes)
    return Row(
        cell_id=cell["cell_id"],
        method=methods[cell["cell_id"]],
        column=column,
        seed=run["seed"],
        run_id=run["run_id"],
        eval_id=measurement["eval_id"],
        is_baseline=cell["cell_id"] == baseline,
        is_twin=cell["cell_id"] == twins.get(column),
        state=state,
        reason=reason,
        metrics=result.get("metrics", {}),
        intervals=_intervals(result.get("intervals", {})),
        marks=result.get("marks", {}),
        floor=result.get("floor", {}),
        floor_intervals=_intervals(result.get("floor_intervals", {})),
        influence=folder.influence_file(measurement["eval_id"]) if result else None,
        protocol=result.get("protocol", {}),
        code_ids=frozenset(made_by),
        seconds=sum(result.get("seconds", {}).values()),
        training=result.get("training", {}),
    )


def _intervals(found: Json) -> Intervals:
    return {metric: (low, high) for metric, (low, high) in found.items() if isfinite(low + high)}
