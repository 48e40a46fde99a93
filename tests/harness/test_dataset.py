"""What is known of each data set without reading it."""

from pathlib import Path

import pytest

from harness import dataset
from harness.config import Data

SIZE = (8, 8)


def test_fashion_mnist_is_enlarged_above_its_side_only() -> None:
    data = Data(name="fashion_mnist", resolution=SIZE)
    assert dataset.facts(data).side == 32
    assert [dataset.upsampled(data, size) for size in ((32, 32), (32, 33), (48, 8))] == [0, 1, 1]


def test_glyphs_are_never_enlarged() -> None:
    data = Data(name="glyphs", resolution=SIZE)
    assert dataset.facts(data).classes == 44
    assert dataset.upsampled(data, (1024, 1024)) == 0
    dataset.check(data)


def test_a_folder_without_an_index_says_the_command(tmp_path: Path) -> None:
    data = Data(name="image_folder", folder=str(tmp_path), resolution=SIZE)
    for ask in (dataset.facts, dataset.check, lambda data: dataset.upsampled(data, SIZE)):
        with pytest.raises(dataset.DatasetError, match=f"python -m harness.folder {tmp_path}"):
            ask(data)


def test_every_name_has_facts_or_a_folder() -> None:
    for name in set(dataset.NAMES) - {"image_folder"}:
        assert len(dataset.facts(Data(name=name, resolution=SIZE)).digest) == 64
