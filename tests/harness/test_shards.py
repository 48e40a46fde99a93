from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.shards import Shards, pixels_sha256, samples_sha256


def written(folder: Path, *ranges: range, key: str = "mine") -> Shards:
    shards = Shards(folder, key)
    for indices in ranges:
        rows = torch.arange(indices.start, indices.stop, dtype=torch.float32)
        images = torch.stack([torch.full((1, 2, 2), i % 256, dtype=torch.uint8) for i in indices])
        shards.write(indices, {"x/features": rows[:, None], "sha256": pixels_sha256(images)})
    return shards


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 5))
def test_ranks_share_all_the_samples_and_none_twice(samples: int, batch: int, ranks: int) -> None:
    todo = Shards(Path("/nowhere"), "").missing(samples, batch)
    assert [i for part in todo for i in part] == list(range(samples))
    assert all(len(part) <= batch and part.start % batch == 0 for part in todo)
    shares = [todo[rank::ranks] for rank in range(ranks)]
    assert sorted((part for share in shares for part in share), key=lambda r: r.start) == todo


def test_what_is_there_is_not_made_again_whatever_the_batch(tmp_path: Path) -> None:
    shards = written(tmp_path, range(16, 32), range(40, 48))
    assert shards.missing(60, 16) == [range(16), range(32, 40), range(48, 60)]
    assert shards.missing(60, 10) == [
        range(10), range(10, 16), range(32, 40), range(48, 58), range(58, 60)
    ]  # fmt: skip


def test_arrays_come_back_in_order_shard_by_shard(tmp_path: Path) -> None:
    shards = written(tmp_path, range(20, 30), range(10), range(10, 20))
    blocks = list(shards.read("x/features"))
    assert [len(block) for block in blocks] == [10, 10, 10]
    assert torch.cat(blocks)[:, 0].tolist() == list(range(30))
    assert list(shards.read("x/logits")) == []


def test_shards_of_something_else_go(tmp_path: Path) -> None:
    written(tmp_path, range(10), range(20, 30), key="of other code")
    shards = written(tmp_path, range(10, 20))
    assert shards.missing(30, 10) == [range(10), range(20, 30)]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("keep", [0, 5, 100])
def test_a_cut_off_shard_is_made_again(tmp_path: Path, keep: int) -> None:
    shards = written(tmp_path, range(10), range(10, 20))
    file = sorted(tmp_path.iterdir())[0]
    file.write_bytes(file.read_bytes()[:keep])
    assert shards.missing(20, 10) == [range(10)]


def test_a_bit_that_flipped_makes_a_shard_anew(tmp_path: Path) -> None:
    shards = written(tmp_path, range(10), range(10, 20))
    file = sorted(tmp_path.iterdir())[1]
    content = bytearray(file.read_bytes())
    content[-7] ^= 4
    file.write_bytes(content)
    assert shards.missing(20, 10) == [range(10, 20)]


def test_a_shard_under_another_name_is_none(tmp_path: Path) -> None:
    shards = written(tmp_path, range(10))
    (file,) = tmp_path.iterdir()
    (tmp_path / "00000010-00000020.safetensors").write_bytes(file.read_bytes())
    assert shards.missing(20, 10) == [range(10, 20)]


def test_overlapping_shards_leave_each_sample_once(tmp_path: Path) -> None:
    shards = written(tmp_path, range(10), range(5, 15), range(15, 20))
    assert shards.missing(20, 10) == [range(10, 15)]


def test_one_hash_for_the_same_images_in_other_ranges(tmp_path: Path) -> None:
    one = written(tmp_path / "a", range(10), range(10, 30))
    other = written(tmp_path / "b", range(25), range(25, 30))
    assert samples_sha256(one) == samples_sha256(other)
    different = written(tmp_path / "c", range(29))
    assert samples_sha256(different) != samples_sha256(one)


def test_removing_leaves_no_trace(tmp_path: Path) -> None:
    shards = written(tmp_path / "features" / "abc", range(10))
    shards.remove()
    assert list(tmp_path.iterdir()) == []
    shards.remove()
