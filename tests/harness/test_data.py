import numpy as np
import torch

from harness.config import Augmentation
from harness.data import Order, open_split, real_images, training_batch, unseen_images
from harness.images import area_resize


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
    images = open_split("train")
    indices = torch.tensor([5, 100, 59_999])
    x, labels, crops = training_batch(images, indices, (12, 16), Augmentation(), 0, 0)
    expected = area_resize(images.pixels[indices].float(), (12, 16)) / 127.5 - 1
    assert torch.equal(x, expected)
    assert torch.equal(labels, images.labels[indices])
    assert crops.tolist() == [[0, 0, 1, 1]] * 3


def test_an_augmented_batch_is_a_function_of_seed_and_step() -> None:
    images, indices = open_split("train"), torch.arange(16)
    augmentation = Augmentation(kind="resize_crop", max_scale=2)
    x, _, crops = training_batch(images, indices, (12, 12), augmentation, 0, 3)
    again, _, _ = training_batch(images, indices, (12, 12), augmentation, 0, 3)
    other, _, _ = training_batch(images, indices, (12, 12), augmentation, 0, 4)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert crops[:, 2].min() >= 1
    assert crops[:, 2].max() <= 2


def test_real_images_are_a_fixed_nested_subset() -> None:
    more = real_images("test", 40, (16, 16))
    assert more.shape == (40, 1, 16, 16)
    assert torch.equal(real_images("test", 10, (16, 16)), more[:10])
    assert len(np.unique(real_images("train", 200, (32, 32)).numpy(), axis=0)) == 200


def test_unseen_images_are_in_no_reference() -> None:
    few = unseen_images(30, 0, (8, 8))
    assert torch.equal(few, real_images("test", 30, (8, 8)))
    many = unseen_images(10_020, 200, (8, 8))
    assert torch.equal(many[:10_000], real_images("test", 10_000, (8, 8)))
    assert torch.equal(many[10_000:], real_images("train", 220, (8, 8))[200:])
