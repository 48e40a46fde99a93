"""Checkpoints: read by any number of ranks, checked, and never executed."""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file

from harness.checkpoint import CheckpointError, fill, packed
from harness.engine import Span, Spans, World
from harness.files import Json, checksum, read_json
from harness.record import RunFolder
from tests.tiny import BASE, ROOT, losses, prepared, weights

ABLATION = """\
question: Does it matter how many ranks train?
base: base.yaml
set: {train.images: 384, job.checkpoint_every: 2}
seeds: [0]
evaluate: {resolution: [8]}
baseline: {inference.law: extrapolate}
"""
STAGED = (
    "train.stages=[{resolution: 4, images: 192}, {resolution: 8, images: 192, optimizer: reset}]"
)
SNAPSHOTS = "train.snapshots=[0.25, 0.6]"  # after steps 3 and 7
CASES = {
    "stage 0": ("train.zero_stage=0", SNAPSHOTS),
    "stage 1": ("train.zero_stage=1", "train.accumulation=2"),
    "stage 2": ("train.zero_stage=2", "model.encoding=learned"),
    "stage 3": ("train.zero_stage=3", "model.encoding=rope-mixed", STAGED, SNAPSHOTS),
    "stage 1 in bf16": ("train.zero_stage=1", "train.precision=bf16", "train.accumulation=2"),
    "stage 3 in bf16": ("train.zero_stage=3", "train.precision=bf16", "model.encoding=learned"),
}
WHOLE = 99  # steps: to the end


# ---- the files


def cut(tensors: dict[str, torch.Tensor], rank: int, size: int, shared: bool) -> Spans:
    """What a rank holds of tensors: all, or its part of all their elements in a row."""
    if shared:
        return {name: Span(0, tensor.clone(), True) for name, tensor in tensors.items()}
    total = sum(len(tensor) for tensor in tensors.values())
    share = -(-total // size)
    first, last, offset, found = rank * share, (rank + 1) * share, 0, {}
    for name, tensor in tensors.items():
        start = min(max(first - offset, 0), len(tensor))
        end = min(max(last - offset, 0), len(tensor))
        found[name] = Span(start, tensor[start:end].clone(), False)
        offset += len(tensor)
    return found


@pytest.mark.parametrize("shared", [True, False])
def test_any_number_of_ranks_reads_what_any_other_wrote(tmp_path: Path, shared: bool) -> None:
    tensors = {name: torch.randn(n) for name, n in (("a.weight", 23), ("b", 1), ("c", 8))}
    empty = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    for writers in (1, 2, 3, 40):
        folder, elements = tmp_path / str(writers), 0
        folder.mkdir()
        for rank in range(writers):
            held = cut(tensors, rank, writers, shared)
            if content := packed(held, World(rank, writers, torch.device("cpu"), None)):
                (folder / f"ema-{rank}.safetensors").write_bytes(content)
                elements += sum(map(len, load_tensors(content).values()))
        assert elements == 32  # each once
        for readers, rank in ((1, 0), (2, 0), (2, 1), (5, 3)):
            for wanted in (cut(empty, rank, readers, True), cut(empty, rank, readers, False)):
                fill(wanted, sorted(folder.glob("ema-*")))
                for name, (start, values, _) in wanted.items():
                    assert torch.equal(values, tensors[name][start : start + len(values)])


def test_what_a_checkpoint_does_not_have_is_said(tmp_path: Path) -> None:
    alone = World(0, 1, torch.device("cpu"), None)
    (tmp_path / "ema-0.safetensors").write_bytes(packed({"a": Span(0, torch.ones(3), True)}, alone))
    for name in ("a", "b"):
        with pytest.raises(CheckpointError, match=f"elements of {name}: other code"):
            fill({name: Span(0, torch.ones(4), True)}, sorted(tmp_path.glob("ema-*")))


# ---- runs, in real processes


def prepare_run(folder: Path, *changes: str) -> RunFolder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(BASE)
    (folder / "ablation.yaml").write_text(ABLATION)
    return prepared(folder, folder / "ablation.yaml", *changes)


def train(ranks: int, runs: Iterable[tuple[RunFolder, int]]) -> str:
    """Train each some steps more, with so many ranks; what these printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks),
    }  # fmt: skip
    work = [f"{run.path}:{steps}" for run, steps in runs]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.harness.train_until", *work],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    printed = [process.communicate(timeout=600)[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(printed)
    return "\n".join(printed)


@dataclass(frozen=True)
class Trained:
    """Each case by one rank to the end, by one rank and two in turn, and as one rank left it."""

    alone: dict[str, RunFolder]
    changing: dict[str, RunFolder]
    begun: dict[str, RunFolder]
    damaged: RunFolder  # as one rank left it, then damaged, then by two to the end
    printed_by_two: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    alone, changing = (
        {case: prepare_run(folder / name, *changes) for case, changes in CASES.items()}
        for name in ("alone", "changing")
    )
    train(1, [(run, WHOLE) for run in alone.values()] + [(run, 4) for run in changing.values()])
    begun = {case: copied(run, folder / "begun") for case, run in changing.items()}
    damaged = copied(begun["stage 3"], folder / "damaged")
    flip(damaged.checkpoints()[-1] / "exp_avg-0.safetensors")  # the second file: rank 1 checks it
    printed = train(2, [(run, 4) for run in changing.values()] + [(damaged, WHOLE)])
    for run in changing.values():
        newest = run.checkpoints()[-1]
        assert newest.name == "step-00000008"
        assert (newest / "weight-1.safetensors").exists()
    train(1, [(run, WHOLE) for run in changing.values()])
    return Trained(alone, changing, begun, damaged, printed)


def copied(run: RunFolder, outputs: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(run.path, outputs / run.run_id)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_number_of_ranks_changes_nothing(trained: Trained, case: str) -> None:
    alone, changing = trained.alone[case], trained.changing[case]
    tolerance = 2e-3 if "bf16" in case else 1e-5
    assert losses(changing) == [
        (step, pytest.approx(loss, abs=tolerance)) for step, loss in losses(alone)
    ]
    files = [file.relative_to(alone.path) for file in alone.path.rglob("*.safetensors")]
    # The end, and of the last checkpoint the weights, both moments and the averages.
    assert len(files) == len(weights(alone)) + 4 == (7 if SNAPSHOTS in CASES[case] else 5)
    for file in files:
        one, other = load_file(alone.path / file), load_file(changing.path / file)
        assert one.keys() == other.keys()
        for name in one:
            assert torch.allclose(one[name], other[name], rtol=0, atol=tolerance), (file, name)
    done, expected = changing.done(), alone.done()
    assert done is not None
    assert expected is not None
    assert done["parameters"] == expected["parameters"]
    assert done["weights"] == {
        file.name: checksum(file) for file in changing.path.glob("weights*.safetensors")
    }


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-len(content) // 3] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def pickled(checkpoint: Path) -> None:
    """Code under the name and with the checksum of the averages."""
    file, state = checkpoint / "ema-0.safetensors", read_json(checkpoint / "state.json")
    file.write_bytes(pickle.dumps(Code(checkpoint.parent.parent / "executed")))
    state["files"][file.name] = {"bytes": file.stat().st_size, "checksum": checksum(file)}
    write_signed(checkpoint, state)


def without_a_key(checkpoint: Path) -> None:
    """As a version that writes other things would."""
    state = read_json(checkpoint / "state.json")
    del state["run_id"]
    write_signed(checkpoint, state)


def behind_a_link(checkpoint: Path) -> None:
    """On another disk, say: it is read as any other."""
    flip(checkpoint / "weight-0.safetensors")
    checkpoint.symlink_to(checkpoint.rename(checkpoint.parent.parent / "elsewhere"))


def write_signed(checkpoint: Path, state: Json) -> None:
    state.pop("checksum")
    state["checksum"] = checksum(json.dumps(state, sort_keys=True).encode())
    (checkpoint / "state.json").write_text(json.dumps(state))


def of_old(checkpoint: Path) -> None:
    """As DeepSpeed wrote them, in which code may hide."""
    for file in checkpoint.iterdir():
        file.unlink()
    (checkpoint / "engine").mkdir()
    code = pickle.dumps(Code(checkpoint.parent.parent / "executed"))
    (checkpoint / "engine" / "mp_rank_00_model_states.pt").write_bytes(code)
    state = {"step": 4, "pending": [], "code_ids": [], "ranks": 1, "files": ["engine"]}
    (checkpoint / "state.json").write_text(json.dumps(state))


def state_of_another_step(checkpoint: Path) -> None:
    file = checkpoint / "state.json"
    file.write_text(file.read_text().replace('"optimizer_steps": 4', '"optimizer_steps": 5'))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "ema-0.safetensors has not the size": lambda folder: truncate(folder / "ema-0.safetensors"),
    "exp_avg-0.safetensors has another checksum": lambda f: flip(f / "exp_avg-0.safetensors"),
    "No such file": lambda folder: (folder / "weight-0.safetensors").unlink(),
    "state.json: is damaged": lambda folder: truncate(folder / "state.json"),
    "state.json has another checksum": state_of_another_step,
    "deserializing header": pickled,
    "is of another version of this program": of_old,
    "of another version": without_a_key,
    "weight-0.safetensors has another checksum": behind_a_link,
}


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_used_gives_way_to_the_one_before(
    tmp_path: Path, trained: Trained
) -> None:
    begun, whole = trained.begun["stage 1"], trained.alone["stage 1"]
    spoilt = {why: copied(begun, tmp_path / str(n)) for n, why in enumerate(DAMAGES)}
    for why, spoil in DAMAGES.items():
        spoil(spoilt[why].checkpoints()[-1])
    # Another run's, newer than all of its own.
    other = trained.begun["stage 0"].checkpoints()[-1]
    spoilt["is of another run"] = foreign = copied(begun, tmp_path / "foreign")
    shutil.copytree(other, foreign.path / "checkpoints" / "step-00000005")
    # The only one: the engine must not have taken any of it.
    spoilt["exp_avg_sq-0.safetensors has another"] = only = copied(begun, tmp_path / "only")
    shutil.rmtree(only.checkpoints()[0])
    flip(only.checkpoints()[0] / "exp_avg_sq-0.safetensors")
    # Weights that a disk has changed after the training.
    flipped = copied(whole, tmp_path / "flipped")
    flip(flipped.weights_file)

    printed = train(1, [(run, WHOLE) for run in [*spoilt.values(), flipped]])
    for why, run in spoilt.items():
        told = printed.split(f"{run.path}:\n")[1].splitlines()[0]
        assert told.startswith("checkpoint step-0000000")
        assert why in told
        assert told.endswith("; trying the one before")
        assert losses(run) == losses(whole)
        assert weights(run) == weights(whole)
        assert not (run.path / "executed").exists()
    assert "is damaged (it has another checksum); made again from the last check" in printed
    assert weights(flipped) == weights(whole)


@pytest.mark.slow
def test_all_ranks_pass_over_what_one_finds_damaged(trained: Trained) -> None:
    run, whole = trained.damaged, trained.alone["stage 3"]
    told = trained.printed_by_two.split(f"{run.path}:\n")[2]  # by rank 1
    assert told.startswith("checkpoint step-00000004 is damaged (exp_avg-0.safetensors")
    assert losses(run) == [(step, pytest.approx(loss, abs=1e-5)) for step, loss in losses(whole)]
