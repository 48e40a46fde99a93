"""Training batches and references of every data set."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import folder
from harness.config import Augmentation, Data
from harness.data import Order, open_data, real_images, training_batch, unseen_images
from harness.images import area_resize, crop_windows, enlarge
from tests.real import FASHION, fashion

GLYPHS = Data(name="glyphs", resolution=(8, 8))
CROP = Augmentation(kind="resize_crop", max_scale=2)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """Forty noisy colour pictures of two classes and several sizes, indexed."""
    monkeypatch.setenv("RESOLUTE_DATA", str(tmp_path / "data"))
    draws = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "pictures" / f"class {i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (20 + i, 40, 3), np.uint8)).save(path)
    folder.index(tmp_path / "pictures")
    return Data(name="image_folder", folder=str(tmp_path / "pictures"), resolution=(8, 8))


def test_an_epoch_sees_each_image_once_whatever_the_batch() -> None:
    order = Order(seed=1, count=50)
    seen = torch.cat([order.batch(step, 8) for step in range(25)])  # 200 images: four epochs
    for epoch in range(4):
        assert sorted(seen[epoch * 50 : (epoch + 1) * 50].tolist()) == list(range(50))
    halves = torch.cat([Order(1, 50).batch(step, 4) for step in range(50)])
    assert torch.equal(seen, halves)


def test_any_step_can_be_had_alone() -> None:
    order = Order(seed=1, count=50)
    steps = [order.batch(step, 8) for step in range(20)]
    for step in (19, 6, 7, 0):
        assert torch.equal(Order(1, 50).batch(step, 8), steps[step])


def test_a_plain_batch_is_the_area_average() -> None:
    split = open_data(FASHION, "train")
    indices = torch.tensor([5, 100, 59_999])
    x, labels, crops = training_batch(split, indices, (12, 16), Augmentation(), 0, 0)
    whole = split.images(indices, (32, 32))
    assert torch.equal(x, area_resize(whole, (12, 16)) / 127.5 - 1)
    assert torch.equal(labels, split.labels[indices])
    assert crops.tolist() == [[0, 0, 1, 1]] * 3


@pytest.mark.parametrize("data", [FASHION, GLYPHS])
def test_an_augmented_batch_is_a_function_of_seed_and_step(data: Data) -> None:
    split, indices = open_data(data, "train"), torch.arange(16)
    x, _, crops = training_batch(split, indices, (12, 12), CROP, 0, 3)
    again, _, _ = training_batch(split, indices, (12, 12), CROP, 0, 3)
    other, _, _ = training_batch(split, indices, (12, 12), CROP, 0, 4)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert crops[:, 2].min() >= 1
    assert crops[:, 2].max() <= 2


def whole_then_cut(
    split: object, indices: torch.Tensor, size: tuple[int, int], draws: torch.Tensor
) -> torch.Tensor:
    """Each image at the size of its draw, then the window."""
    resized, corners, _ = crop_windows(size, (1024, 1024), draws, 2)
    windows = []
    for index, (r_h, r_w), (top, left) in zip(
        indices.split(1), resized.tolist(), corners.tolist(), strict=True
    ):
        image = split.images(index, (r_h, r_w))[0]  # type: ignore[attr-defined]
        windows.append(image[:, top : top + size[0], left : left + size[1]])
    return torch.stack(windows)


def test_a_cropped_glyph_is_the_window_of_the_whole() -> None:
    split, indices = open_data(GLYPHS, "train"), torch.arange(100, 144)
    draws = torch.rand(44, 3, generator=torch.Generator().manual_seed(0))
    cut, crops = split.cropped(indices, (12, 20), draws, 2)
    expected = whole_then_cut(split, indices, (12, 20), draws)
    assert len(crops.unique(dim=0)) > 40
    torch.testing.assert_close(cut, expected, rtol=0, atol=1.01)  # Agg's grid of 1/256


def test_a_cropped_picture_is_the_window_of_the_centre_crop(pictures: Data) -> None:
    split, indices = open_data(pictures, "train"), torch.arange(36)
    draws = torch.rand(36, 3, generator=torch.Generator().manual_seed(0))
    cut, _ = split.cropped(indices, (8, 12), draws, 2)
    assert torch.equal(cut, whole_then_cut(split, indices, (8, 12), draws))


def test_real_images_are_a_fixed_nested_subset(pictures: Data) -> None:
    for data, shape in ((FASHION, (1, 16, 16)), (GLYPHS, (3, 16, 16)), (pictures, (3, 16, 16))):
        blocks = [*real_images(data, "train", 30, (16, 16), 12)]
        assert [block.shape for block in blocks] == [(12, *shape), (12, *shape), (6, *shape)]
        more = torch.cat(blocks)
        assert more.dtype == torch.uint8
        assert torch.equal(torch.cat([*real_images(data, "train", 10, (16, 16))]), more[:10])
        assert len(np.unique(more.numpy(), axis=0)) == 30


def test_fashion_above_its_size_is_enlarged() -> None:
    split, indices = open_data(FASHION, "test"), torch.tensor([3, 4])
    assert torch.equal(
        split.images(indices, (48, 48)), enlarge(split.images(indices, (32, 32)), (48, 48))
    )


def test_unseen_images_are_in_no_reference(pictures: Data) -> None:
    few = unseen_images(FASHION, 30, 0, (8, 8))
    assert torch.equal(few, fashion("test", 30, (8, 8)))
    many = unseen_images(FASHION, 10_020, 200, (8, 8))
    assert torch.equal(many[:10_000], fashion("test", 10_000, (8, 8)))
    assert torch.equal(many[10_000:], fashion("train", 220, (8, 8))[200:])
    # Four of the forty pictures are held out; ten of the reference are passed over.
    some = unseen_images(pictures, 9, 10, (8, 8))
    reference = torch.cat([*real_images(pictures, "train", 15, (8, 8))])
    assert torch.equal(some[4:], reference[10:])


def test_there_are_two_splits() -> None:
    with pytest.raises(ValueError, match="got 'val'"):
        open_data(FASHION, "val")
