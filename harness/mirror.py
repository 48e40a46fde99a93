"""The MLflow side of the mirror: the one file that imports MLflow, and only inside functions.

`Shown` is what the store has of a run; every write is compared with it first, so what is there
already costs no call and gives no second row.

An experiment is one outputs folder's own, by the id in OUTPUTS/mlflow.id: another folder's of the
same store is neither written nor deleted, whatever its name.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import Json, write_atomic
from harness.metric_lines import Place
from harness.store_address import on_server

Key = tuple[str, ...]  # what a run mirrors: (kind, cell id, run id)

METRICS_A_CALL, PAIRS_A_CALL = 1000, 100  # MLflow's limits for one log_batch: in all; of params
LONGEST_PARAM, LONGEST_TAG = 6000, 5000  # characters
FOR_GOOD = ("resolute.created", "resolute.asked")  # tags that tell a run from one in its place

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what goes wrong is raised; the rest is migration chatter
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow would send a request again whose answer was lost, and make a run twice; and a server
    # that is away would hold a call up for minutes. Here the next pass looks what has arrived.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
# Seconds, unless the environment has others.
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60", "PGCONNECT_TIMEOUT": "20"}
POOL = "MLFLOW_SQLALCHEMYSTORE_POOLCLASS"


@dataclass(frozen=True)
class Point:
    """One value of one metric; the same point again is the same row."""

    key: str
    value: float
    step: int
    time: int  # milliseconds


@dataclass
class Shown:
    """One MLflow run as the store has it."""

    id: str
    name: str
    status: str
    ended: int | None = None  # milliseconds
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # the last value of each
    deleted: bool = False


def sqlite_uri(database: Path) -> str:
    return f"sqlite:///{database.absolute()}"


def make_client(uri: str) -> Any:
    """An `MlflowClient` that prints nothing, sends no telemetry and gives up soon."""
    os.environ.update(QUIET)
    for name, seconds in PATIENCE.items():
        os.environ.setdefault(name, seconds)
    if uri.startswith("sqlite:"):
        # A connection for each call: after a rebuild, none is left on the old database.
        os.environ[POOL] = "NullPool"
    else:
        os.environ.pop(POOL, None)
    import mlflow.store.db.utils
    from mlflow import MlflowClient

    mlflow.store.db.utils.MAX_RETRY_COUNT = 1  # ten tries take 100 s, with the lock held
    return MlflowClient(tracking_uri=uri)


def create_database(database: Path) -> None:
    """Make an empty MLflow database; it has its name only once its tables are whole.

    The migrations take seconds, and MLflow cannot mend a database whose migration was killed.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_name(database)
    make_client(sqlite_uri(unfinished)).search_experiments(max_results=1)
    replace_database(unfinished, database)


def unfinished_name(database: Path) -> Path:
    """A new name for a database in the making; what a killed process left of others is removed.

    MLflow remembers the tables of a file name in memory, hence never the same name twice.
    """
    for left in database.parent.glob(f"{database.name}.*.new*"):
        left.unlink(missing_ok=True)
    return database.with_name(f"{database.name}.{time.monotonic_ns()}.new")


def replace_database(new: Path, database: Path) -> None:
    """Put a finished database in the place of the old one, which is whole until this rename."""
    if database.exists():
        try:  # the old one's journal must not be taken for one of the new
            with sqlite3.connect(database) as old:
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                old.execute("SELECT count(*) FROM sqlite_master").fetchone()
            old.close()
        except sqlite3.Error:
            pass  # damaged, perhaps the reason for the rebuild
        for suffix in ("-wal", "-shm", "-journal"):
            Path(f"{database}{suffix}").unlink(missing_ok=True)
    new.replace(database)


def run_ids(database: Path) -> set[str]:
    """The ids of all runs of a database, deleted ones too; none where it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
            return {run for (run,) in opened.execute("SELECT run_uuid FROM runs")}
    except sqlite3.Error:  # none there, or damaged
        return set()


class Store:
    """An MLflow store, written through its client."""

    def __init__(self, uri: str, outputs: Path) -> None:
        self.client = make_client(uri)
        self.own = uri == sqlite_uri(outputs / "mlflow.db")
        self.outputs = outputs
        self.artifacts = None if on_server(uri) else outputs / "mlartifacts"
        self.changes = 0  # how many calls were made that may change it

    def _to_change(self) -> Any:
        """The client, for a call that may change the store."""
        self.changes += 1
        return self.client

    def experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """The id of this outputs folder's experiment of an ablation: found, restored, or made.

        It is found by its tags, whatever it is called by now. Where its name is taken by another
        folder's, or by hand, it has the id of this one in its name.

        Raises:
            UserError: the outputs folder was moved; samples would be written to its old place.
        """
        mine = {"resolute.outputs": _outputs_id(self.outputs), "resolute.ablation": name}
        tags = {**tags, **mine, "resolute.folder": str(self.outputs)}
        place = str(self.artifacts / name) if self.artifacts else None
        found = next((e for e in self._experiments() if mine.items() <= e.tags.items()), None)
        if found is None:
            named = self.client.get_experiment_by_name(name)
            if named and self.own and "resolute.outputs" not in named.tags:
                found = named  # of before there were ids
            else:
                free = f"{name} ({mine['resolute.outputs']})" if named else name
                return str(self._to_change().create_experiment(free, place, tags))
        if place and found.artifact_location != place:
            raise UserError(
                f"samples would go to {found.artifact_location}, where this folder was before it "
                "was moved or copied; "
                + (
                    "make the database anew: python -m harness.track rebuild --outputs DIR"
                    if self.own
                    else f"move it back, or remove {self.outputs / 'mlflow.id'} to mirror it anew"
                )
            )
        if found.lifecycle_stage == "deleted":
            self._to_change().restore_experiment(found.experiment_id)
        for key, value in tags.items():
            if found.tags.get(key) != value:
                self._to_change().set_experiment_tag(found.experiment_id, key, value)
        return str(found.experiment_id)

    def _experiments(self) -> Iterator[Any]:
        """All experiments of this outputs folder, deleted ones too."""
        ours = f"tags.`resolute.outputs` = '{_outputs_id(self.outputs)}'"
        token: str | None = None
        while token != "":
            page = self.client.search_experiments(
                filter_string=ours, view_type=3, max_results=1000, page_token=token
            )  # 3 is ViewType.ALL
            yield from page
            token = page.token or ""

    def runs(self, experiment: str) -> Iterator[Shown]:
        """All runs of an experiment, deleted ones too."""
        token: str | None = None
        while token != "":
            page = self.client.search_runs(
                [experiment], run_view_type=3, max_results=1000, page_token=token
            )  # 3 is ViewType.ALL
            for run in page:
                info, data = run.info, run.data
                yield Shown(
                    info.run_id, info.run_name, info.status, info.end_time, dict(data.tags),
                    dict(data.params), dict(data.metrics), info.lifecycle_stage == "deleted",
                )  # fmt: skip
            token = page.token or ""

    def create(self, experiment: str, name: str, started: int, tags: Mapping[str, str]) -> Shown:
        """Make a run that started at `started`, milliseconds."""
        made = self._to_change().create_run(experiment, started, dict(tags), name)
        return Shown(made.info.run_id, name, made.info.status, None, dict(tags))

    def restore(self, run: Shown) -> None:
        self._to_change().restore_run(run.id)
        run.deleted = False

    def delete(self, run: Shown) -> None:
        self._to_change().delete_run(run.id)
        run.deleted = True

    def write(
        self,
        run: Shown,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log what the run does not have yet: points in any case, tags that differ, new params.

        A param is written once: MLflow refuses to change one.
        """
        from mlflow.entities import Metric, Param, RunTag

        cut = {key: value[:LONGEST_TAG] for key, value in (tags or {}).items()}
        new_params = iter(
            [Param(k, v[:LONGEST_PARAM]) for k, v in (params or {}).items() if k not in run.params]
        )
        new_tags = iter([RunTag(k, v) for k, v in cut.items() if run.tags.get(k) != v])
        metrics = iter([Metric(p.key, p.value, p.time, p.step) for p in points])
        while True:
            some_metrics = list(islice(metrics, METRICS_A_CALL - PAIRS_A_CALL))  # 1000 in all
            some_params = list(islice(new_params, PAIRS_A_CALL))
            if not some_metrics and not some_params:
                break
            self._to_change().log_batch(run.id, some_metrics, some_params)
        # Tags come last: they say how far the points are logged.
        while batch_of_tags := list(islice(new_tags, PAIRS_A_CALL)):
            self._to_change().log_batch(run.id, tags=batch_of_tags)
        run.params |= {
            k: v[:LONGEST_PARAM] for k, v in (params or {}).items() if k not in run.params
        }
        run.tags |= cut
        run.metrics |= {point.key: point.value for point in points}

    def settle(self, run: Shown, name: str, status: str, ended: int | None) -> None:
        """Give a run its name, its state and, where it has ended, the time of its end."""
        if ended is not None and (run.status, run.ended) != (status, ended):
            self._to_change().set_terminated(run.id, status, ended)
        elif run.status != status:
            self._to_change().update_run(run.id, status=status)
        if run.name != name:
            self._to_change().update_run(run.id, name=name)
        run.name, run.status, run.ended = name, status, ended or run.ended

    def artifact(self, run: Shown, file: Path, folder: str | None = None) -> None:
        """Copy a file, or all of a folder, among the run's artifacts."""
        if file.is_dir():
            self._to_change().log_artifacts(run.id, str(file), folder)
        else:
            self._to_change().log_artifact(run.id, str(file), folder)


def _outputs_id(outputs: Path) -> str:
    """The id of an outputs folder, 8 hex digits, made with its first mirror; a copy has the same.

    Call it with the lock of the one writer held.
    """
    file = outputs / "mlflow.id"
    if not file.exists():
        write_atomic(file, secrets.token_hex(4))
    return file.read_text().strip()


class Memory:
    """What this process knows of one experiment, as long as nobody else writes it."""

    def __init__(self, store: Store, record: Json) -> None:
        tags = {
            "mlflow.note.content": record["question"],
            "mlflow.experimentKind": "custom_model_development",  # not generative AI traces
            "resolute.file": record["file"],
        }
        self.store = store
        self.experiment = store.experiment(record["name"], tags)
        self.runs: dict[Key, Shown] = {}
        self.seen: dict[Key, Any] = {}  # what was read and shown of it
        self.places: dict[Key, Place] = {}  # how far its metrics were read
        self.candidates: dict[Key, list[Shown]] = {}
        for run in store.runs(self.experiment):
            names = ("kind", "cell_id", "run_id")
            key = tuple(run.tags.get(f"resolute.{name}", "") for name in names)
            self.candidates.setdefault(key, []).append(run)

    def run(self, key: Key, name: str, started: int, tags: dict[str, str]) -> Shown:
        """The run that mirrors `key`: found, restored if it was deleted, or made.

        Where a run folder was archived and begun anew, or a cell has other seeds now, what is
        shown for good (points, means) would be another's: the run is replaced.
        """

        def fits(run: Shown) -> bool:
            return all(run.tags.get(tag) == tags.get(tag) for tag in FOR_GOOD)

        if key in self.runs and fits(self.runs[key]):
            return self.runs[key]
        found = self.candidates.get(key, [])
        fitting = [run for run in found if fits(run)]
        chosen = min(fitting, key=lambda run: run.deleted, default=None)
        for run in found:
            if run is not chosen and not run.deleted:
                self.store.delete(run)
        if chosen is None:
            identity = dict(zip(("kind", "cell_id", "run_id"), key, strict=True))
            tags = tags | {f"resolute.{k}": v for k, v in identity.items() if v}
            chosen = self.store.create(self.experiment, name, started, tags)
            self.candidates.setdefault(key, []).append(chosen)
        elif chosen.deleted:
            self.store.restore(chosen)
        self.runs[key] = chosen
        return chosen

    def delete_all_but(self, asked: Container[Key]) -> None:
        """Delete the runs of cells that the ablation has no more; MLflow keeps them restorable."""
        for key, found in self.candidates.items():
            if key in asked or key[0] not in ("cell", "seed"):
                continue
            for run in found:
                if not run.deleted:
                    self.store.delete(run)
            for known in (self.runs, self.seen, self.places):
                known.pop(key, None)
