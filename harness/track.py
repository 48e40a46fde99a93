"""Mirror run folders into MLflow. The folders are the truth; MLflow can be made of them anew.

    python -m harness.track follow NAME...   keep up with running ablations until stopped
    python -m harness.track sync             once, for the named ablations or all
    python -m harness.track rebuild          a new database, in place of the old one when complete

An ablation is an experiment, a cell a run, a seed a run nested in it. Whatever is there already is
left alone, so every command may be given again. One process at a time writes, under a lock on
OUTPUTS/mlflow.lock. `rebuild` puts OUTPUTS/mlflow.db in place by rename: start an open `mlflow ui`
anew after it; what was written by hand in the UI is not kept.
"""

import argparse
import fcntl
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import IO

from harness.errors import UserError, nearest
from harness.identity import digest
from harness.mirror import (
    Shown,
    Store,
    create_database,
    explain,
    replace_database,
    sqlite_uri,
    unfinished_name,
)
from harness.record import Json, read_json, run_folder
from harness.trackable import (
    Figures,
    Reading,
    cell_params,
    figures_of,
    final_step,
    finite,
    lines_after,
    new_points,
    read_run,
    signature,
    sizes_of,
)

EVERY = 2.0  # seconds between the passes of `follow`
PARENT = "RESOLUTE_PARENT"  # process id of the sweep; `follow` ends when it is gone

Key = tuple[str, ...]  # what a run mirrors: (kind, cell id, run id)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.track", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, names, text in (
        ("follow", "+", "mirror every 2 seconds until stopped"),
        ("sync", "*", "mirror once"),
        ("rebuild", None, "make the database anew from the run folders"),
    ):
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR")
        if names:
            uri = "another MLflow than OUTPUTS/mlflow.db, such as http://host:5000"
            sub.add_argument("--mlflow-uri", metavar="URI", help=uri)
            sub.add_argument("names", nargs=names, metavar="NAME", help="an ablation's name")
    options = parser.parse_args(arguments)
    try:
        outputs = options.outputs.resolve()
        names = ablation_names(outputs, getattr(options, "names", []))
        if options.command == "follow":
            return follow(outputs, names, options.mlflow_uri)
        if options.command == "sync":
            problems = Mirror(outputs, options.mlflow_uri).sync(names)
        else:
            problems = rebuild(outputs, names)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    _say(problems)
    return 1 if problems else 0


def ui_command(outputs: Path) -> str:
    """The command that opens MLflow's pages over `outputs`, for people to copy."""
    database = (outputs / "mlflow.db").resolve()
    if database.is_relative_to(Path.cwd()):
        database = database.relative_to(Path.cwd())
    uri = shlex.quote(f"sqlite:///{database}")
    return f"mlflow ui --backend-store-uri {uri} --host 127.0.0.1 --port 5000"


def ablation_names(outputs: Path, asked: Sequence[str]) -> list[str]:
    """The ablations to mirror: those asked for, or all of `outputs`.

    Raises:
        UserError: one of them was never swept into `outputs`.
    """
    known = sorted(file.stem for file in (outputs / "ablations").glob("*.json"))
    if not known:
        raise UserError(f"{outputs}: no ablation was swept into this folder; name it with --outputs")
    for name in asked:
        if name not in known:
            raise UserError(
                f"no ablation '{name}' in {outputs}{nearest(name, known)} (it has {', '.join(known)})"
            )
    return list(asked) or known


def follow(outputs: Path, names: Sequence[str], uri: str | None = None) -> int:
    """Mirror until a signal, or the end of the parent process, then once more; returns 0."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    parent = os.environ.get(PARENT)

    def ending() -> bool:
        return bool(asked) or (parent is not None and os.getppid() != int(parent))

    mirror = Mirror(outputs, uri)
    told: list[str] = []
    while True:
        last = ending()
        problems = mirror.sync(names)
        if problems != told:
            _say(problems or ["up to date again"])
            told = problems
        if last:
            return 0
        wake = time.monotonic() + EVERY
        while time.monotonic() < wake and not ending():
            time.sleep(0.1)


def rebuild(outputs: Path, names: Sequence[str]) -> list[str]:
    """Make the database anew; the old one is in place until the new one is complete.

    Returns:
        What could not be mirrored; when that is the database itself, the old one stays.
    """
    database = outputs / "mlflow.db"
    try:
        with _locked(outputs) as lock:
            new = unfinished_name(database)
            mirror = Mirror(outputs, sqlite_uri(new))
            problems = mirror.mirror_all(names)
            replace_database(new, database)
            lock.truncate(0)  # whoever follows looks at everything again
            kept = {run.id for memory in mirror.memories.values() for run in memory.runs.values()}
            for name in names:
                for folder in (outputs / "mlartifacts" / name).glob("*"):
                    if folder.name not in kept:  # a run of the old database
                        shutil.rmtree(folder)
            return problems
    except Exception as error:
        return [explain(error, sqlite_uri(database))]


@contextmanager
def _locked(outputs: Path) -> Iterator[IO[str]]:
    """Hold the lock of the one writer. The file says who wrote each experiment last."""
    with (outputs / "mlflow.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _say(problems: list[str]) -> None:
    for problem in problems:
        print(f"MLflow mirror: {problem}", file=sys.stderr, flush=True)


class Memory:
    """What this process knows of one experiment, as long as nobody else writes it."""

    def __init__(self, store: Store, record: Json) -> None:
        tags = {
            "mlflow.note.content": record["question"],
            "mlflow.experimentKind": "custom_model_development",  # or the UI asks which it is
            "resolute.question": record["question"],
            "resolute.file": record["file"],
        }
        self.store = store
        self.experiment = store.experiment(record["name"], tags)
        self.runs: dict[Key, Shown] = {}
        self.seen: dict[Key, tuple[object, Reading]] = {}
        self.candidates: dict[Key, list[Shown]] = {}
        for run in store.runs(self.experiment):
            names = ("kind", "cell_id", "run_id")
            key = tuple(run.tags.get(f"resolute.{name}", "") for name in names)
            self.candidates.setdefault(key, []).append(run)

    def run(self, key: Key, name: str, started: int, tags: dict[str, str]) -> Shown:
        """The run that mirrors `key`: found, restored if it was deleted, or made.

        A run folder that was archived and begun anew has another 'created': its run is replaced.
        """
        if key in self.runs and self.runs[key].tags["resolute.created"] == tags["resolute.created"]:
            return self.runs[key]
        found = self.candidates.get(key, [])
        fitting = [r for r in found if r.tags["resolute.created"] == tags["resolute.created"]]
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


class Mirror:
    """Run folders on one side, an MLflow store on the other."""

    def __init__(self, outputs: Path, uri: str | None = None) -> None:
        self.outputs = outputs
        self.uri = uri or sqlite_uri(outputs / "mlflow.db")
        self.token = f"{os.getpid()}.{time.monotonic_ns()}"
        self.store: Store | None = None
        self.memories: dict[str, Memory] = {}

    def sync(self, names: Sequence[str]) -> list[str]:
        """Mirror what is new; never raises.

        Returns:
            What went wrong, a line each: nothing, a store that is away, damaged run folders.
        """
        try:
            with _locked(self.outputs) as lock:
                self._forget_what_others_wrote(lock, names)
                return self.mirror_all(names)
        except Exception as error:
            self.memories.clear()
            return [explain(error, self.uri)]

    def _forget_what_others_wrote(self, lock: IO[str], names: Sequence[str]) -> None:
        lock.seek(0)
        try:
            writers = json.loads(lock.read() or "{}")
        except ValueError:
            writers = {}
        mine = {f"{digest(self.uri)}/{name}": name for name in names}
        for key, name in mine.items():
            if writers.get(key) != self.token:
                self.memories.pop(name, None)
        if any(writers.get(key) != self.token for key in mine):
            lock.truncate(0)
            lock.write(json.dumps(writers | dict.fromkeys(mine, self.token)))
            lock.flush()

    def mirror_all(self, names: Sequence[str]) -> list[str]:
        """One pass, with the lock held; raises what the store raises."""
        database = Path(self.uri.removeprefix("sqlite:///"))
        if self.uri.startswith("sqlite:///") and not database.exists():
            create_database(database)
            self.memories.clear()
        if self.store is None:
            self.store = Store(self.uri, self.outputs / "mlartifacts")
        problems: list[str] = []
        for name in names:
            record = read_json(self.outputs / "ablations" / f"{name}.json")
            if name not in self.memories:
                self.memories[name] = Memory(self.store, record)
            for index, cell in enumerate(record["cells"]):
                try:
                    self._cell(self.store, self.memories[name], record, cell, index)
                except UserError as error:  # a damaged folder does not hold up the others
                    problems.append(str(error))
            self._report(self.store, self.memories[name], self.outputs / "reports" / name)
        return list(dict.fromkeys(problems))
