"""The direction of imports: who may import whom, and what the quick path must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import ROOT, command

HEAVY = {"torch", "torchvision", "ray", "mlflow", "deepspeed", "submitit", "torch_fidelity"}
QUICK = (
    "ablation", "canonical", "claim", "conclude", "config", "dataset", "errors", "extractors",
    "files", "grid", "identity", "launch.batch", "launch.job_script", "launch.profile",
    "launch.slurm_job", "launch.squeue", "options", "plan", "provenance", "queued", "record",
    "retries", "rungs", "snapshot", "stages", "store_address", "sweep", "table", "yamlfile",
)  # fmt: skip


def modules() -> list[Path]:
    found = [
        path for room in ("harness", "models", "reports") for path in (ROOT / room).rglob("*.py")
    ]
    assert len(found) > 40
    return found


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a module imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)


def users_of(package: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in modules()
        if any(name.split(".")[0] == package for name in imports(path))
    }


def test_each_of_the_great_libraries_is_imported_in_one_file() -> None:
    assert users_of("deepspeed") == {"harness/engine.py"}
    assert users_of("submitit") == {"harness/launch/slurm.py"}
    rays = {f"harness/launch/{name}.py" for name in ("ray", "ray_trial", "ray_watch", "asha")}
    assert users_of("ray") == rays
    assert users_of("mlflow") == {"harness/mirror.py"}


def test_models_know_nothing_of_the_harness_and_only_torch() -> None:
    for path in (ROOT / "models").rglob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in {"models", "torch"} or top in sys.stdlib_module_names, (path, name)


def test_nothing_imports_sweep_and_only_launchers_run() -> None:
    for path in modules():
        names = set(imports(path))
        assert not any(name.startswith("harness.sweep") for name in names), path
        if any(name.startswith("harness.run") and name.split(".")[1] == "run" for name in names):
            assert path.name in {"processes.py"}, path


def test_reports_read_records_and_never_torch() -> None:
    allowed = {
        "record", "files", "grid", "ablation", "plan", "provenance", "errors", "config",
        "canonical", "kinds",
    }  # fmt: skip
    for path in (ROOT / "reports").rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] not in HEAVY, (path, name)
            if parts[0] == "harness" and len(parts) > 1:
                assert parts[1] in allowed, (path, name)


@pytest.mark.parametrize("name", QUICK)
def test_the_quick_path_loads_nothing_heavy(name: str) -> None:
    code = f"import sys, harness.{name}\nprint(*sorted(set(sys.modules) & {HEAVY!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == ""


@pytest.mark.slow
def test_this_test_can_fail() -> None:
    code = f"import sys, harness.train\nprint(*sorted(set(sys.modules) & {HEAVY!r}))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "torch" in ended.stdout.split()


def test_another_models_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "models" / "names.py").write_text((ROOT / "models" / "names.py").read_text())
    ended = command("harness.sweep", "x.yaml", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert ended.returncode == 2
    assert "not this project's" in ended.stderr
    assert "Traceback" not in ended.stderr
