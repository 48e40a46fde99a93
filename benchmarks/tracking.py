"""How fast run folders arrive in MLflow: many finished runs at once, and passes over them after.

    python -m benchmarks.tracking [--runs 500] [--points 1000] [--store sqlite|http|postgresql ...]
                                  [--folder DIR] [--output FILE]

Made-up run folders (nothing is trained): cells of 5 seeds, `loss` and three more metrics, three
evaluations each. For each store: a pass by a new process, what the store then holds (counted in
its tables), passes in the same process over folders that do not change, and a pass by another new
process, which reads all runs back first. PostgreSQL and the server run on loopback.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.harness.mirrored_outputs import finish, runs_of, train, write_ablation
from tests.harness.stores import count_in, mlflow_server, postgres, why_no_postgres
from tests.tiny import ROOT

SEEDS, KEYS = 5, 4  # keys: metrics of a line
STORES = ("sqlite", "http", "postgresql")
TABLES = {
    "runs": "SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'",
    "points": "SELECT count(*) FROM metrics WHERE step > 0",
    "figures": "SELECT count(*) FROM metrics WHERE step = 0",
    "params": "SELECT count(*) FROM params",
    "tags": "SELECT count(*) FROM tags",
}

Json = dict[str, Any]
Query = Callable[[str], int]

PASSES = """
import json, sys, time
from pathlib import Path
begin = time.perf_counter()
from harness.track import Mirror
mirror, found = Mirror(Path(sys.argv[1]), sys.argv[2]), []
for _ in range(int(sys.argv[3])):
    before, used = time.perf_counter(), time.process_time()
    problems = mirror.sync(["many"])
    assert not problems, problems
    found.append([time.perf_counter() - before, time.process_time() - used])
print(json.dumps(found))
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=int, default=500, help="a multiple of 5")
    parser.add_argument("--points", type=int, default=1000, help="a run's, a multiple of 4")
    parser.add_argument("--store", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--folder", type=Path, help="made-up runs that are there already, or kept")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "outputs").exists():
            make_runs(folder, options.runs, options.points)
        found: Json = {"runs": options.runs, "points": options.points, "stores": {}}
        for store in options.store:
            if store == "postgresql" and (why := why_no_postgres()):
                print(f"postgresql: {why}")
                continue
            found["stores"][store] = figures = measure(store, folder / "outputs", options)
            show(store, figures, options.runs * options.points)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


def make_runs(folder: Path, runs: int, points: int) -> None:
    """Finished run folders under folder/outputs, of an ablation called 'many'."""
    rates = ", ".join(f"{1e-5 * (n + 1):.6f}" for n in range(runs // SEEDS))
    text = (
        "question: How fast is the mirror?\nset: {data.resolution: 12, train.images: 6400}\n"
        f"axes: {{train.learning_rate: [{rates}]}}\nseeds: [0, 1, 2, 3, 4]\n"
        "evaluate: {resolution: [12, 18, 24]}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    record = write_ablation(folder, "many", text)
    steps = range(1, points // KEYS + 1)
    for run_id, seed in runs_of(record).items():
        train(folder, run_id, seed, steps, gradient_norm=1.5)
        finish(folder, record, run_id, seed)


def measure(store: str, outputs: Path, options: argparse.Namespace) -> Json:
    """The times of the passes into an empty store, and what it holds then."""
    for left in outputs.glob("ml*"):  # the mirror of an earlier measurement
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    with ExitStack() as stack:
        uri, query = stack.enter_context(opened(store, outputs))
        empty(outputs, uri)
        first = passes(outputs, uri, 6)
        counted = {name: query(sql) for name, sql in TABLES.items()}
        again = passes(outputs, uri, 1)
        assert counted == {name: query(sql) for name, sql in TABLES.items()}
    cells = options.runs // SEEDS
    assert counted["runs"] == options.runs + cells, counted
    assert counted["points"] == options.runs * options.points, counted
    idle = min(first[1:])
    return {"seconds": first[0][0], "cpu_seconds": first[0][1], "idle_seconds": idle[0],
            "idle_cpu_seconds": idle[1], "again_seconds": again[0][0], "rows": counted}  # fmt: skip


def empty(outputs: Path, uri: str) -> None:
    """Make the store's tables, which takes seconds and is no part of the rate."""
    code = (
        "import sys, pathlib, harness.mirror as m\n"
        "own = pathlib.Path(sys.argv[1], 'mlflow.db')\n"
        "if sys.argv[2] == m.sqlite_uri(own): m.create_database(own)\n"
        "else: m.make_client(sys.argv[2]).search_experiments()"
    )
    subprocess.run([sys.executable, "-c", code, outputs, uri], cwd=ROOT, check=True)


def passes(outputs: Path, uri: str, count: int) -> list[tuple[float, float]]:
    """(seconds, CPU seconds) of so many passes, one after the other, by a new process."""
    command = [sys.executable, "-c", PASSES, outputs, uri, str(count)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return [(wall, cpu) for wall, cpu in json.loads(done.stdout)]


@contextmanager
def opened(store: str, outputs: Path) -> Iterator[tuple[str, Query]]:
    """The address of an empty store, and what counts in its tables."""
    if store == "postgresql":
        with postgres() as cluster:
            yield cluster.uri(), cluster.count
    elif store == "http":
        with tempfile.TemporaryDirectory() as folder, mlflow_server(Path(folder)) as server:
            server.wait()
            yield server.uri(), server.count
    else:
        database = (outputs / "mlflow.db").absolute()
        yield f"sqlite:///{database}", lambda sql: count_in(database, sql)


def show(store: str, found: Json, points: int) -> None:
    rate = points / found["seconds"]
    print(
        f"{store:10} all: {found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s of CPU here), "
        f"{rate:.0f} points/s; nothing new: {1000 * found['idle_seconds']:.1f} ms "
        f"({1000 * found['idle_cpu_seconds']:.1f} ms of CPU); a new process: "
        f"{found['again_seconds']:.1f} s; {found['rows']}",
        flush=True,
    )


if __name__ == "__main__":
    main()
