"""Where a result comes from: the code's id, the commit, the diff, the packages, the machine."""

import ast
import contextlib
import hashlib
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.files import read_json

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("harness", "models", "reports", "ablations")
SNAPSHOT = "SNAPSHOT.json"  # in a copy of the code (harness.snapshot): what git would say

# What a run executes. The launchers, the tracker, the reports and the plan change no figure.
SEEING = (
    "data", "dataset", "facts", "fashion_mnist", "glyphs", "outlines", "folder_index",
    "draws", "images", "pictures", "picture_files", "npz", "npz_arrays", "patches", "features",
    "small_cnn", "inception", "dinov2", "metrics", "reference",
)  # fmt: skip
MEASURING = (*SEEING, "neighbours", "uncertainty", "measure")
EXECUTED = (
    *MEASURING, "run", "train", "batches", "stages", "engine", "objective", "diffusion", "ema",
    "checkpoint", "sample", "solvers", "identity", "extractors", "shards", "reference_file",
    "evaluation",
)  # fmt: skip
PACKAGES = (
    "torch", "torchvision", "deepspeed", "numpy", "scipy", "pillow", "torch-fidelity", "timm",
    "safetensors", "ray", "matplotlib", "shapely",
)  # fmt: skip

# Whatever the user's configuration of git says; another program would answer for it otherwise.
DIFF = (
    "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip

# Variables that pick the routines of linear algebra: another one rounds differently, as another
# processor does. The only ones of the environment that are written down.
KERNELS = (
    "OPENBLAS_CORETYPE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip


@cache
def code_id() -> str:
    """16 hex digits of the SHA-256 over the sources that train, sample and measure."""
    return code_id_of(ROOT)


def code_id_of(root: Path) -> str:
    """The same over the sources under another root, such as a snapshot of them."""
    files = sorted((root / "models").rglob("*.py"))
    files += [root / "harness" / f"{name}.py" for name in EXECUTED]
    return _hashed(((file, file.read_text()) for file in files), root)


@cache
def seeing_id() -> str:
    """The same over those that make features of real images: what a stored reference rests on.

    A reference can take hours, so a mended comment or docstring leaves it valid.
    """
    return _meaning_of(SEEING)


@cache
def measuring_id() -> str:
    """The same over those that make figures of images: what a stored floor rests on."""
    return _meaning_of(MEASURING)


def _meaning_of(names: tuple[str, ...]) -> str:
    files = [ROOT / "harness" / f"{name}.py" for name in names]
    return _hashed((file, meaning(file.read_text())) for file in files)


def _hashed(sources: Iterable[tuple[Path, str]], root: Path = ROOT) -> str:
    total = hashlib.sha256()
    for file, text in sources:
        total.update(f"{file.relative_to(root)}\0".encode())
        total.update(hashlib.sha256(text.encode()).digest())
    return total.hexdigest()[:16]


def meaning(source: str) -> str:
    """A source without its comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del node.body[0]
    return ast.dump(tree)


def git(root: Path, *arguments: str) -> str | None:
    """What git says of the checkout `root`, or None where there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def origin(root: Path = ROOT) -> dict[str, Any]:
    """The commit and what differs from it, sources that git does not know included."""
    if (root / SNAPSHOT).exists():
        told = read_json(root / SNAPSHOT, needs=("commit", "diff"))
        return {"commit": told["commit"], "diff": told["diff"]}
    commit = git(root, "rev-parse", "HEAD")
    diff = git(root, *DIFF, "HEAD", "--", "*.py", "*.yaml", "*.toml")
    sources = [f"{room}/*{suffix}" for room in ROOMS for suffix in (".py", ".yaml")]
    unknown = git(root, "ls-files", "--others", "--exclude-standard", "--", *sources)
    for name in (unknown or "").splitlines():
        with contextlib.suppress(OSError, UnicodeDecodeError):
            lines = (root / name).read_text().splitlines()
            new = ["--- /dev/null", f"+++ b/{name}", *(f"+{line}" for line in lines)]
            diff = "\n".join([diff or "", *new]).lstrip("\n")
    return {"commit": commit, "diff": diff}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name, as the kernel or else Python has it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def provenance(device: str) -> dict[str, Any]:
    """Commit, uncommitted diff, versions, host and devices of this process.

    Of its environment `KERNELS` alone, where they are set: another may hold a secret.
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "code_id": code_id(),
        **origin(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "kernels": {name: os.environ[name] for name in KERNELS if name in os.environ},
        "device": device,
    }


def check_own_packages() -> None:
    """`models` is a common name: refuse to start when another checkout's is imported.

    Raises:
        SystemExit: status 2, with the path that was found.
    """
    import models

    found = Path(str(models.__file__)).resolve().parent
    if found != ROOT / "models":
        print(
            f"the package 'models' is {found}, not this project's {ROOT / 'models'}; "
            f"run from {ROOT}, or take the other one off PYTHONPATH",
            file=sys.stderr,
        )
        raise SystemExit(2)
