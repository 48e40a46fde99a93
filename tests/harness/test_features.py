"""What the extractors see, against the models themselves and torch-fidelity's own pipeline.

Inception and DINOv2 have tests of their own, where their networks are.
"""

import dataclasses
import importlib
from pathlib import Path

import pytest
import torch
import torch_fidelity
from torch.utils.data import Dataset

from harness import extractors, features, images, metrics, small_cnn
from harness.dataset import DatasetError
from harness.patches import crops
from tests.real import fashion


class Pictures(Dataset):
    """What torch-fidelity takes: single images uint8 `[3, H, W]`."""

    def __init__(self, grey: torch.Tensor) -> None:
        self.grey = grey

    def __len__(self) -> int:
        return len(self.grey)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.grey[index].repeat(3, 1, 1)


def blobs(count: int, seed: int, brightness: float) -> torch.Tensor:
    """Smooth random pictures, so that the two sets overlap and differ."""
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=draws) * brightness
    return (torch.nn.functional.interpolate(coarse, (18, 18), mode="bilinear") * 255).byte()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return features.load("fashion-cnn")


def test_same_values_as_torch_fidelity(model: torch.nn.Module) -> None:
    generated, real = blobs(300, 0, 1.0), blobs(300, 1, 0.8)
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(generated),
        input2=Pictures(real),
        feature_extractor="fashion-cnn",
        isc=True,
        fid=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        batch_size=100,
    )
    a, b = features.see(model, generated), features.see(model, real)
    one, two = metrics.moments(a["features"]), metrics.moments(b["features"])
    fid = metrics.frechet_distance(one.mean, one.covariance, two.mean, two.covariance)
    assert fid == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert fid > 0.1
    score = metrics.inception_score(a["logits"])
    assert score == pytest.approx(theirs["inception_score_mean"], rel=1e-6)


def test_see_is_the_model_in_batches(model: torch.nn.Module) -> None:
    pictures = blobs(50, 2, 1.0)
    expected = small_cnn.load(extractors.facts("fashion-cnn").weights)(pictures)
    for batch in (1, 7, 256):
        seen = features.see(model, pictures, batch=batch)
        assert seen.keys() == expected.keys()
        for view, values in seen.items():
            torch.testing.assert_close(values, expected[view], rtol=1e-5, atol=1e-4)


def test_patch_is_the_crops_by_number_in_the_set(model: torch.nn.Module) -> None:
    pictures = blobs(30, 3, 1.0)
    whole = features.see(model, pictures, patch=7)
    expected = model(crops(pictures, 0, 7))["features"]
    torch.testing.assert_close(whole["patch"], expected, rtol=1e-5, atol=1e-4)
    # A shard from number 11 on, in batches of another size, meets the same crops.
    shard = features.see(model, pictures[11:], patch=7, first=11, batch=4)
    torch.testing.assert_close(shard["patch"], whole["patch"][11:], rtol=1e-5, atol=1e-4)
    elsewhere = features.see(model, pictures[11:], patch=7, first=0)
    assert not torch.allclose(elsewhere["patch"], whole["patch"][11:], atol=1e-2)


def test_patches_see_the_detail_that_is_missing(model: torch.nn.Module) -> None:
    """Real images that went through half their size: further from the floor by their crops."""
    try:
        real = fashion("train", 2000, (24, 24))
        held_out = fashion("test", 600, (24, 24))
        source = fashion("test", 600, (32, 32)).float()
    except DatasetError as error:
        pytest.skip(str(error))
    halved = images.area_resize(source, (12, 12)).round()
    enlarged = images.resize(halved, (24, 24)).round().clamp(0, 255).to(torch.uint8)
    seen = [features.see(model, x, patch=12) for x in (real, held_out, enlarged)]
    ratio = {}
    for view in ("features", "patch"):
        truth, floor, missing = (metrics.moments(x[view]) for x in seen)
        distance = [
            metrics.frechet_distance(x.mean, x.covariance, truth.mean, truth.covariance)
            for x in (floor, missing)
        ]
        ratio[view] = distance[1] / distance[0]
    assert ratio["features"] < 8  # 6 here
    assert ratio["patch"] > 2 * ratio["features"]  # 22 here


def test_see_repeats_bit_for_bit(model: torch.nn.Module) -> None:
    pictures = blobs(50, 3, 1.0)
    first, again = (features.see(model, pictures, patch=9, batch=16) for _ in range(2))
    assert all(torch.equal(first[view], again[view]) for view in first)


def test_facts_are_true(model: torch.nn.Module) -> None:
    known = extractors.facts("fashion-cnn")
    seen = features.see(model, blobs(2, 4, 1.0), patch=9)
    shapes = {view: tuple(values.shape) for view, values in seen.items()}
    assert shapes == {
        "features": (2, known.features),
        "logits": (2, known.classes),
        "spatial": (2, known.spatial),
        "patch": (2, known.features),
    }
    assert all(values.dtype == torch.float32 for values in seen.values())
    assert known.side == small_cnn.INPUT_SIZE
    seen["features"].requires_grad_().sum().backward()  # no tensor of inference mode gets out


def test_every_extractor_has_facts() -> None:
    assert features.LOADERS.keys() == extractors.FACTS.keys()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(2, 1, 8, 8), "torch.float32, expected uint8"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), r"\[2, 2, 8, 8\], expected"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), r"\[2, 8, 8\], expected"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), r"\[0, 1, 8, 8\], expected"),
    ],
)
def test_see_refuses(model: torch.nn.Module, pictures: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features.see(model, pictures)


def test_crops_larger_than_the_images(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="side 19 out of images of 18x18"):
        features.see(model, blobs(2, 0, 1.0), patch=19)


def test_unknown_names_and_missing_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(extractors.ExtractorError, match="there are: fashion-cnn"):
        features.load("inception")
    monkeypatch.setenv("RESOLUTE_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("inception-v3-compat", "dinov2"):
        monkeypatch.delenv(str(extractors.facts(name).variable), raising=False)
        with pytest.raises(extractors.ExtractorError, match=f"put it into {tmp_path}"):
            features.load(name)


def test_damaged_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = extractors.facts("fashion-cnn")
    damaged = dataclasses.replace(known, weights=tmp_path / "w.safetensors")
    monkeypatch.setitem(extractors.FACTS, "fashion-cnn", damaged)
    whole = known.weights.read_bytes()
    for content in (b"", whole[:1000], whole[:-1]):
        damaged.weights.write_bytes(content)
        with pytest.raises(extractors.ExtractorError, match="does not hold the weights of fashion"):
            features.load("fashion-cnn")


def test_importing_again_registers_once() -> None:
    importlib.reload(features)
    seen = features.see(features.load("fashion-cnn"), blobs(1, 0, 1.0))
    assert seen["logits"].shape == (1, 10)
