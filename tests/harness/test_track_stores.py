"""The mirror in real stores that die: MLflow's server, PostgreSQL, and a mirror that is killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness.store_address import VARIABLE
from tests.harness.mirrored_outputs import Server, finish, runs_of, train, write_ablation
from tests.harness.stores import (
    PASSWORD,
    MlflowServer,
    Postgres,
    count_in,
    mlflow_server,
    postgres,
    why_no_postgres,
)
from tests.tiny import ROOT, command, prepared
from tests.tiny import wait_for as wait_for_it

pytestmark = pytest.mark.slow

SEEDS, LINES, KEYS = 5, 250, 4  # of a run: 250 lines of 4 metrics are 1,000 points
YAML = """
question: Does all of it arrive?
set: {data.resolution: 12, train.images: 16000}
axes: {inference.law: [extrapolate, pi]}
seeds: [0, 1, 2, 3, 4]
evaluate: {resolution: [12, 18]}
"""
POINTS = "SELECT count(*) FROM metrics WHERE step > 0"
ALL = 2 * SEEDS * LINES * KEYS  # 10 seeds of two cells, and 1,000 points in each


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, server: Server) -> tuple[Path, dict[str, Any]]:
    """A folder of finished runs, and what a sqlite file has of them when nothing disturbs it."""
    folder = tmp_path_factory.mktemp("many")
    record = write_ablation(folder, "many", YAML)
    for run_id, seed in runs_of(record).items():
        train(folder, run_id, seed, range(1, LINES + 1), gradient_norm=0.5)
        finish(folder, record, run_id, seed)
    server.sync(folder)
    content = server.content(folder)
    assert count_in(folder / "outputs/mlflow.db", POINTS) == ALL
    assert len(content) == 2 * SEEDS + 2
    for left in ("mlflow.db", "mlflow.lock"):
        (folder / "outputs" / left).unlink()
    shutil.rmtree(folder / "outputs/mlartifacts")
    return folder, content


def wait_for(condition: Callable[[], bool]) -> None:
    wait_for_it(condition, 400)  # on a loaded machine each step takes a minute


class Follower:
    """`track follow`, whose words go into a file."""

    def __init__(self, folder: Path, *names: str, uri: str = "") -> None:
        self.file = folder / f"said-{len(list(folder.glob('said-*')))}"
        outputs = ["--outputs", str(folder / "outputs")]
        with self.file.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness.track", "follow", *outputs, *names],
                cwd=ROOT,
                stdout=said,
                stderr=said,
                env=os.environ | {VARIABLE: uri, "MLFLOW_TRACKING_TOKEN": PASSWORD},
            )

    def said(self) -> str:
        return self.file.read_text().replace("MLflow mirror: ", "")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """Ask it to end; all that it said."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(200) == 0
        return self.said()

    def command_line(self) -> bytes:
        return Path(f"/proc/{self.process.pid}/cmdline").read_bytes()


def holding(folder: Path, secret: str) -> list[str]:
    """Files with the secret in them, as it is or as it stands in an address."""
    secrets = (secret.encode(), quote(secret).encode())
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [str(file) for file in files if any(s in file.read_bytes() for s in secrets)]


def check_survival(
    store: MlflowServer | Postgres, folder: Path, expected: dict[str, Any], server: Server
) -> None:
    """The store dies while much arrives: said once, and then everything is there, once."""
    uri = store.uri()
    follower = Follower(folder, "many", uri=uri)
    try:
        wait_for(lambda: store.count(POINTS) > 0)
        store.kill()
        place = uri.partition("@")[2]
        away = f"no MLflow answers at {uri.partition(':')[0]}://{place}\n"
        wait_for(lambda: follower.said() == away)
        store.start()
        store.wait()
        assert 0 < store.count(POINTS) < ALL
        wait_for(lambda: follower.said() == away + "up to date again\n")
        assert PASSWORD.encode() not in follower.command_line()
        assert quote(PASSWORD).encode() not in follower.command_line()
        assert follower.end() == away + "up to date again\n"
    finally:
        follower.kill()
    assert store.count(POINTS) == ALL
    assert server.content(folder, uri) == expected
    assert holding(folder, PASSWORD) == []


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder / "outputs", to / "outputs", dirs_exist_ok=True)
    return to


def test_a_server_that_dies_and_comes_back_has_everything_once(
    many: tuple[Path, dict[str, Any]], server: Server, tmp_path: Path
) -> None:
    with mlflow_server(tmp_path) as store:
        copied(many[0], tmp_path)
        store.wait()
        check_survival(store, tmp_path, many[1], server)


@pytest.mark.skipif(bool(why_no_postgres()), reason=why_no_postgres())
def test_a_postgresql_that_dies_and_comes_back_has_everything_once(
    many: tuple[Path, dict[str, Any]], server: Server, tmp_path: Path
) -> None:
    with postgres() as store:
        check_survival(store, copied(many[0], tmp_path), many[1], server)
        uri = store.uri("wr0ng-password")
        refused = command("harness.track", "sync", "--outputs", tmp_path / "outputs",
                          "--mlflow-uri", uri)  # fmt: skip
        assert refused.returncode == 1
        warned, said = refused.stderr.splitlines()
        assert "the process list shows the password" in warned
        assert said.endswith(': password authentication failed for user "resolute"')
        assert "wr0ng" not in refused.stderr
        assert holding(tmp_path, "wr0ng") == []


def test_a_mirror_that_is_killed_again_and_again_makes_everything_once(
    many: tuple[Path, dict[str, Any]], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "outputs").mkdir()
    database = tmp_path / "outputs/mlflow.db"
    follower = Follower(tmp_path)  # before anything is swept
    try:
        wait_for(lambda: "no ablation was swept into this folder" in follower.said())
        copied(many[0], tmp_path)
        for share in (0.1, 0.5):
            wait_for(lambda share=share: count_in(database, POINTS) > share * ALL)
            follower.kill()
            assert count_in(database, POINTS) < ALL
            follower = Follower(tmp_path)
        wait_for(lambda: count_in(database, POINTS) == ALL)
        assert follower.end() == ""
    finally:
        follower.kill()
    assert server.content(tmp_path) == many[1]
    # Without a change no run folder and no store is opened, however many there are.
    assert server.opened(tmp_path) == {"mlflow.lock", "ablations"}


def test_other_credentials_are_asked_for_and_come_from_the_environment(tmp_path: Path) -> None:
    write_ablation(tmp_path, "many", YAML)
    asked: list[str | None] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(401)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as guarded:
        threading.Thread(target=guarded.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{guarded.server_port}"
        environment = {VARIABLE: place, "MLFLOW_TRACKING_USERNAME": "me"}
        environment["MLFLOW_TRACKING_PASSWORD"] = "s3cret"
        sync = ("harness.track", "sync", "--outputs", tmp_path / "outputs")
        done = command(*sync, **environment)
        guarded.shutdown()
    assert done.returncode == 1
    assert done.stderr.startswith(f"MLflow mirror: {place} wants other credentials: set MLFLOW_")
    assert done.stderr.count("\n") == 1
    assert set(asked) == {f"Basic {b64encode(b'me:s3cret').decode()}"}
    assert holding(tmp_path, "s3cret") == []


def test_a_job_never_asks_mlflow_anything(tiny: Path, tmp_path: Path) -> None:
    run = prepared(tmp_path / "outputs", tiny, "train.images=64")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}"
        environment = {"MLFLOW_TRACKING_URI": uri, VARIABLE: uri, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "harness.run", run.path],
            capture_output=True,
            text=True,
            cwd="/",
            env=os.environ | environment,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "harness.train" in imported
        assert not [name for name in imported if name.startswith("mlflow.")]  # DeepSpeed does try
        with pytest.raises(BlockingIOError):  # nobody has called
            listening.accept()
    assert all(run.result(eval_id) for eval_id in run.requests())
