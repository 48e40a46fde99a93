"""A Ray cluster of several nodes on this machine, as `ray start` makes one on several machines."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.tiny import wait_for

START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats",
         "--object-store-memory=80000000", "--num-gpus=0", "--min-worker-port=0",
         "--max-worker-port=0"]  # fmt: skip


class RayCluster:
    """Nodes that are processes; a token of its own, which `environment` shows to the cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        token = folder / "token"
        token.write_text("1f" * 32)
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.start("--head", "--port=0", "--num-cpus=1", "--include-dashboard=false",
                   "--dashboard-agent-listen-port=0", f"--temp-dir={folder}",
                   RAY_memory_monitor_refresh_ms="0")  # fmt: skip
        self.address = (folder / "ray_current_cluster").read_text().strip()

    def add(self, hidden: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Another node with one CPU."""
        environment = {"RAY_memory_monitor_refresh_ms": "0"} | environment
        return self.start(f"--address={self.address}", "--num-cpus=1", hidden=hidden, **environment)

    def start(
        self, *options: str, hidden: Path | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """A node; `hidden` is a folder that it sees empty, as if it lay on another machine."""
        mount = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t tmpfs none "$0" && exec "$@"',
            str(hidden),
        ]
        said = self.folder / f"node{len(self.nodes)}.log"
        with said.open("wb") as log:
            node = subprocess.Popen(
                [*(mount if hidden else []), *START, *options],
                env=os.environ | self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.nodes.append(node)
        wait_for(lambda: "Ray runtime started" in said.read_text() or node.poll() is not None)
        assert node.poll() is None, said.read_text()
        return node

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """As a power cut: every process of the node, runs included, without warning."""
        parts = psutil.Process(node.pid).children(recursive=True)
        for process in [psutil.Process(node.pid), *parts]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        node.wait()

    def end(self) -> None:
        for node in reversed(self.nodes):
            if node.poll() is None:
                self.kill(node)


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster that ends with the block; in a folder with a short name, for Unix sockets."""
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = RayCluster(Path(folder))
        try:
            yield cluster
        finally:
            cluster.end()
