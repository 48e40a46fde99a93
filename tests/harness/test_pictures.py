"""Sets of images: ADM's crop against its own rule, folders as people have them, exports."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from harness import pictures
from harness.config import Data
from harness.dataset import DatasetError
from harness.errors import UserError
from harness.fashion_mnist import find
from harness.npz import NpzWriter
from harness.picture_files import PictureError, center_crop, files, look
from harness.pictures import ImageSet, from_dataset, from_folder, from_npz, write_png_folder
from tests.real import FASHION, fashion

Pixels = NDArray[np.uint8]


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    shape = (height, width, channels)[: 2 if channels == 1 else 3]
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> Pixels:
    """Colours without noise: what survives JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) % 256], -1).astype(np.uint8)


def put(folder: Path, name: str, pixels: Pixels, mode: str | None = None, **options: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def pixels_of(images: ImageSet, block: int = 3) -> Pixels:
    """All images, [N, H, W, C]; the blocks are as promised."""
    blocks = list(images.batches(block))
    assert all(len(part) == block for part in blocks[:-1])
    assert all(part.dtype == torch.uint8 for part in blocks)
    whole = torch.cat(blocks)
    assert whole.shape == (images.count, images.channels, *images.size)
    return whole.permute(0, 2, 3, 1).numpy()


def adm(pixels: Pixels, size: int) -> Pixels:
    """ADM's center_crop_arr, written from its description: the sizes first, then one go each."""
    sides = [pixels.shape[1], pixels.shape[0]]  # width, height
    picture = Image.fromarray(pixels)
    halvings = 0
    while min(sides) // 2**halvings >= 2 * size:
        halvings += 1
        picture = picture.resize([side // 2**halvings for side in sides], Image.Resampling.BOX)
    short = min(picture.size)
    fitted = [round(side * (size / short)) for side in picture.size]
    array = np.asarray(picture.resize(fitted, Image.Resampling.BICUBIC))
    top, left = (fitted[1] - size) // 2, (fitted[0] - size) // 2
    return array[top : top + size, left : left + size]


class TestCenterCrop:
    @settings(max_examples=80, deadline=None)
    @given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 40), st.sampled_from([1, 3]))
    def test_is_adms_for_squares(self, height: int, width: int, size: int, channels: int) -> None:
        pixels = noise(height, width, channels)
        cropped = np.asarray(center_crop(Image.fromarray(pixels), (size, size)))
        assert np.array_equal(cropped, adm(pixels, size))

    @settings(max_examples=80, deadline=None)
    @given(*[st.integers(1, 120)] * 2, *[st.integers(1, 40)] * 2)
    def test_any_shape_is_covered_and_never_stretched(
        self, height: int, width: int, h: int, w: int
    ) -> None:
        cropped = center_crop(Image.new("L", (width, height), 200), (h, w))
        assert cropped.size == (w, h)
        assert cropped.getextrema() == (200, 200)  # cutting beyond the border would add zeros

    def test_the_same_size_is_left_as_it_is(self) -> None:
        pixels = noise(9, 13)
        assert np.array_equal(np.asarray(center_crop(Image.fromarray(pixels), (9, 13))), pixels)

    def test_at_twice_the_size_it_is_the_box_filter(self) -> None:
        pixels = noise(8, 12, 1)
        cropped = np.asarray(center_crop(Image.fromarray(pixels), (4, 6)))
        means = pixels.reshape(4, 2, 6, 2).mean(axis=(1, 3))
        assert np.abs(cropped - means).max() <= 1  # Pillow rounds after each of the two axes

    def test_the_middle_is_kept(self) -> None:
        pixels = np.zeros((4, 12), np.uint8)
        pixels[:, 4:8] = 255
        assert (np.asarray(center_crop(Image.fromarray(pixels), (4, 4))) == 255).all()


class TestFolder:
    def test_sorted_by_path_with_folders_and_capitals(self, tmp_path: Path) -> None:
        names = ["B/a.png", "a.PNG", "b/0.png", "a/z.png", "Z.png", "a.b/x.png"]
        for seed, name in enumerate(names):
            put(tmp_path, name, noise(3, 4, seed=seed))
        images = from_folder(tmp_path)
        expected = [noise(3, 4, seed=names.index(name)) for name in sorted(names)]
        assert np.array_equal(pixels_of(images), np.stack(expected))
        assert images.describe == tmp_path.name
        assert images.facts == {"crop": "none", "upsampled": 0.0, "lossy": 0.0}

    @pytest.mark.parametrize("block", [1, 4, 5, 64])
    def test_the_block_changes_nothing(self, tmp_path: Path, block: int) -> None:
        for seed in range(9):
            put(tmp_path, f"{seed}.png", noise(3, 4, seed=seed))
        images = from_folder(tmp_path)
        assert np.array_equal(pixels_of(images, block), pixels_of(images))

    def test_stopping_early_leaves_no_thread(self, tmp_path: Path) -> None:
        for seed in range(9):
            put(tmp_path, f"{seed}.png", noise(3, 4, seed=seed))
        blocks = from_folder(tmp_path).batches(2)
        next(blocks)
        blocks.close()  # a thread that raised or lingered would be reported by pytest

    def test_cropped_to_a_size_with_the_enlarged_counted(self, tmp_path: Path) -> None:
        sizes = [(20, 30), (8, 8), (7, 40), (64, 9)]
        for seed, size in enumerate(sizes):
            put(tmp_path, f"{seed}.png", noise(*size, seed=seed))
        images = from_folder(tmp_path, (8, 8))
        expected = [adm(noise(*size, seed=seed), 8) for seed, size in enumerate(sizes)]
        assert np.array_equal(pixels_of(images), np.stack(expected))
        assert images.facts == {"crop": "adm-center-crop", "upsampled": 0.25, "lossy": 0.0}

    def test_the_formats_and_the_share_of_lossy_ones(self, tmp_path: Path) -> None:
        pixels = smooth(16, 24)
        for name in ("a.jpg", "b.JPEG", "c.webp", "d.bmp", "e.png"):
            put(tmp_path, name, pixels, quality=95)
        images = from_folder(tmp_path)
        found = pixels_of(images)
        assert images.facts["lossy"] == 3 / 5
        assert np.array_equal(found[3], pixels)
        assert np.array_equal(found[4], pixels)
        assert np.abs(found[0].astype(int) - pixels).mean() < 4

    def test_a_cameras_jpeg_with_a_second_picture_behind_it(self, tmp_path: Path) -> None:
        first, second = Image.fromarray(smooth(16, 24)), Image.new("RGB", (24, 16))
        options: dict[str, Any] = {"save_all": True, "append_images": [second], "quality": 95}
        first.save(tmp_path / "a.jpg", format="MPO", **options)
        images = from_folder(tmp_path)
        assert images.facts["lossy"] == 1
        assert np.abs(pixels_of(images)[0].astype(int) - smooth(16, 24)).mean() < 4

    def test_a_wrong_ending_does_not_matter(self, tmp_path: Path) -> None:
        """As one file of ImageNet: a PNG that is called .JPEG."""
        put(tmp_path, "a.png", noise(3, 4)).rename(tmp_path / "a.JPEG")
        images = from_folder(tmp_path)
        assert images.facts["lossy"] == 0
        assert np.array_equal(pixels_of(images)[0], noise(3, 4))

    def test_grey_stays_grey_where_all_are(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", noise(3, 4, 1))
        put(tmp_path, "b.png", noise(3, 4, 1, seed=1) > 127)  # one bit
        images = from_folder(tmp_path)
        assert images.channels == 1
        found = pixels_of(images)[..., 0]
        assert np.array_equal(found[0], noise(3, 4, 1))
        assert np.array_equal(found[1], (noise(3, 4, 1, seed=1) > 127) * 255)

    def test_grey_among_colour_has_three_equal_channels(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", noise(3, 4, 1))
        put(tmp_path, "b.png", noise(3, 4))
        found = pixels_of(from_folder(tmp_path))
        assert np.array_equal(found[0], np.repeat(noise(3, 4, 1)[..., None], 3, axis=2))
        assert np.array_equal(found[1], noise(3, 4))

    def test_palette_cmyk_and_opaque_alpha_become_colour(self, tmp_path: Path) -> None:
        pixels = np.repeat(noise(3, 4, 1)[..., None] // 51 * 51, 3, axis=2)
        put(tmp_path, "a.png", pixels, "P")
        put(tmp_path, "b.png", np.dstack([pixels, np.full((3, 4), 255, np.uint8)]))
        put(tmp_path, "c.jpg", smooth(3, 4), "CMYK")
        found = pixels_of(from_folder(tmp_path))
        assert np.array_equal(found[0], pixels)
        assert np.array_equal(found[1], pixels)

    def test_hidden_files_are_passed_over_and_links_followed(self, tmp_path: Path) -> None:
        put(tmp_path, "elsewhere/a.png", noise(3, 4))
        folder = tmp_path / "folder"
        put(folder, "b.png", noise(3, 4))
        (folder / ".DS_Store").touch()
        (folder / ".thumbnails").mkdir()
        (folder / ".thumbnails" / "b.txt").touch()
        (folder / "linked").symlink_to(tmp_path / "elsewhere")
        (folder / "loop").symlink_to(folder)
        assert from_folder(folder).count == 2

    def test_every_link_to_a_folder_is_followed_but_no_loop(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        put(folder, "m/a.png", noise(3, 4))
        put(folder, "m/deep/b.png", noise(3, 4))
        for link in ("a", "z", "m/deep/z"):  # before and after the folder itself
            (folder / link).symlink_to(folder / "m" if link != "m/deep/z" else folder / "m/deep")
        assert files(folder) == sorted(f"{x}/{n}" for x in "amz" for n in ("a.png", "deep/b.png"))

    def test_the_digest_follows_content_names_and_size(self, tmp_path: Path) -> None:
        for seed in range(3):
            put(tmp_path / "x", f"{seed}.png", noise(9, 9, seed=seed))
        digests = {from_folder(tmp_path / "x").digest, from_folder(tmp_path / "x", (4, 4)).digest}
        shutil.copytree(tmp_path / "x", tmp_path / "y")
        assert from_folder(tmp_path / "y").digest in digests  # another place, the same content
        (tmp_path / "y" / "0.png").rename(tmp_path / "y" / "9.png")
        digests.add(from_folder(tmp_path / "y").digest)
        put(tmp_path / "x", "1.png", noise(9, 9, seed=7))
        digests.add(from_folder(tmp_path / "x").digest)
        digests.add(from_folder(tmp_path / "x", count=2).digest)
        assert len(digests) == 5

    def test_progress_counts_files_and_may_stop(self, tmp_path: Path) -> None:
        for seed in range(3):
            put(tmp_path, f"{seed}.png", noise(9, 9, seed=seed))
        told: list[int] = []
        from_folder(tmp_path, progress=told.append)
        assert sum(told) == 3

        def stop(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            from_folder(tmp_path, progress=stop)


def transparent() -> Pixels:
    pixels = np.full((3, 4, 4), 255, np.uint8)
    pixels[1, 1, 3] = 254
    return pixels


def broken(folder: Path) -> None:
    path = put(folder, "bad.png", noise(64, 64))
    path.write_bytes(path.read_bytes()[:2000])


class TestRefused:
    @pytest.mark.parametrize(
        ("fill", "words"),
        [
            (lambda folder: None, "has no pictures"),
            (lambda folder: folder.rmdir(), "no such folder"),
            (lambda folder: (folder / "labels.txt").touch(), "1 files that are not.*labels.txt"),
            (lambda folder: (folder / "bad.jpg").write_bytes(b"text"), r"bad.jpg: .*no picture"),
            (lambda folder: (folder / "bad.png").touch(), "bad.png: is broken"),
            (broken, "bad.png: is broken"),
            (lambda folder: put(folder, "bad.png", transparent()), "bad.png: is transparent"),
            (
                lambda folder: put(folder, "bad.png", noise(3, 4, 1).astype(np.uint16) * 257),
                "bad.png: has more than 8 bits",
            ),
            (lambda folder: (folder / "bad.png").mkdir(), "has no pictures"),
        ],
    )
    def test_a_folder_that_cannot_be_used(
        self, tmp_path: Path, fill: Callable[[Path], object], words: str
    ) -> None:
        folder = tmp_path / "x"
        folder.mkdir()
        fill(folder)
        with pytest.raises(PictureError, match=words):
            list(from_folder(folder, (8, 8)).batches(4))

    @pytest.mark.parametrize("name", ["bad.png", "bad.jpg", "bad.webp", "bad.bmp"])
    def test_a_picture_that_breaks_off(self, tmp_path: Path, name: str) -> None:
        path = put(tmp_path, name, noise(40, 64))
        whole = look(path, decode=True)
        assert whole == look(path)
        assert whole.size == (40, 64)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
        with pytest.raises(PictureError, match=f"{name}: is broken"):
            look(path, decode=True)

    def test_colour_of_16_bits(self, tmp_path: Path) -> None:
        """Pillow would read it, and drop the lower 8 bits without a word."""
        header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)  # width, height, bits, colour, ...
        rows = zlib.compress(3 * (b"\0" + bytes(4 * 3 * 2)))
        content = b"\x89PNG\r\n\x1a\n"
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            content += struct.pack(">I", len(data)) + kind + data
            content += struct.pack(">I", zlib.crc32(kind + data))
        (tmp_path / "bad.png").write_bytes(content)
        with Image.open(tmp_path / "bad.png") as picture:
            assert picture.convert("RGB").size == (4, 3)
        with pytest.raises(PictureError, match=r"bad.png: has more than 8 bits"):
            from_folder(tmp_path)

    def test_a_palette_with_a_transparent_colour(self, tmp_path: Path) -> None:
        put(tmp_path, "bad.png", noise(3, 4, 1), "P", transparency=int(noise(3, 4, 1)[0, 0]))
        with pytest.raises(PictureError, match=r"bad.png: is transparent"):
            from_folder(tmp_path)

    def test_several_sizes_name_two_files(self, tmp_path: Path) -> None:
        for name, size in (("a.png", (3, 4)), ("b.png", (3, 4)), ("c.png", (4, 3))):
            put(tmp_path, name, noise(*size))
        with pytest.raises(PictureError, match=r"a.png is 3x4, c.png is 4x3; give a resolution"):
            from_folder(tmp_path)

    def test_more_than_there_are(self, tmp_path: Path) -> None:
        put(tmp_path, "a.png", noise(3, 4))
        with pytest.raises(PictureError, match="asked for 2 images; there are 1"):
            from_folder(tmp_path, count=2)

    @pytest.mark.parametrize("after", [lambda path: put(path.parent, "a.png", noise(5, 5)),
                                       lambda path: path.unlink()])  # fmt: skip
    def test_a_picture_that_changes_in_use(
        self, tmp_path: Path, after: Callable[[Path], object]
    ) -> None:
        path = put(tmp_path, "a.png", noise(3, 4))
        images = from_folder(tmp_path)
        after(path)
        with pytest.raises(PictureError, match=r"a.png: (is another file|cannot be read)"):
            list(images.batches(2))


def written(path: Path, count: int, size: int = 4) -> NDArray[np.uint8]:
    pixels = np.stack([noise(size, size, seed=seed) for seed in range(count)])
    with NpzWriter(path, count, (size, size), 3) as writer:
        writer.write(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return pixels


class TestNpz:
    def test_all_of_it(self, tmp_path: Path) -> None:
        pixels = written(tmp_path / "x.npz", 10)
        images = from_npz(tmp_path / "x.npz")
        assert np.array_equal(pixels_of(images), pixels)
        assert images.describe == "x.npz"
        assert from_npz(tmp_path / "x.npz", 10).digest == images.digest

    @pytest.mark.parametrize("block", [1, 3, 100])
    def test_a_subset_is_a_fixed_draw_in_order(self, tmp_path: Path, block: int) -> None:
        pixels = written(tmp_path / "x.npz", 50)
        images = from_npz(tmp_path / "x.npz", 20)
        found = pixels_of(images, block)
        places = [int(np.flatnonzero((pixels == image).all((1, 2, 3)))[0]) for image in found]
        assert places == sorted(set(places))
        assert places[-1] > 30  # not the first 20, which are often of one class
        assert np.array_equal(found, pixels_of(from_npz(tmp_path / "x.npz", 20)))
        assert images.digest != from_npz(tmp_path / "x.npz").digest

    def test_another_size_than_asked_for(self, tmp_path: Path) -> None:
        written(tmp_path / "x.npz", 2)
        assert pictures.from_path(tmp_path / "x.npz", (4, 4)).count == 2
        with pytest.raises(PictureError, match="has images of 4x4, asked for 8x4"):
            pictures.from_path(tmp_path / "x.npz", (8, 4))


class TestSubsets:
    def test_a_folder_and_a_file_of_the_same_images_draw_the_same(self, tmp_path: Path) -> None:
        pixels = written(tmp_path / "x.npz", 50)
        write_png_folder(tmp_path / "x", [torch.from_numpy(pixels).permute(0, 3, 1, 2)])
        folder = pixels_of(pictures.from_path(tmp_path / "x", count=20))
        assert np.array_equal(folder, pixels_of(pictures.from_path(tmp_path / "x.npz", count=20)))

    def test_the_images_of_some_indices(self, tmp_path: Path) -> None:
        pixels = written(tmp_path / "x.npz", 30)
        images = from_npz(tmp_path / "x.npz")
        rows = images.drawn(11)
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert rows[-1] > 15
        found = torch.cat(list(images.only(rows))).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(found, pixels[rows])
        assert images.drawn(30).tolist() == list(range(30))

    def test_blocks_are_bounded_in_bytes(self) -> None:
        def sized(side: int, channels: int = 3) -> int:
            return ImageSet("", "", 1, (side, side), channels, lambda _: iter(())).block

        assert sized(32) == pictures.BLOCK_IMAGES
        assert 200 < sized(300) < 300
        assert sized(10_000) == 1


class TestDataset:
    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        try:
            find()
        except DatasetError as error:
            pytest.skip(str(error))

    def test_is_the_fixed_subset(self) -> None:
        images = from_dataset(FASHION, "train", 30, (12, 8))
        expected = fashion("train", 30, (12, 8)).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(pixels_of(images, 7), expected)
        assert images.drawn(5).tolist() == [0, 1, 2, 3, 4]  # the order is random already

    def test_its_digest_names_content_split_size_and_count(self) -> None:
        sets = [("train", 30, (12, 8)), ("test", 30, (12, 8)), ("train", 31, (12, 8)),
                ("train", 30, (8, 12)), ("train", None, (12, 8))]  # fmt: skip
        digests = {from_dataset(FASHION, *each).digest for each in sets}  # type: ignore[arg-type]
        assert len(digests) == len(sets)

    def test_above_its_own_size_it_is_enlarged_and_says_so(self) -> None:
        images = from_dataset(FASHION, "train", 3, (48, 48))
        assert images.facts["upsampled"] == 1
        assert pixels_of(images).shape == (3, 48, 48, 1)
        assert from_dataset(FASHION, "train", 3, (32, 32)).facts["upsampled"] == 0

    def test_glyphs_are_drawn_in_blocks(self) -> None:
        images = from_dataset(Data(name="glyphs", resolution=(8, 8)), "test", 10, (12, 16))
        assert [len(block) for block in images.batches(4)] == [4, 4, 2]
        assert images.channels == 3
        assert images.facts == {"crop": "drawn", "upsampled": 0, "lossy": 0}

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("train", 60_001, (8, 8)), "it has 60000"),
            (("test", 10_001, (8, 8)), "it has 10000"),
            (("train", 0, (8, 8)), "0 images"),
        ],
    )
    def test_what_there_is_not(self, arguments: tuple[Any, ...], words: str) -> None:
        with pytest.raises(UserError, match=words):
            from_dataset(FASHION, *arguments)


class TestPngFolder:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pixels_are_exact_and_names_in_order(self, tmp_path: Path, channels: int) -> None:
        images = torch.randint(0, 256, (12, channels, 5, 4), dtype=torch.uint8)
        assert write_png_folder(tmp_path / "x", images.split(5)) == 12
        names = sorted(path.name for path in (tmp_path / "x").iterdir())
        assert names[0] == "000000.png"
        assert names[-1] == "000011.png"
        with Image.open(tmp_path / "x" / "000000.png") as picture:
            assert picture.mode == ("L" if channels == 1 else "RGB")
        found = from_folder(tmp_path / "x")
        assert np.array_equal(pixels_of(found), images.permute(0, 2, 3, 1).numpy())

    def test_nothing_is_left_of_a_failed_one(self, tmp_path: Path) -> None:
        def failing() -> Any:
            yield torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
            raise KeyError

        with pytest.raises(KeyError):
            write_png_folder(tmp_path / "x", failing())
        with pytest.raises(ValueError, match="0 images"):
            write_png_folder(tmp_path / "x", [])
        with pytest.raises(ValueError, match="expected uint8"):
            write_png_folder(tmp_path / "x", [torch.zeros(2, 3, 4, 4)])
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_with_something_in_it_is_refused(self, tmp_path: Path) -> None:
        put(tmp_path / "x", "a.png", noise(3, 4))
        with pytest.raises(PictureError, match="is not empty"):
            write_png_folder(tmp_path / "x", [torch.zeros(1, 1, 4, 4, dtype=torch.uint8)])
        (tmp_path / "empty").mkdir()
        assert write_png_folder(tmp_path / "empty", [torch.zeros(1, 1, 4, 4).byte()]) == 1
