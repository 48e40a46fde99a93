"""Reference statistics: equal to np.cov over the whole set, kept whole, never silently wrong."""

import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from harness import extractors, features, pictures, reference
from harness.dataset import DatasetError
from harness.fashion_mnist import find
from harness.npz import NpzBatch, NpzWriter
from harness.npz_arrays import file_sha256, write_arrays
from harness.pictures import ImageSet, from_npz, write_png_folder
from harness.provenance import seeing_id
from harness.reference import Reference, WrongReferenceError, build, cached, from_adm
from harness.reference_file import is_reference, load, read, save, sha256_of

CNN = "fashion-cnn"
Edit = Callable[[dict[str, Any], dict[str, Any]], object]


class Plain(nn.Module):
    """Features that are exact, so that where blocks are cut shows in the statistics alone."""

    def __init__(self, width: int = 9, spatial: int = 0, broken: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 256), requires_grad=False)
        self.width, self.spatial, self.broken = width, spatial, broken

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        values = images.float().flatten(1) * self.scale  # [B, C h w]
        values = values.repeat(1, -(-max(self.width, self.spatial) // values.shape[1]))
        if self.broken:
            values[-1] = torch.nan
        seen = {"features": values[:, : self.width]}
        return seen | ({"spatial": values[:, : self.spatial]} if self.spatial else {})


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    return features.load(CNN)


def noise(count: int, channels: int = 1, side: int = 12) -> Tensor:
    shape = (count, channels, side, side)
    values = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(values)


def image_set(images: Tensor, shuffled: bool = True) -> ImageSet:
    size = (images.shape[2], images.shape[3])
    return ImageSet(
        "noise", "d", len(images), size, images.shape[1], lambda n: iter(images.split(n)), {},
        shuffled,
    )  # fmt: skip


def batch_file(path: Path, images: Tensor, **arrays: Any) -> Path:
    size = (images.shape[2], images.shape[3])
    with NpzWriter(path, len(images), size, images.shape[1], arrays) as writer:
        writer.write(images)
    return path


@pytest.fixture(scope="module")
def made(cnn: nn.Module) -> Reference:
    return build(image_set(noise(80)), CNN, 20, 6, cnn)


def same(a: Reference, b: Reference) -> bool:
    return (
        (a.extractor, a.facts, dict(a.counts)) == (b.extractor, b.facts, dict(b.counts))
        and all(np.array_equal(a.mean[view], b.mean[view]) for view in a.mean)
        and all(np.array_equal(a.covariance[view], b.covariance[view]) for view in a.mean)
        and a.mean.keys() == b.mean.keys()
        and (a.manifold is b.manifold is None or torch.equal(a.manifold, b.manifold))  # type: ignore[arg-type]
        and a.radii.keys() == b.radii.keys()
        and all(np.array_equal(a.radii[k], b.radii[k]) for k in a.radii)
    )


class TestBuild:
    def test_equals_numpy_over_the_whole_set(self, cnn: nn.Module, made: Reference) -> None:
        seen = features.see(cnn, noise(80), patch=6)
        assert set(made.mean) == {"features", "spatial", "patch"}
        for view in made.mean:
            values = seen[view].double().numpy()
            assert np.allclose(made.mean[view], values.mean(axis=0), rtol=1e-12, atol=1e-12)
            expected = np.cov(values, rowvar=False)
            assert np.allclose(made.covariance[view], expected, rtol=1e-9, atol=1e-12)
            assert made.counts[view] == 80
        assert made.manifold is not None
        assert torch.equal(made.manifold, seen["features"][:20])

    @pytest.mark.parametrize("block", [1, 2, 7, 64])
    def test_the_block_changes_nothing(self, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
        images = image_set(noise(65), shuffled=False)
        whole = build(images, CNN, 30, 5, Plain())
        monkeypatch.setattr(pictures, "BLOCK_IMAGES", block)
        cut = build(images, CNN, 30, 5, Plain())
        for view in ("features", "patch"):
            assert np.abs(cut.mean[view] - whole.mean[view]).max() < 1e-12
            assert np.abs(cut.covariance[view] - whole.covariance[view]).max() < 1e-12
        assert whole.manifold is not None
        assert cut.manifold is not None
        assert torch.equal(cut.manifold, whole.manifold)
        assert cut.facts == whole.facts

    def test_no_more_than_a_few_blocks_are_held(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pictures, "BLOCK_IMAGES", 10)
        alive, most = 0, 0

        def gone() -> None:
            nonlocal alive
            alive -= 1

        def blocks(size: int) -> Iterator[Tensor]:
            nonlocal alive, most
            assert size == 10
            for _ in range(30):
                block = noise(size)
                weakref.finalize(block, gone)
                alive += 1
                most = max(most, alive)
                yield block
                del block

        build(ImageSet("x", "d", 300, (12, 12), 1, blocks), CNN, 0, None, Plain())
        assert most <= 2

    def test_the_manifold_of_sorted_images_is_drawn(self) -> None:
        images = image_set(noise(60), shuffled=False)
        found = build(images, CNN, 25, None, Plain()).manifold
        assert found is not None
        everything = features.see(Plain(), noise(60))["features"]
        places = [int((everything == row).all(1).nonzero()[0, 0]) for row in found]
        assert places == sorted(set(places))
        assert places[-1] > 30

    def test_radii_are_distances_to_the_kth_other(self, made: Reference) -> None:
        assert made.manifold is not None
        values = made.manifold.double().numpy()
        between = np.linalg.norm(values[:, None] - values[None], axis=2)
        assert made.radii.keys() == {3, 5}
        for k, found in made.radii.items():
            assert np.allclose(found, np.sort(between, axis=1)[:, k])

    def test_a_small_set_has_a_small_manifold_and_fewer_radii(self) -> None:
        found = build(image_set(noise(5)), CNN, 100, None, Plain())
        assert found.facts["manifold"] == 5
        assert found.radii.keys() == {3}
        assert found.mean.keys() == {"features"}

    def test_no_manifold(self) -> None:
        found = build(image_set(noise(5)), CNN, 0, None, Plain())
        assert found.manifold is None
        assert found.radii == {}

    def test_facts_say_what_it_is(self, made: Reference) -> None:
        assert made.facts == {
            "format": 1, "source": "noise", "digest": "d", "resolution": [12, 12], "channels": 1,
            "images": 80, "manifold": 20, "patch": 6, "extractor": CNN,
            "extractor_sha256": extractors.weights_sha256(CNN), "features_code": seeing_id(),
        }  # fmt: skip
        assert made.facts == reference.facts_of(image_set(noise(80)), CNN, 20, 6)

    def test_progress_counts_images_and_may_stop(self) -> None:
        told: list[int] = []
        build(image_set(noise(30)), CNN, 0, None, Plain(), told.append)
        assert sum(told) == 30

        def stop(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build(image_set(noise(30)), CNN, 0, None, Plain(), stop)

    @pytest.mark.parametrize(
        ("images", "patch", "model", "words"),
        [
            (image_set(noise(1)), None, Plain(), r"at least 2 are needed, and more than 64"),
            (image_set(noise(4)), 13, Plain(), "crops of 13 pixels do not fit 12x12; at most 12"),
            (image_set(noise(4)), 0, Plain(), "crops of 0 pixels"),
            (image_set(noise(4)), None, Plain(broken=True), "images 0 to 3: .*not finite"),
            (replace(image_set(noise(4)), count=5), None, Plain(), "4 images came of 5"),
        ],
    )
    def test_refused(self, images: ImageSet, patch: int, model: nn.Module, words: str) -> None:
        with pytest.raises(WrongReferenceError, match=words):
            build(images, CNN, 2, patch, model)


class TestFile:
    @pytest.mark.parametrize("ending", ["safetensors", "npz"])
    def test_round_trip(self, tmp_path: Path, made: Reference, ending: str) -> None:
        path = tmp_path / "new" / f"x.{ending}"
        save(made, path)
        assert same(load(path, CNN), made)
        assert is_reference(path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        plain = replace(made, manifold=None, radii={}, facts=made.facts | {"manifold": 0})
        save(plain, path)
        assert same(load(path, CNN), plain)

    @pytest.mark.parametrize("ending", ["safetensors", "npz"])
    def test_two_builds_give_the_same_bytes(
        self, tmp_path: Path, cnn: nn.Module, ending: str
    ) -> None:
        paths = [tmp_path / f"{name}.{ending}" for name in "ab"]
        for path in paths:
            save(build(image_set(noise(80)), CNN, 20, 6, cnn), path)
        assert file_sha256(paths[0]) == file_sha256(paths[1])

    def test_another_ending(self, tmp_path: Path, made: Reference) -> None:
        with pytest.raises(WrongReferenceError, match=r"ends in .safetensors or .npz, not .pkl"):
            save(made, tmp_path / "x.pkl")

    def test_an_npz_of_the_standard_extractor_is_adms_batch(self, tmp_path: Path) -> None:
        """What guided-diffusion's evaluator asks of it: arr_0, mu, sigma, mu_s, sigma_s."""
        known = extractors.facts(extractors.STANDARD)
        images = image_set(noise(12), shuffled=False)
        model = Plain(known.features, known.spatial)
        built = build(images, CNN, 5, None, model)
        built = replace(
            built,
            extractor=extractors.STANDARD,
            facts=built.facts | {"extractor": extractors.STANDARD},
        )
        path = tmp_path / "x.npz"
        save(built, path, images)
        with np.load(path, allow_pickle=False) as found:
            assert np.array_equal(found["mu"], built.mean["features"])
            assert np.array_equal(found["sigma"], built.covariance["features"])
            assert np.array_equal(found["mu_s"], built.mean["spatial"])
            assert np.array_equal(found["sigma_s"], built.covariance["spatial"])
            expected = noise(12)[torch.from_numpy(images.drawn(5))].permute(0, 2, 3, 1)
            assert np.array_equal(found["arr_0"], np.repeat(expected.numpy(), 3, axis=3))
        assert same(read(path), built)
        batch = NpzBatch(path)
        assert set(batch.statistics()) == {"mu", "sigma", "mu_s", "sigma_s"}

    def test_another_extractor(self, tmp_path: Path, made: Reference) -> None:
        save(made, tmp_path / "x.safetensors")
        words = r"holds features of fashion-cnn, asked for dinov2; .*python -m harness.reference"
        with pytest.raises(WrongReferenceError, match=words):
            load(tmp_path / "x.safetensors", "dinov2")

    @pytest.mark.parametrize(
        ("fact", "words"),
        [
            ({"extractor_sha256": "0" * 64}, "other weights of fashion-cnn .*0000000000000000"),
            ({"features_code": "0" * 16}, "is stale: .*0000000000000000.*noise, 12x12"),
            ({"format": 2}, "newer version"),
            ({"extractor": "vgg"}, "holds features of 'vgg'; there are: fashion-cnn"),
        ],
    )
    def test_foreign_and_stale(
        self, tmp_path: Path, made: Reference, fact: dict[str, Any], words: str
    ) -> None:
        path = tmp_path / "x.safetensors"
        save(replace(made, facts=made.facts | fact), path)
        with pytest.raises(WrongReferenceError, match=words) as caught:
            load(path, CNN)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("ending", ["safetensors", "npz"])
    def test_truncated_or_changed_anywhere(
        self, tmp_path: Path, made: Reference, ending: str
    ) -> None:
        path = tmp_path / f"x.{ending}"
        save(made, path)
        whole = path.read_bytes()
        for place in {0, 1, 7, 8, 9, 500, *range(2000, len(whole), len(whole) // 17)}:
            path.write_bytes(whole[:place])
            with pytest.raises(WrongReferenceError, match=f"x.{ending}: "):
                read(path)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            try:
                assert same(read(path), made)  # a zip's time stamps may say what they like
            except WrongReferenceError:
                continue

    @pytest.mark.parametrize(
        "edit",
        [
            lambda facts, arrays: facts.pop("digest"),
            lambda facts, arrays: facts.update(counts=[80]),
            lambda facts, arrays: facts.update(counts={"logits": 80}),
            lambda facts, arrays: facts.update(counts={}),
            lambda facts, arrays: facts.update(manifold="20"),
            lambda facts, arrays: facts.update(manifold=19),
            lambda facts, arrays: facts.update(resolution=[12]),
            lambda facts, arrays: facts.update(patch=0),
            lambda facts, arrays: arrays.pop("mean.patch"),
            lambda facts, arrays: arrays.pop("manifold"),
            lambda facts, arrays: arrays.update(more=np.zeros(3)),
            lambda facts, arrays: arrays.update({"radii.3": np.zeros(19)}),
            lambda facts, arrays: arrays.update({"radii.x": np.zeros(20)}),
            lambda facts, arrays: arrays.update({"mean.patch": np.zeros(63)}),
            lambda facts, arrays: arrays.update({"mean.patch": np.zeros(64, np.float32)}),
            lambda facts, arrays: arrays.update({"covariance.patch": np.ones((64, 63))}),
            lambda facts, arrays: arrays["mean.patch"].fill(np.nan),
            lambda facts, arrays: arrays["manifold"].fill(np.inf),
            lambda facts, arrays: arrays["covariance.patch"][0].fill(7),
        ],
    )
    @pytest.mark.parametrize("ending", ["safetensors", "npz"])
    def test_contents_that_do_not_fit_are_damage(
        self, tmp_path: Path, made: Reference, edit: Edit, ending: str
    ) -> None:
        """Also where the checksum was made to fit."""
        path = tmp_path / f"x.{ending}"
        save(made, tmp_path / "sound.safetensors")
        with safe_open(tmp_path / "sound.safetensors", "numpy") as file:
            facts = json.loads(file.metadata()["facts"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        edit(facts, arrays)
        facts.pop("sha256", None)
        facts["sha256"] = sha256_of(facts, arrays)
        if ending == "npz":
            write_arrays(path, arrays | {"facts": np.array(json.dumps(facts))})
        else:
            save_file(arrays, path, {"facts": json.dumps(facts)})
        with pytest.raises(WrongReferenceError, match="is damaged") as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["", "no json", "[]", "7", "null", '{"format": 1}'])
    def test_facts_that_are_none(self, tmp_path: Path, text: str) -> None:
        save_file({"x": np.zeros(3)}, tmp_path / "x.safetensors", {"facts": text})
        with pytest.raises(WrongReferenceError, match="is damaged"):
            read(tmp_path / "x.safetensors")

    def test_other_files(self, tmp_path: Path, made: Reference) -> None:
        save(made, tmp_path / "made.safetensors")
        save_file({"x": np.zeros(3)}, tmp_path / "weights.safetensors")
        batch_file(tmp_path / "batch.npz", noise(3))
        (tmp_path / "folder.safetensors").mkdir()
        for name, words in (
            ("mad.safetensors", r"no such file; did you mean 'made.safetensors'"),
            ("weights.safetensors", "is no reference"),
            ("batch.npz", "is no reference"),
            ("folder.safetensors", "cannot be read|is damaged"),
            ("missing.npz", "no such file"),
        ):
            with pytest.raises(WrongReferenceError, match=words):
                read(tmp_path / name)
        assert not is_reference(tmp_path / "batch.npz")


class TestCached:
    def test_is_built_once(self, tmp_path: Path, made: Reference) -> None:
        builds: list[int] = []

        def counted() -> Reference:
            builds.append(1)
            return made

        for _ in range(3):
            assert same(cached(tmp_path, made.facts, counted), made)
        assert len(builds) == 1
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:5000])
        assert same(cached(tmp_path, made.facts, counted), made)
        assert len(builds) == 2
        for change in ({"features_code": "old"}, {"digest": "of other images"}, {"images": 3}):
            save(replace(made, facts=made.facts | change), file)
            assert same(cached(tmp_path, made.facts, counted), made)
            assert same(read(file), made)
        assert len(builds) == 5


@pytest.fixture
def standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The field's own extractor, with a file of weights that only has to be there."""
    name = extractors.STANDARD
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    known = extractors.facts(name)
    small = replace(known, sha256=None, features=6, spatial=4)
    monkeypatch.setitem(extractors.FACTS, name, small)
    monkeypatch.setenv(str(known.variable), str(weights))
    return name


class TestAdm:
    MU: dict[str, Any] = {"mu": np.arange(6.0), "sigma": np.eye(6) * 2}  # noqa: RUF012
    MU_S: dict[str, Any] = {"mu_s": np.ones(4), "sigma_s": np.eye(4) * 3}  # noqa: RUF012

    def test_takes_the_stored_statistics(self, tmp_path: Path, standard: str) -> None:
        path = batch_file(tmp_path / "x.npz", noise(12, 3), **self.MU, **self.MU_S)
        model = Plain(6, 4)
        found = from_adm(NpzBatch(path), standard, 5, model, 10)
        assert np.array_equal(found.mean["features"], self.MU["mu"])
        assert np.array_equal(found.covariance["features"], self.MU["sigma"])
        assert np.array_equal(found.mean["spatial"], self.MU_S["mu_s"])
        assert np.array_equal(found.covariance["spatial"], self.MU_S["sigma_s"])
        assert dict(found.counts) == {"features": None, "spatial": None, "patch": 12}
        assert found.facts["stored"] == ["mu", "sigma", "mu_s", "sigma_s"]
        assert found.facts["ignored"] == []
        assert found.facts["digest"] == file_sha256(path)
        measured = build(from_npz(path), standard, 10, 5, model)
        assert np.array_equal(found.mean["patch"], measured.mean["patch"])
        assert found.manifold is not None
        assert measured.manifold is not None
        assert torch.equal(found.manifold, measured.manifold)
        save(found, tmp_path / "ours.safetensors")
        assert same(load(tmp_path / "ours.safetensors", standard), found)

    def test_without_spatial_ones(self, tmp_path: Path, standard: str) -> None:
        path = batch_file(tmp_path / "x.npz", noise(12, 3), **self.MU)
        found = from_adm(NpzBatch(path), standard, None, Plain(6, 4))
        assert dict(found.counts) == {"features": None, "spatial": 12}
        assert found.facts["stored"] == ["mu", "sigma"]
        assert found.facts["manifold"] == 12

    def test_without_any(self, tmp_path: Path, standard: str) -> None:
        path = batch_file(tmp_path / "x.npz", noise(12, 3))
        found = from_adm(NpzBatch(path), standard, None, Plain(6, 4))
        measured = build(from_npz(path), standard, 12, None, Plain(6, 4))
        assert np.array_equal(found.covariance["features"], measured.covariance["features"])
        assert dict(found.counts) == {"features": 12, "spatial": 12}

    def test_another_extractor_measures_the_images(self, tmp_path: Path, cnn: nn.Module) -> None:
        path = batch_file(tmp_path / "x.npz", noise(12, 3), **self.MU)
        found = from_adm(NpzBatch(path), CNN, None, cnn)
        assert found.counts["features"] == 12
        assert found.facts["stored"] == []
        assert found.facts["ignored"] == ["mu", "sigma"]

    def test_another_width(self, tmp_path: Path, standard: str) -> None:
        arrays = {"mu": np.zeros(7), "sigma": np.eye(7)}
        path = batch_file(tmp_path / "x.npz", noise(12, 3), **arrays)
        with pytest.raises(WrongReferenceError, match=r"mu has 7 values, .* gives 6"):
            from_adm(NpzBatch(path), standard, None, Plain(6, 4))

    def test_as_samples_the_file_is_its_images(self, tmp_path: Path) -> None:
        """ADM's own evaluator would take mu here, and find any file perfect against itself."""
        plain = batch_file(tmp_path / "x.npz", noise(12, 3))
        carrying = batch_file(tmp_path / "y.npz", noise(12, 3), **self.MU)
        found = [build(from_npz(path), CNN, 5, None, Plain()) for path in (plain, carrying)]
        assert np.array_equal(found[0].covariance["features"], found[1].covariance["features"])


class TestCommand:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_png_folder(tmp_path / "pics", noise(70).split(16))
        return tmp_path / "pics"

    def run(self, *arguments: object) -> int:
        return reference.main([str(argument) for argument in arguments])

    def test_pictures_once_and_not_again(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = ("--images", folder, "--resolution", "8x10", "--extractors", CNN)
        assert self.run(*ask) == 0
        path = Path(f"pics-8x10-{CNN}.safetensors")
        told = capsys.readouterr().out
        for words in (
            str(path),
            "70 images of pics at 8x10",
            "manifold of 70",
            "sha256",
            "crops of 4",
        ):
            assert words in told
        found = load(path, CNN)
        assert found.facts["resolution"] == [8, 10]
        assert found.facts["crop"] == "adm-center-crop"
        monkeypatch.setattr(reference, "build", None)  # would fail if it were called
        assert self.run(*ask) == 0
        assert "is there already" in capsys.readouterr().out

    def test_another_output_stays_unless_forced(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ask = ("--images", folder, "--extractors", CNN, "--output", "x.npz", "--patch", 0)
        assert self.run(*ask) == 0
        assert load(Path("x.npz"), CNN).mean.keys() == {"features", "spatial"}
        assert self.run(*ask, "--count", 66) == 2
        told = capsys.readouterr().err
        assert "x.npz: is there already, of other digest, images, manifold, source" in told
        assert load(Path("x.npz"), CNN).facts["images"] == 70
        assert self.run(*ask, "--count", 66, "--force") == 0
        assert load(Path("x.npz"), CNN).facts["images"] == 66

    def test_npz_and_few_images(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        batch_file(tmp_path / "b.npz", noise(60, 3))
        assert self.run("--images", "b.npz", "--extractors", CNN, "--manifold", 10) == 0
        assert "TOO FEW for a covariance of full rank: more than 64" in capsys.readouterr().out
        assert read(Path(f"b-12x12-{CNN}.safetensors")).facts["manifold"] == 10

    def test_a_data_set(self) -> None:
        try:
            find()
        except DatasetError as error:
            pytest.skip(str(error))
        ask = ("--data", "fashion_mnist", "--resolution", 8, "--count", 90, "--extractors", CNN)
        assert self.run(*ask, "--split", "test") == 0
        found = read(Path(f"fashion_mnist-test-90-8x8-{CNN}.safetensors"))
        assert found.facts["source"] == "fashion_mnist test"
        assert found.facts["crop"] == "area"

    def test_glyphs_have_their_own_extractor(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run("--data", "glyphs", "--resolution", 12, "--count", 70) == 0
        found = read(Path("glyphs-train-70-12x12-glyph-cnn.safetensors"))
        assert found.facts["channels"] == 3
        assert found.facts["crop"] == "drawn"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--images", "nowhere.npz"), "no such file"),
            (("--images", "pics", "--count", 71), "asked for 71 images; there are 70"),
            (("--images", "pics", "--patch", 13), "crops of 13 pixels do not fit"),
            (("--images", "pics", "--output", "x.pkl"), "must end in .safetensors or .npz"),
            (("--images", "pics", "--device", "tpu9"), "cannot be used here"),
            (
                ("--images", "pics", "--output", "x.npz", "--extractors", CNN, "dinov2"),
                "names one file",
            ),
            (("--images", "pics", "--extractors", "fashion-cn"), "did you mean 'fashion-cnn'"),
            (("--data", "fashion_mnist"), "--data needs --resolution"),
            (("--data", "fashion", "--resolution", "8"), "no data set 'fashion'"),
            (("--data", "glyphs", "--resolution", "64", "--folder", "f"), "nothing else has one"),
            (("--data", "image_folder", "--resolution", "8"), "needs --folder FOLDER"),
            (
                ("--data", "image_folder", "--folder", "pics", "--resolution", "8"),
                "python -m harness.folder",
            ),
        ],
    )
    def test_mistakes_are_told(
        self,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        arguments: tuple[object, ...],
        words: str,
    ) -> None:
        for variable in ("RESOLUTE_INCEPTION_WEIGHTS", "RESOLUTE_DINOV2_WEIGHTS"):
            monkeypatch.setenv(variable, str(tmp_path / "none.pth"))
        chosen = () if "--extractors" in arguments else ("--extractors", CNN)
        assert self.run(*arguments, *chosen) == 2
        told = capsys.readouterr().err
        assert words in told
        assert "Traceback" not in told
        assert [path.name for path in tmp_path.iterdir()] == ["pics"]

    def test_missing_weights_are_told_before_the_pictures_are_read(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RESOLUTE_INCEPTION_WEIGHTS", "/nowhere/none.pth")
        assert self.run("--images", "pics") == 2
        assert "/nowhere/none.pth" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [("--resolution", "8x8x8"), ("--resolution", "x"),
                                           ("--count", "0"), ("--patch", "-1")])  # fmt: skip
    def test_numbers_that_are_none(
        self, arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            self.run("--images", "x", *arguments)
        assert caught.value.code == 2
        assert f"got '{arguments[1]}'" in capsys.readouterr().err
