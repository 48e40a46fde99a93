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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.claim import PARENT
from harness.errors import UserError, nearest
from harness.files import read_json
from harness.identity import digest
from harness.mirror import (
    Memory,
    Store,
    create_database,
    explain,
    replace_database,
    sqlite_uri,
    unfinished_name,
)
from harness.tracked import milliseconds, short_names, show_cell

EVERY = 2.0  # seconds between the passes of `follow`


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.track", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, count, text in (
        ("follow", "+", "mirror every 2 seconds until stopped"),
        ("sync", "*", "mirror once"),
        ("rebuild", "", "make the database anew from the run folders"),
    ):
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR")
        if count:
            uri = "another MLflow than OUTPUTS/mlflow.db, such as http://host:5000"
            sub.add_argument("--mlflow-uri", metavar="URI", help=uri)
            sub.add_argument("names", nargs=count, metavar="NAME", help="an ablation's name")
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
    if problems:
        _say(problems)
        return 1
    print(f"{', '.join(names)}: up to date", end="")
    own = not getattr(options, "mlflow_uri", None)
    print(f"; {ui_command(outputs)}, then 'Model training' at the top left" if own else "")
    return 0


def ui_command(outputs: Path) -> str:
    """The command that opens MLflow's pages over `outputs`, for people to copy."""
    database, python = (outputs / "mlflow.db").resolve(), Path(sys.executable)
    if database.is_relative_to(Path.cwd()):
        database = database.relative_to(Path.cwd())
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    # The environment that runs this need not be on PATH: `make demo` activates none.
    mlflow = "mlflow" if shutil.which("mlflow") else f"{shlex.quote(str(python))} -m mlflow"
    uri = shlex.quote(f"sqlite:///{database}")
    return f"{mlflow} ui --backend-store-uri {uri} --host 127.0.0.1 --port 5000"


def ablation_names(outputs: Path, asked: Sequence[str]) -> list[str]:
    """The ablations to mirror: those asked for, or all of `outputs`.

    Raises:
        UserError: one of them was never swept into `outputs`.
    """
    known = sorted(file.stem for file in (outputs / "ablations").glob("*.json"))
    if not known:
        raise UserError(
            f"{outputs}: no ablation was swept into this folder; name it with --outputs"
        )
    for name in asked:
        if name not in known:
            raise UserError(
                f"no ablation '{name}' in {outputs}{nearest(name, known)} "
                f"(it has {', '.join(known)})"
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
            for index, short in enumerate(short_names(record)):
                try:
                    show_cell(self.memories[name], self.outputs, record, index, short)
                except UserError as error:  # a damaged folder does not hold up the others
                    problems.append(str(error))
            show_report(self.memories[name], self.outputs / "reports" / name)
        return list(dict.fromkeys(problems))


def show_report(memory: Memory, folder: Path) -> None:
    """Copy the ablation's report, if there is one, among the artifacts of a run named 'report'."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:
        return
    found: list[Any] = [
        [str(file.relative_to(folder)), file.stat().st_size, file.stat().st_mtime_ns]
        for file in files
    ]
    written = max(file.stat().st_mtime for file in files)
    run = memory.run(("report", "", ""), "report", milliseconds(written), {})
    if run.tags.get("resolute.synced") != digest(found):
        memory.store.artifact(run, folder)
        memory.store.write(run, tags={"resolute.synced": digest(found)})
    memory.store.settle(run, "report", "FINISHED", milliseconds(written))


if __name__ == "__main__":
    raise SystemExit(main())
