"""Mirror run folders into MLflow. The folders are the truth; MLflow can be made of them anew.

    python -m harness.track follow [NAME...]   keep up with running ablations until stopped
    python -m harness.track sync [NAME...]     once
    python -m harness.track rebuild            a new OUTPUTS/mlflow.db, in place of the old one

Without names all ablations of OUTPUTS are meant; `follow` takes up those that are swept later too.
An ablation is an experiment, a cell a run, a seed a run nested in it. Whatever is there already is
left alone, so every command may be given again. One process at a time writes, under a lock on
OUTPUTS/mlflow.lock. Jobs never ask MLflow anything: only this command does, on any machine that
sees OUTPUTS.

The store is OUTPUTS/mlflow.db, or what --mlflow-uri or the variable RESOLUTE_MLFLOW_URI names. A
password belongs into the variable: a command line is shown to every user of the machine. `rebuild`
is for OUTPUTS/mlflow.db alone, which it puts in place by rename: start an open `mlflow ui` anew
after it; what was written by hand in the UI is not kept. Any other store is made anew by a `sync`
into an empty one.
"""

import argparse
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from harness.claim import PARENT
from harness.errors import UserError, nearest
from harness.files import Json, read_json
from harness.identity import digest
from harness.mirror import (
    Memory,
    Store,
    create_database,
    replace_database,
    run_ids,
    sqlite_uri,
    unfinished_name,
)
from harness.reading import milliseconds
from harness.store_address import VARIABLE, check_folder, explain, named_store, public
from harness.tracked import keys, short_names, show_cell
from harness.writer_lock import new_version, read_versions, write_versions, writing

EVERY = 2.0  # seconds between the passes of `follow`
PATIENCE = 60.0  # seconds that a last pass waits for another process to end its own


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.track", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, text in (
        ("follow", "mirror every 2 seconds until stopped"),
        ("sync", "mirror once"),
        ("rebuild", "make OUTPUTS/mlflow.db anew from the run folders"),
    ):
        sub = commands.add_parser(command, help=text, description=text)
        sub.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="DIR")
        if command != "rebuild":
            where = "another MLflow than OUTPUTS/mlflow.db, such as http://host:5000 or " \
                f"postgresql+psycopg2://user@host/database (default: ${VARIABLE})"  # fmt: skip
            sub.add_argument("--mlflow-uri", metavar="URI", help=where)
            sub.add_argument("names", nargs="*", metavar="NAME", help="an ablation's name")
    options = parser.parse_args(arguments)
    uri: str | None = None
    try:
        outputs = options.outputs.resolve()
        if options.command == "rebuild":
            check_folder(outputs)
            names = ablation_names(outputs, [])
            problems = rebuild(outputs, names)
        else:
            uri = named_store(options.mlflow_uri, outputs)
            if options.command == "follow":
                if options.names:
                    ablation_names(outputs, options.names)
                return follow(outputs, options.names, uri)
            names = ablation_names(outputs, options.names)
            problems = Mirror(outputs, uri).sync(names)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    if problems:
        _say(problems)
        return 1
    place = f" in {public(uri)}" if uri else f"; {ui_command(outputs)}, then 'Model training' " \
        "at the top left"  # fmt: skip
    print(f"{', '.join(names)}: up to date{place}")
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
    """Mirror until a signal, or the end of the parent process, then once more.

    Args:
        names: the ablations; none: all that are there at each pass.

    Returns:
        0 when everything is mirrored, else 1.
    """
    asked: list[int] = []

    def stop(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)  # asked again: at once; a later pass goes on

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    parent = os.environ.get(PARENT)
    ends: list[float] = []  # when a last pass stops to wait for others

    def ending() -> bool:
        orphaned = parent is not None and os.getppid() != int(parent)
        if not ends and (asked or orphaned):
            ends.append(time.monotonic() + PATIENCE)
        return bool(ends)

    mirror = Mirror(outputs, uri, give_up=lambda: ending() and time.monotonic() > ends[0])
    told: list[str] = []
    while True:
        last = ending()
        problems = mirror.sync(names)
        if problems != told:
            _say(problems or ["up to date again"])
            told = problems
        if last:
            return 1 if problems else 0
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
        with writing(outputs, give_up=_never) as lock:
            old, new = run_ids(database), unfinished_name(database)
            mirror = Mirror(outputs, sqlite_uri(new))
            problems = mirror.mirror_all(names)
            replace_database(new, database)
            lock.truncate(0)  # whoever follows looks at everything again
            # Only the old database's: PostgreSQL may have its samples here as well.
            for folder in (outputs / "mlartifacts").glob("*/*"):
                if folder.name in old and folder.is_dir():
                    shutil.rmtree(folder)
            return problems
    except Exception as error:
        return [explain(error, sqlite_uri(database))]


def _never() -> bool:
    return False


def _say(problems: list[str]) -> None:
    for problem in problems:
        print(f"MLflow mirror: {problem}", file=sys.stderr, flush=True)


class Mirror:
    """Run folders on one side, an MLflow store on the other."""

    def __init__(
        self, outputs: Path, uri: str | None = None, give_up: Callable[[], bool] = _never
    ) -> None:
        self.outputs = outputs
        self.uri = uri or sqlite_uri(outputs / "mlflow.db")
        self.give_up = give_up  # asked while another process writes
        self.versions: dict[str, str] = {}  # of each experiment, when its memory was right
        self.changed: set[str] = set()  # the ablations that the last pass has written of
        self.store: Store | None = None
        self.memories: dict[str, Memory] = {}
        self.records: dict[str, tuple[object, Json, list[str]]] = {}

    def sync(self, names: Sequence[str] = ()) -> list[str]:
        """Mirror what is new of some ablations, or of all; never raises.

        Returns:
            What went wrong, a line each: nothing, a store that is away, damaged run folders.
        """
        try:
            with writing(self.outputs, self.give_up) as lock:
                names = names or ablation_names(self.outputs, [])
                return self._sync(names, lock)
        except Exception as error:
            self.memories.clear()
            return [explain(error, self.uri)]

    def _sync(self, names: Sequence[str], lock: IO[str]) -> list[str]:
        """The same with the lock held; what others wrote since the last pass is read again."""
        ours = {name: f"{digest(public(self.uri))}/{name}" for name in names}
        before = read_versions(lock)
        for name, key in ours.items():
            if before.get(key) != self.versions.get(key):
                self.memories.pop(name, None)
        # Written first: others must see it if this process is killed amid its writes.
        begun = before | dict.fromkeys(ours.values(), new_version())
        write_versions(lock, begun)
        problems = self.mirror_all(names)
        for name, key in ours.items():
            if name not in self.changed and key in before:
                begun[key] = before[key]
        write_versions(lock, begun)
        self.versions |= {key: begun[key] for key in ours.values()}
        return problems

    def mirror_all(self, names: Sequence[str]) -> list[str]:
        """One pass, with the lock held; raises what the store raises."""
        database = Path(self.uri.removeprefix("sqlite:///"))
        if self.uri.startswith("sqlite:///") and not database.exists():
            create_database(database)
            self.memories.clear()
        if self.store is None:
            self.store = Store(self.uri, self.outputs)
        problems: list[str] = []
        self.changed.clear()
        for name in names:
            before = self.store.changes
            try:
                record, shorts = self._record(name)
            except UserError as error:  # a damaged file does not hold up the others
                problems.append(str(error))
                continue
            if name not in self.memories:
                self.memories[name] = Memory(self.store, record)
            memory = self.memories[name]
            for index, short in enumerate(shorts):
                try:
                    show_cell(memory, self.outputs, record, index, short)
                except UserError as error:
                    problems.append(str(error))
            memory.delete_all_but(keys(record))
            show_report(memory, self.outputs / "reports" / name)
            if self.store.changes != before:
                self.changed.add(name)
        return list(dict.fromkeys(problems))

    def _record(self, name: str) -> tuple[Json, list[str]]:
        """The ablation's grid and the names of its cells, read again when it was swept anew."""
        file = self.outputs / "ablations" / f"{name}.json"
        stat = file.stat() if file.exists() else None
        version = (stat.st_ino, stat.st_mtime_ns, stat.st_size) if stat else None
        known = self.records.get(name)
        if known is None or known[0] != version:
            record = read_json(file, needs=("name", "question", "file", "cells", "baseline"))
            known = self.records[name] = (version, record, short_names(record))
        return known[1], known[2]


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
