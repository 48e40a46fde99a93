"""A batch's folder: what was submitted, its job's id, and what was taken out of it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.launch.batch import Batch, batches, job_name, new_batch_id, read_batch, write_batch
from harness.launch.processes import Work


def written(outputs: Path, elements: int = 1, **more: Any) -> Batch:
    works = [[Work(outputs / "runs" / f"r{n}", ("e",)), Work(outputs / "runs" / "s")]
             for n in range(elements)]  # fmt: skip
    facts: dict[str, Any] = {"ablation": "my ablation", "snapshot": Path("/code"), "profile": {}}
    facts |= {"job": {"cpus": 2}, "parameters": {"time": 5}, "python": ["python3"], "at_once": 2}
    return write_batch(outputs, elements=works, **facts | more)


def test_a_batch_is_read_as_it_was_written(tmp_path: Path) -> None:
    batch = read_batch(written(tmp_path, 2).folder)
    assert batch.folder == tmp_path / "slurm" / batch.batch_id
    assert batch.elements[1] == [Work(tmp_path / "runs" / "r1", ("e",)), Work(tmp_path / "runs/s")]
    assert (batch.job, batch.parameters, batch.at_once) == ({"cpus": 2}, {"time": 5}, 2)
    assert (batch.snapshot, batch.python, batch.ablation) == (
        Path("/code"), ["python3"], "my ablation",
    )  # fmt: skip
    assert batch.follows == []
    assert batch.name == f"my_ablation-{batch.batch_id}"


def test_outputs_may_move(tmp_path: Path) -> None:
    batch_id = written(tmp_path / "old").batch_id
    (tmp_path / "old").rename(tmp_path / "new")
    (moved,) = batches(tmp_path / "new")
    assert moved.batch_id == batch_id
    assert moved.elements[0][0].run_dir == tmp_path / "new" / "runs" / "r0"


def test_ids_of_the_elements(tmp_path: Path) -> None:
    array, plain = written(tmp_path, 3), written(tmp_path, 1)
    assert array.job_id is None
    assert array.element_id(2) is None
    array.set_job_id("123")
    plain.set_job_id("124")
    assert [array.element_id(2), plain.element_id(0)] == ["123_2", "124"]


def test_marks(tmp_path: Path) -> None:
    batch = written(tmp_path)
    assert not batch.abandoned
    assert not batch.cancelled("r0")
    batch.abandon()
    batch.cancel("r0")
    assert batch.abandoned
    assert batch.cancelled("r0")
    assert not batch.cancelled("r1")


def test_all_batches_oldest_first_without_half_written_ones(tmp_path: Path) -> None:
    assert batches(tmp_path) == []
    made = [written(tmp_path) for _ in range(4)]
    (tmp_path / "slurm" / new_batch_id()).mkdir()
    assert batches(tmp_path) == made


def test_a_damaged_or_copied_batch_is_said(tmp_path: Path) -> None:
    batch = written(tmp_path)
    shutil.copytree(batch.folder, batch.folder.with_name("copy"))
    with pytest.raises(UserError, match=r"copy: is not the folder of batch"):
        batches(tmp_path)
    shutil.rmtree(batch.folder.with_name("copy"))
    (batch.folder / "batch.json").write_text('{"batch_id": ')
    with pytest.raises(UserError, match=r"batch\.json: is damaged"):
        batches(tmp_path)


@pytest.mark.parametrize("name", ["a/../b", "x y;rm -rf ~", "-n", "naïve\n", "q" * 300, ""])
def test_a_jobs_name_is_safe(name: str) -> None:
    made = job_name(name, "0123456789ab")
    assert made.endswith("-0123456789ab")
    assert len(made) <= 33
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in made)
    assert not made.startswith("-")


def test_batch_ids_differ() -> None:
    assert len({new_batch_id() for _ in range(1000)}) == 1000
    assert all(len(bytes.fromhex(new_batch_id())) == 6 for _ in range(10))
