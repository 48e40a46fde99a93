"""Stores for the mirror on this machine: PostgreSQL and MLflow's own server, on loopback only."""

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.tiny import wait_for

PASSWORD = "swordfish-47-äß"  # has to be written with % in an address


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs: Debian keeps them off PATH."""
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found).resolve().parent if found else folders[-1].parent if folders else None


def why_no_postgres() -> str:
    """What is missing for `postgres`, or nothing."""
    if postgres_programs() is None:
        return "PostgreSQL is missing (apt-get install postgresql)"
    return "" if find_spec("psycopg2") else "psycopg2 is missing (pip install psycopg2-binary)"


class Postgres:
    """A PostgreSQL of its own in a temporary folder, with a password for everybody."""

    def __init__(self, folder: Path) -> None:
        programs = postgres_programs()
        assert programs is not None
        self.programs, self.folder, self.port = programs, folder, free_port()
        # It refuses to run as root; any other user will do.
        self.user: dict[str, Any] = {}
        if os.geteuid() == 0:
            names = {user.pw_name for user in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self.user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)  # of a server that is gone in a minute
        made = [programs / "initdb", "-D", folder / "data", "-U", "resolute", "-E", "UTF8",
                "--locale=C", "--no-sync", "-A", "scram-sha-256", "--pwfile", secret]  # fmt: skip
        done = subprocess.run(made, capture_output=True, text=True, cwd=folder, **self.user)
        assert done.returncode == 0, done.stderr
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `wait` says when it answers."""
        settings = ("listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=32MB")
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port),
                   "-k", self.folder, *(part for s in settings for part in ("-c", s))]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, **self.user
            )

    def wait(self) -> None:
        """Until it answers."""
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        wait_for(lambda: subprocess.run(ready).returncode == 0)

    def kill(self) -> None:
        """End it at once, as a crash does; its children with it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)  # PostgreSQL's 'immediate shutdown'
        self.process.wait()

    def uri(self, password: str = PASSWORD) -> str:
        place = f"127.0.0.1:{self.port}/postgres"
        return f"postgresql+psycopg2://resolute:{urllib.parse.quote(password)}@{place}"

    def count(self, query: str) -> int:
        """The number that a query answers; 0 while there are no tables."""
        import psycopg2

        place = {"host": "127.0.0.1", "port": self.port, "dbname": "postgres"}
        with closing(psycopg2.connect(user="resolute", password=PASSWORD, **place)) as connection:
            try:
                cursor = connection.cursor()
                cursor.execute(query)
                return int(cursor.fetchone()[0])
            except psycopg2.ProgrammingError:  # in the midst of MLflow's migrations
                return 0


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that runs; its folder's path is short because that of its socket must be."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            server.wait()
            yield server
        finally:
            server.kill()


class MlflowServer:
    """`mlflow server` on loopback over a sqlite file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.database, self.log = folder / "server.db", folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `wait` says when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host",
                   "127.0.0.1", "--port", str(self.port), "--backend-store-uri",
                   f"sqlite:///{self.database}", "--artifacts-destination",
                   str(self.folder / "server-artifacts")]  # fmt: skip
        # Eight more processes, for judges of language models, would make its start twice as long.
        slim = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=os.environ | slim,
                start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Until it answers."""

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return True
            except OSError:
                time.sleep(0.1)
                return False

        wait_for(answers)

    def kill(self) -> None:
        """SIGKILL to it and to the worker that it has started."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def uri(self, password: str = PASSWORD) -> str:
        """With a password that it does not ask for, but that must not be found anywhere."""
        return f"http://resolute:{urllib.parse.quote(password)}@127.0.0.1:{self.port}"

    def count(self, query: str) -> int:
        """The number that a query answers."""
        return count_in(self.database, query)


def count_in(database: Path, query: str) -> int:
    """The number that a query of a sqlite file answers; 0 while there are no tables."""
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """A server that was started; call `wait` before it is needed."""
    server = MlflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
