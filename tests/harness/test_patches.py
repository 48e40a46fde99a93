"""Random crops: where they lie, that they are a function of the image's number, what they hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import draws
from harness.patches import corners, crops

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(size=sizes, first=st.integers(0, 10**6), count=st.integers(0, 5), data=st.data())
@settings(deadline=None)
def test_crops_lie_inside(size: tuple[int, int], first: int, count: int, data) -> None:
    side = data.draw(st.integers(1, min(size)))
    places = corners(first, count, size, side)
    assert places.dtype == np.int64
    assert places.shape == (count, 2)
    assert (places >= 0).all()
    assert (places + side <= np.array(size)).all()


@given(cut=st.integers(0, 20), first=st.integers(0, 100))
@settings(deadline=None, max_examples=20)
def test_a_corner_is_a_function_of_the_number_alone(cut: int, first: int) -> None:
    whole = corners(first, 20, (24, 18), 9)
    parts = [corners(first, cut, (24, 18), 9), corners(first + cut, 20 - cut, (24, 18), 9)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_corners_are_uniform_over_all_places() -> None:
    places = corners(0, 6000, (6, 4), 3)  # 4 x 2 places
    counts = np.bincount(places[:, 0] * 2 + places[:, 1], minlength=8)
    expected = 6000 / 8
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 24.3  # 7 degrees of freedom: above this by chance once in a thousand


def test_corners_come_from_the_projects_draws() -> None:
    top, left = draws.generator(0, "patch", 41).random(2)
    assert corners(41, 1, (30, 50), 10).tolist() == [[int(top * 21), int(left * 41)]]


@given(size=sizes, channels=st.sampled_from([1, 3]), first=st.integers(0, 1000), data=st.data())
@settings(deadline=None, max_examples=30)
def test_crops_are_the_images_own_pixels(size, channels: int, first: int, data) -> None:
    side = data.draw(st.integers(1, min(size)))
    pixels = torch.arange(3 * channels * size[0] * size[1]).reshape(3, channels, *size)
    cut = crops(pixels, first, side)
    assert cut.shape == (3, channels, side, side)
    for n, (top, left) in enumerate(corners(first, 3, size, side)):
        for y, x in ((0, 0), (side - 1, 0), (0, side - 1)):
            assert torch.equal(cut[n, :, y, x], pixels[n, :, top + y, left + x])


def test_a_crop_as_large_as_the_image_is_the_image() -> None:
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(crops(pixels, 5, 8), pixels)
    assert crops(pixels, 5, 8).dtype == torch.uint8


def test_no_images_no_crops() -> None:
    assert crops(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), 0, 4).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("side", [-1, 0, 9, 100])
def test_sides_that_do_not_fit_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match=f"side {side} out of images of 12x8"):
        corners(0, 1, (12, 8), side)
    with pytest.raises(ValueError, match=f"side {side} out of images of 12x8"):
        crops(torch.zeros(1, 1, 12, 8, dtype=torch.uint8), 0, side)
