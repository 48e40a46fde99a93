"""What comes from outside never runs, never leaves its folder, and secrets stay where they are."""

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from harness import sweep
from tests.test_imports import modules
from tests.tiny import ABLATION, BASE, ROOT, Write, command

SECRET = uuid4().hex  # one that stood here would be in the diff that the provenance keeps


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, call) of every call in a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def given(call: ast.Call, name: str) -> object:
    values = [ast.unparse(k.value) for k in call.keywords if k.arg == name]
    return values[0] if values else None


def dangerous(source: str) -> list[str]:
    """Calls that run what a file says, or hand words to a shell."""
    found = []
    for name, call in calls(source):
        last = name.rpartition(".")[2]
        runs = (
            name in ("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load")
            or name.partition(".")[0] in ("pickle", "cloudpickle", "marshal", "shelve", "joblib")
            or given(call, "shell") not in (None, "False")
            or given(call, "allow_pickle") == "True"
            or (name == "torch.load" and given(call, "weights_only") != "True")
            or (last == "getoutput")
        )
        if runs:
            found.append(f"{call.lineno}: {name}")
    return found


def test_no_source_runs_what_a_file_says() -> None:
    assert {str(path): dangerous(path.read_text()) for path in modules()} == {
        str(path): [] for path in modules()
    }


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(data)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_and_this_test_can_fail(source: str) -> None:
    assert dangerous(source)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "!!python/name:os.system",
        "!!python/object/new:subprocess.Popen [[touch, '{mark}']]",
    ],
)
def test_yaml_runs_nothing(write: Write, tmp_path: Path, value: str) -> None:
    mark = tmp_path / "mark"
    text = f"question: {value.format(mark=mark)}\nbase: base.yaml\n"
    done = command("harness.sweep", write("x.yaml", text), "--dry-run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not mark.exists()


@pytest.mark.parametrize("name", ["a\nb", "a;touch x", "$(touch x)", "x" * 200, "x" * 300, ".."])
def test_names_of_ablations_are_names(tmp_path: Path, name: str) -> None:
    """Of a file (its stem names folders), of a report, of what is tracked."""
    outputs = tmp_path / "outputs"
    (outputs / "ablations").mkdir(parents=True)
    (outputs / "ablations" / "x.json").write_text("{}")
    (tmp_path / "base.yaml").write_text(BASE)
    asked, refused = tmp_path / f"{name}.yaml", ""
    with suppress(OSError):  # 300 letters are too many for the file system
        asked.write_text(ABLATION)
        refused = "rename the file"
    for arguments in (
        ("harness.sweep", asked, "--dry-run", "--outputs", outputs),
        ("harness.track", "sync", "--outputs", outputs, name),
        ("harness.track", "sync", "--outputs", outputs, f"../{name}"),
        ("harness.run", outputs / name),
    ):
        done = command(*arguments)
        assert done.returncode == 2, (arguments, done.stdout + done.stderr)
        assert "Traceback" not in done.stderr
        assert asked not in arguments or refused in done.stderr
    assert sorted(p.name for p in outputs.rglob("*")) == ["ablations", "x.json"]


@pytest.mark.slow
def test_secrets_of_the_environment_are_kept_nowhere(tiny: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    names = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "WANDB_API_KEY")
    arguments = ("harness.sweep", tiny, "train.images=64", "--outputs", outputs)
    done = command(*arguments, "--launcher", "inline", **dict.fromkeys(names, SECRET))
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in outputs.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"mlflow.db", "report.md", "log.txt", "DONE"}
    holding = [str(path) for path in files if SECRET.encode() in path.read_bytes()]
    assert holding == []


@pytest.mark.slow
def test_no_log_of_rays_has_the_stores_password(tiny: Path, tmp_path: Path) -> None:
    started = time.time()
    store = {"RESOLUTE_MLFLOW_URI": f"postgresql+psycopg2://me:{SECRET}@127.0.0.1:1/db"}
    arguments = ("harness.sweep", tiny, "train.images=64", "--only", "law=pi", "--no-track")
    done = command(*arguments, "--launcher", "ray", "--outputs", tmp_path / "outputs", **store)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in Path("/tmp/ray").glob("session_*/logs/**/*") if path.is_file()]
    files = [path for path in files if path.stat().st_mtime > started]
    assert {path.name for path in files} >= {"runtime_env_agent.log"}
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("words", [["--mlflow-uri", "{}"], ["--mlflow-uri={}"]])
def test_the_command_to_go_on_with_has_no_password(words: list[str]) -> None:
    uri = f"postgresql+psycopg2://me:{SECRET}@store/db?password={SECRET}"
    told = sweep._command(["a.yaml", *(word.format(uri) for word in words)], uri)
    assert SECRET not in told
    assert "a.yaml" in told


@pytest.mark.slow
def test_a_local_ray_listens_on_loopback_only(tiny: Path, tmp_path: Path) -> None:
    """Looked at from outside, while the real command works."""
    import psutil

    sweeping = subprocess.Popen(
        [sys.executable, "-m", "harness.sweep", str(tiny), "--outputs", str(tmp_path / "o")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd="/",
    )
    seen: set[tuple[str, str]] = set()
    top = psutil.Process(sweeping.pid)
    while sweeping.poll() is None:
        try:
            for process in [top, *top.children(recursive=True)]:
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        seen.add((process.name(), connection.laddr.ip))
        except psutil.Error:
            continue
        try:
            sweeping.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    with sweeping:
        assert sweeping.stdout is not None
        assert sweeping.returncode == 0, sweeping.stdout.read()
    assert any("gcs_server" in name for name, _ in seen)
    assert {a for _, a in seen} <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, seen
