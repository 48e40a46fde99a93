"""Resizing against PIL and against the definition; the augmentation as a pure function."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness import fashion_mnist, images
from harness.facts import DatasetError


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 255


def pil_box(image: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Exact area average of `[H, W]` by PIL: enlarge h-fold (w-fold), then BOX at integer ratios.

    BOX straight away would take a border pixel whole or not at all where the ratio is no integer.
    """
    height, width = image.shape
    h, w = size
    picture = Image.fromarray(image.numpy())
    picture = picture.resize((width * w, height * h), Image.Resampling.NEAREST)
    return np.asarray(picture.resize((w, h), Image.Resampling.BOX))


def test_load_pads_the_published_images() -> None:
    try:
        folder = fashion_mnist.find()
    except DatasetError as error:
        pytest.skip(str(error))
    pixels, labels = images.load(folder, "test")
    published, published_labels = fashion_mnist.read(folder, "test")
    assert pixels.shape == (10_000, 1, 32, 32)
    assert pixels.dtype == torch.uint8
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(pixels[:, 0, 2:30, 2:30], published)
    np.testing.assert_array_equal(labels, published_labels)
    assert int(pixels.sum(dtype=torch.int64)) == int(published.sum(dtype=np.int64))  # zeros around


def test_every_grey_survives_both_ways() -> None:
    greys = torch.arange(256, dtype=torch.uint8)
    floats = images.to_float(greys)
    assert floats.min() == -1
    assert floats.max() == 1
    assert torch.equal(images.to_uint8(floats), greys)


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-7.0, -1.0, 0.4 / 127.5 - 1, 0.6 / 127.5 - 1, 1.0, 7.0])
    assert images.to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_to_uint8_refuses_what_is_no_grey(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        images.to_uint8(torch.tensor([0.0, bad]))


@pytest.mark.parametrize("size", [(16, 16), (8, 16), (4, 2), (1, 1)])
def test_area_resize_is_pils_box_at_integer_ratios(size: tuple[int, int]) -> None:
    image = noise(32, 32)
    expected = Image.fromarray(image.numpy()).resize(size[::-1], Image.Resampling.BOX)
    ours = images.area_resize(image[None, None], size)[0, 0]
    np.testing.assert_allclose(ours, np.asarray(expected), rtol=1e-6)


def test_area_resize_is_pils_box_on_uint8_within_its_rounding() -> None:
    image = noise(32, 32).to(torch.uint8)
    expected = Image.fromarray(image.numpy()).resize((16, 16), Image.Resampling.BOX)
    ours = images.area_resize(image[None, None].float(), (16, 16))[0, 0]
    # PIL rounds after its rows and again after its columns: half a grey each.
    np.testing.assert_allclose(ours, np.asarray(expected), rtol=0, atol=1)


@given(
    before=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    share=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_area_resize_is_the_area_average(
    before: tuple[int, int], share: tuple[float, float], seed: int
) -> None:
    after = (max(1, int(before[0] * share[0])), max(1, int(before[1] * share[1])))
    image = noise(*before, seed=seed)
    ours = images.area_resize(image[None, None], after)[0, 0]
    np.testing.assert_allclose(ours, pil_box(image, after), rtol=2e-6, atol=1e-4)


@given(size=st.integers(1, 32), position=st.integers(0, 6), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_area_resize_does_not_see_the_batch(size: int, position: int, seed: int) -> None:
    batch = noise(7, 2, 32, 32, seed=seed)
    together = images.area_resize(batch, (size, 33 - size))
    alone = images.area_resize(batch[position : position + 1].clone(), (size, 33 - size))
    assert torch.equal(together[position], alone[0])


def test_area_resize_keeps_its_size_and_refuses_to_enlarge() -> None:
    image = noise(2, 1, 20, 30)
    assert torch.equal(images.area_resize(image, (20, 30)), image)
    for size in [(21, 30), (20, 31), (0, 30)]:
        with pytest.raises(ValueError, match="only shrinks"):
            images.area_resize(image, size)
    with pytest.raises(ValueError, match=r"not torch\.uint8"):
        images.area_resize(image.byte(), (10, 10))


def test_enlarging_is_the_cubic_convolution_of_keys() -> None:
    before, after, a = 12, 24, -0.75
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((after, before))
    for tap in range(-1, 3):
        x = np.abs(centres - (first + tap))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        weight = np.where(x <= 1, near, far)
        np.add.at(matrix, (np.arange(after), (first + tap).clip(0, before - 1)), weight)
    image = noise(before, before).double()
    expected = matrix @ image.numpy() @ matrix.T
    np.testing.assert_allclose(images.resize(image[None, None], (after, after))[0, 0], expected)


def pillow(image: torch.Tensor, size: tuple[int, int], kind: str) -> np.ndarray:
    filters = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
    return np.asarray(Image.fromarray(image.numpy()).resize(size[::-1], filters[kind]))


@pytest.mark.parametrize("size", [(24, 36), (9, 15), (30, 7), (20, 16)])
def test_lanczos_is_pillows(size: tuple[int, int]) -> None:
    batch = noise(2, 3, 20, 16)
    resized = images.resize(batch, size, "lanczos")
    assert resized.dtype == torch.float32
    for b, c in [(0, 0), (0, 2), (1, 1)]:
        np.testing.assert_array_equal(resized[b, c], pillow(batch[b, c], size, "lanczos"))


def test_bicubic_shrinks_with_antialiasing() -> None:
    batch = noise(2, 3, 20, 16)
    small = images.resize(batch, (9, 7), "bicubic")
    np.testing.assert_allclose(small[1, 2], pillow(batch[1, 2], (9, 7), "bicubic"), rtol=1e-4)
    # One axis up and one down: each as it is alone.
    mixed = images.resize(batch, (9, 24), "bicubic")
    torch.testing.assert_close(
        mixed, images.resize(images.resize(batch, (20, 24)), (9, 24)), rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("kind", ["bicubic", "lanczos"])
def test_resize_keeps_its_size_and_does_not_see_the_batch(kind) -> None:
    batch = noise(7, 1, 12, 16)
    assert torch.equal(images.resize(batch, (12, 16), kind), batch)
    for size in [(24, 24), (6, 8)]:
        together = images.resize(batch, size, kind)
        assert torch.equal(images.resize(batch[3:4].clone(), size, kind)[0], together[3])


uniforms = st.lists(
    st.tuples(*[st.floats(0, 1, exclude_max=True, width=32)] * 3), min_size=1, max_size=9
)


@given(rows=uniforms, max_scale=st.floats(1, 4), size=st.sampled_from([(12, 12), (9, 17)]))
@settings(max_examples=60, deadline=None)
def test_resize_crop_is_resize_then_slice(
    rows: list[tuple[float, float, float]], max_scale: float, size: tuple[int, int]
) -> None:
    batch = noise(len(rows), 1, 32, 32).to(torch.uint8)
    result, crops = images.resize_crop(batch, size, torch.tensor(rows), max_scale)
    assert result.shape == (len(rows), 1, *size)
    h, w = size
    for image, cut, row, (u, v, t) in zip(batch, result, crops, rows, strict=True):
        scale = min(1 + u * (max_scale - 1), 32 / h, 32 / w)
        r_h, r_w = (int(np.floor(side * scale + 0.5)) for side in size)
        top, left = int(v * (r_h - h + 1)), int(t * (r_w - w + 1))
        assert 0 <= top <= r_h - h
        assert 0 <= left <= r_w - w
        expected = images.area_resize(image[None].float(), (r_h, r_w))[0]
        assert torch.equal(cut, expected[:, top : top + h, left : left + w])
        torch.testing.assert_close(row, torch.tensor([top / h, left / w, r_h / h, r_w / w]))


@given(
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    limit=st.tuples(st.integers(64, 1024), st.integers(64, 1024)),
    max_scale=st.floats(1, 20),
)
@settings(max_examples=60, deadline=None)
def test_crop_windows_keep_the_aspect(
    size: tuple[int, int], limit: tuple[int, int], max_scale: float
) -> None:
    uniform = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    resized, _, _ = images.crop_windows(size, limit, uniform, max_scale)
    assert (resized >= torch.tensor(size)).all()
    assert (resized <= torch.tensor(limit)).all()
    off = resized[:, 0] * size[1] - resized[:, 1] * size[0]  # each side is rounded by at most 1/2
    assert (off.abs() <= sum(size) / 2).all()


@given(size=st.integers(1, 256), more=st.integers(0, 800), max_scale=st.floats(1, 20))
@settings(max_examples=100, deadline=None)
def test_square_crop_windows_stay_what_they_were(size: int, more: int, max_scale: float) -> None:
    """Before both axes had one scale, each side was cut off at the limit: the same for squares."""
    uniform = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    limit = size + more
    resized, corner, crops = images.crop_windows((size, size), (limit, limit), uniform, max_scale)
    scale = 1 + uniform[:, :1].double() * (max_scale - 1)
    old = (size * scale + 0.5).floor().long().clamp(max=limit).expand(-1, 2)
    assert torch.equal(resized, old)
    assert torch.equal(corner, (uniform[:, 1:].double() * (old - size + 1)).floor().long())
    assert torch.equal(crops, torch.cat([corner / size, old / size], 1).float())


def test_resize_crop_does_not_see_the_batch() -> None:
    uniform = torch.rand(64, 3, generator=torch.Generator().manual_seed(1))
    batch = noise(64, 1, 32, 32)
    together, crops = images.resize_crop(batch, (12, 12), uniform, 2.0)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))[:33]
    some, some_crops = images.resize_crop(batch[order], (12, 12), uniform[order], 2.0)
    assert torch.equal(some, together[order])
    assert torch.equal(some_crops, crops[order])


def test_resize_crop_reaches_every_place() -> None:
    values = torch.linspace(0, 1 - 2**-24, 40)
    uniform = torch.stack([torch.full_like(values, 1 - 2**-24), values, values.flip(0)], dim=1)
    _, crops = images.resize_crop(noise(40, 1, 32, 32), (12, 12), uniform, 1.25)
    assert (crops[:, 2:] * 12).unique().tolist() == [15.0]
    for column in (0, 1):
        assert (crops[:, column] * 12).round().unique().tolist() == [0.0, 1.0, 2.0, 3.0]


def test_resize_crop_without_scale_only_resizes() -> None:
    batch = noise(5, 1, 32, 32)
    result, crops = images.resize_crop(batch, (12, 12), torch.rand(5, 3), max_scale=1)
    assert torch.equal(result, images.area_resize(batch, (12, 12)))
    assert crops.tolist() == [list(images.NEUTRAL_CROP)] * 5


@pytest.mark.parametrize(
    ("size", "shape", "max_scale", "message"),
    [
        ((33, 12), (2, 3), 2.0, "cannot crop"),
        ((12, 12), (2, 2), 2.0, "uniform has shape"),
        ((12, 12), (2, 3), 0.5, "max_scale is 0.5"),
        ((12, 12), (2, 3), float("nan"), "max_scale is nan"),
    ],
)
def test_resize_crop_refuses(size, shape, max_scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        images.resize_crop(noise(2, 1, 32, 32), size, torch.zeros(shape), max_scale)


def test_enlarged_images_keep_their_range_and_do_not_see_the_batch() -> None:
    batch = noise(5, 1, 32, 32)
    large = images.enlarge(batch, (48, 64))
    assert large.shape == (5, 1, 48, 64)
    assert large.min() >= 0
    assert large.max() <= 255
    assert torch.equal(large, images.resize(batch, (48, 64)).clamp(0, 255))
    assert torch.equal(images.enlarge(batch[3:4].clone(), (48, 64))[0], large[3])
    # An axis that shrinks is averaged, and only the other one enlarged.
    mixed = images.enlarge(batch, (8, 48))
    assert torch.equal(
        mixed, images.resize(images.area_resize(batch, (8, 32)), (8, 48)).clamp(0, 255)
    )
