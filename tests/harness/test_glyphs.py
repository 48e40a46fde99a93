"""Glyphs: the same scene at every size, always the same scenes."""

from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
import torch

from harness import glyphs, outlines
from harness.facts import DatasetError
from harness.images import area_resize


@pytest.mark.parametrize("size", [(12, 12), (16, 24), (32, 32), (48, 20)])
def test_a_render_is_the_area_average_of_a_larger_one(size: tuple[int, int]) -> None:
    """880 scenes at 12 to 64: 0.06 of 255 on average at 12, 0.02 at 64, never above 2.4."""
    small = glyphs.render("train", range(220), size)
    for times in (2, 3):
        large = glyphs.render("train", range(220), (times * size[0], times * size[1]))
        away = np.abs(area_resize(torch.from_numpy(large), size).numpy() - small)
        assert away.max() < 3
        assert away.mean() < 0.15


def test_coverage_is_exact() -> None:
    """A rectangle over parts of pixels, and a hole in it."""
    square = np.array([[0.25, 0.5], [3.0, 0.5], [3.0, 3.0], [0.25, 3.0]])
    hole = np.array([[1.0, 1.0], [1.0, 2.0], [2.0, 2.0], [2.0, 1.0]])
    drawn = glyphs._Canvas(4, 4).coverage([square, hole]) / 255
    rows, columns = np.array([0, 1, 1, 0.5]), np.array([0.75, 1, 1, 0])
    expected = np.outer(rows, columns)
    expected[2, 1] = 0
    np.testing.assert_allclose(drawn, expected, atol=1 / 255)


def test_a_window_is_cut_out_of_the_whole() -> None:
    whole, corners = np.array([[40, 56]] * 44), np.array([[7, 30]] * 44)
    cut = glyphs.render("test", range(44), (24, 16), whole, corners)
    expected = glyphs.render("test", range(44), (40, 56))[:, :, 7:31, 30:46]
    assert np.abs(cut - expected).max() <= 1.01


def test_scenes_depend_on_split_and_index_alone() -> None:
    some = glyphs.render("train", [50, 3, 40_000], (16, 16))
    np.testing.assert_array_equal(glyphs.render("train", [3], (16, 16))[0], some[1])
    assert not np.array_equal(glyphs.render("test", [3], (16, 16))[0], some[1])
    assert not np.array_equal(glyphs.render("train", [3 + 44], (16, 16))[0], some[1])


def test_threads_do_not_see_each_other() -> None:
    parts = [range(start, start + 20) for start in range(0, 400, 20)]
    with ThreadPoolExecutor(4) as pool:
        drawn = np.concatenate(
            [*pool.map(lambda part: glyphs.render("train", part, (9, 9)), parts)]
        )
    np.testing.assert_array_equal(drawn, glyphs.render("train", range(400), (9, 9)))


def test_scenes_fit_their_picture_and_can_be_seen() -> None:
    for index in range(440):
        scene = glyphs.scene("train", index)
        points = np.concatenate(scene.polygons)
        assert points.min() >= 0.019
        assert points.max() <= 0.981
        assert scene.colours.min() >= 0
        assert scene.colours.max() <= 255
        assert np.abs(scene.colours[0] - scene.colours[1]).max() > 40


def test_every_character_is_in_every_font() -> None:
    """No face falls back on a box for a missing character: 36 outlines that all differ."""
    for font in range(len(outlines.FONTS)):
        found = {outlines.outline(label, font)[0].tobytes() for label in range(36)}
        assert len(found) == 36
        assert not any("LastResort" in name for name in outlines.FONTS)


@pytest.mark.parametrize("label", range(len(outlines.CLASSES)))
def test_an_outline_is_of_unit_size_and_a_stroke_goes_around_it(label: int) -> None:
    polygons = outlines.outline(label, 0)
    size = np.ptp(np.concatenate(polygons), axis=0)
    assert size.max() == pytest.approx(1)
    assert size.min() > 0.2 or outlines.CLASSES[label] == "I"
    wider = np.ptp(np.concatenate(outlines.stroked(polygons, 0.1)), axis=0)
    assert np.all(wider >= size + 0.04)
    assert np.all(wider <= size + 0.1 * 2.1)  # mitred corners stand out


@pytest.mark.parametrize(("label", "font"), [(7, 11), (35, 0), (40, 3)])
def test_the_digest_sees_every_outline(
    label: int, font: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = outlines.outline

    def moved(a_label: int, a_font: int) -> outlines.Polygons:
        first, *others = real(a_label, a_font)
        return [first + 2e-4 * ((a_label, a_font) == (label, font)), *others]

    monkeypatch.setattr(glyphs, "outline", moved)
    assert glyphs.digest() != glyphs.FACTS.digest
    monkeypatch.setattr(glyphs, "outline", lambda *which: [p + 1e-10 for p in real(*which)])
    assert glyphs.digest() == glyphs.FACTS.digest  # the last bits are the machine's


def test_the_digest_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert glyphs.digest() == glyphs.FACTS.digest
    glyphs.check.cache_clear()
    monkeypatch.setattr(glyphs, "_SEED", 1)
    with pytest.raises(DatasetError, match=f"with matplotlib {matplotlib.__version__}"):
        glyphs.check()
    glyphs.check.cache_clear()
