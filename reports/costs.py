"""What each row cost, and what is missing."""

from collections.abc import Iterable, Mapping, Sequence

from reports.formats import NOTHING, counted, duration, flop
from reports.load import Json, Row, Run, Sweep
from reports.tables import Table, table


def cost_table(sweep: Sweep) -> Table:
    """Training and evaluation of each row over its seeds; the total counts shared work once."""
    runs = {run.folder.run_id: run for run in sweep.runs}
    users: dict[str, set[str]] = {}  # run id -> the cells that rest on it
    for row in sweep.rows:
        users.setdefault(row.run_id, set()).add(row.cell_id)
    body = []
    for cell_id, name in sweep.methods.items():
        own = [row for row in sweep.rows if row.cell_id == cell_id]
        used = {row.run_id: runs[row.run_id] for row in own}
        others = set().union(*(users[run_id] for run_id in used)) - {cell_id}
        shared = f"with {counted(len(others), 'row')}" if others else "no"
        body.append([name, *_spent(used.values(), own), shared])
    total = ["all (shared once)", *_spent(runs.values(), sweep.rows)]
    trained = sum(run.done is not None for run in sweep.runs)
    stopped = sum(run.state == "stopped" for run in sweep.runs)
    told = f"{trained} of {counted(len(runs), 'training')} done"
    body.append([*total, told + (f", {stopped} stopped early" if stopped else "")])
    header = ["method", "training images", "training time", "training compute", "evaluation time"]
    return table("Cost", [*header, "training shared"], body, numeric=True)


def _spent(runs: Iterable[Run], rows: Sequence[Row]) -> list[str]:
    done = [spent for run in runs if (spent := _training(run, rows))]
    measured = {row.evaluation: row.seconds for row in rows if row.finished}
    if not done:
        return [NOTHING, NOTHING, NOTHING, _time(measured)]
    return [
        f"{sum(one['images'] for one in done):,}",
        duration(sum(one["seconds"] for one in done)),
        flop(sum(one["flops"] for one in done)),
        _time(measured),
    ]


def _training(run: Run, rows: Iterable[Row]) -> Json | None:
    """What a training took: a stopped one up to what was last measured of it."""
    if run.done is not None or run.state != "stopped":
        return run.done
    on_the_way = [row.training for row in rows if row.run_id == run.folder.run_id and row.training]
    return max(on_the_way, key=lambda spent: spent["images"], default=None)


def _time(measured: Mapping[tuple[str, str], float]) -> str:
    return duration(sum(measured.values())) if measured else NOTHING


def missing_table(sweep: Sweep) -> Table | None:
    """The runs of which an evaluation is not there yet, each with the reason; None if all are."""
    body = []
    for run in sweep.runs:
        own = [row for row in sweep.rows if row.run_id == run.folder.run_id]
        asked = {row.eval_id: row for row in own}
        absent = [row for row in asked.values() if not row.finished]
        if not absent:
            continue
        what = ", ".join(dict.fromkeys(row.column.title for row in absent))
        names = "; ".join(dict.fromkeys(row.method for row in own if not row.finished))
        share = f"{len(absent)} of {len(asked)}: {what}"
        about = [run.name, str(run.seed), run.state, run.reason]
        body.append([*about, share, names, run.folder.run_id])
    if not body:
        return None
    header = ["training", "seed", "state", "reason", "evaluations missing", "rows", "run"]
    return table("Missing", header, body)
