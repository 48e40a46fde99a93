"""Inception with random weights, against torch-fidelity's own and against its blocks run by hand.

The published weights are not at hand in a test; everything but their values is the real thing.
"""

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from harness import evaluate, extractors, features, inception

NAME = "inception-v3-compat"
BEFORE = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1",
    "Conv2d_4a_3x3", "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b",
    "Mixed_6c",
)  # fmt: skip


class Unloaded(FeatureExtractorInceptionV3):
    """The network as it is before any weights are loaded."""

    def load_state_dict(self, *_: object) -> None:
        """Leaves the initial weights."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the published one is, with random weights that keep the activations alive."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Unloaded(NAME, ["2048"], feature_extractor_weights_path=str(path))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.05)
                module.running_var.uniform_(0.05, 0.2)
                module.bias.normal_(0, 0.2)
    torch.save(network.state_dict(), path)
    return path


def known(path: Path) -> extractors.Facts:
    """Inception's facts with the hash of `path`."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return dataclasses.replace(extractors.facts(NAME), sha256=digest[:8])


@pytest.fixture(scope="module")
def model(weights: Path) -> Iterator[torch.nn.Module]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(extractors.FACTS, NAME, known(weights))
        patch.setenv("RESOLUTE_INCEPTION_WEIGHTS", str(weights))
        yield features.load(NAME)


def pictures(count: int, channels: int, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    shape = (count, channels, *size)
    return torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)


def rounding(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def test_features_and_logits_are_torch_fidelitys(model: torch.nn.Module, weights: Path) -> None:
    layers = ["2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3(NAME, layers, feature_extractor_weights_path=str(weights))
    images = pictures(3, 3, (40, 60))
    seen = features.see(model, images)
    for ours, expected in zip((seen["features"], seen["logits"]), theirs(images), strict=True):
        assert float(expected.std(0).mean()) > 1e-3  # images that differ are seen to differ
        assert rounding(ours, expected) < 1e-5
    known = extractors.facts(NAME)
    widths = {"features": known.features, "logits": known.classes, "spatial": known.spatial}
    assert {view: values.shape[1] for view, values in seen.items()} == widths
    assert all(values.dtype == torch.float32 for values in seen.values())


@torch.inference_mode()
def test_spatial_is_the_branch_run_by_hand(model: torch.nn.Module) -> None:
    images = pictures(2, 3, (30, 30), 1)
    network = model.network
    x = interpolate_bilinear_2d_like_tensorflow1x(
        images.float(), size=(299, 299), align_corners=False
    )
    x = (x - 128) / 128
    for name in BEFORE:
        x = getattr(network, name)(x)
    assert x.shape == (2, 768, 17, 17)
    branch = network.Mixed_6d.branch1x1
    x = x.double().numpy()
    map_ = np.einsum("bchw,oc->bohw", x, branch.conv.weight.double().numpy()[:, :, 0, 0])
    mean, variance = branch.bn.running_mean.numpy(), branch.bn.running_var.numpy()
    scale = branch.bn.weight.numpy() / np.sqrt(variance + 1e-3)
    column = (slice(None), None, None)
    map_ = (map_ - mean[column]) * scale[column] + branch.bn.bias.numpy()[column]
    map_ = np.maximum(map_, 0)
    assert map_.shape == (2, 192, 17, 17)
    # ADM: the [N, 17, 17, 192] of TensorFlow, its first 7 channels, reshaped to [N, 2023].
    expected = np.transpose(map_, (0, 2, 3, 1))[..., :7].reshape(2, -1)
    spatial = features.see(model, images)["spatial"].numpy()
    assert spatial.shape == (2, 2023)
    assert (spatial > 0).mean() > 0.05
    np.testing.assert_allclose(spatial, expected, rtol=1e-4, atol=1e-5)


def test_grey_is_three_equal_channels(model: torch.nn.Module) -> None:
    grey = pictures(2, 1, (20, 20), 2)
    seen, repeated = (features.see(model, x, patch=8) for x in (grey, grey.repeat(1, 3, 1, 1)))
    assert seen.keys() == {"features", "logits", "spatial", "patch"}
    assert all(torch.equal(seen[view], repeated[view]) for view in seen)


def test_no_image_depends_on_its_batch(model: torch.nn.Module) -> None:
    images = pictures(3, 3, (24, 24), 3)
    whole = features.see(model, images, patch=12)
    for view, values in features.see(model, images, patch=12, batch=2).items():
        assert rounding(values, whole[view]) < 1e-5


class Harmful:
    """Pickled, it makes a file on reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", [NAME, "dinov2"])
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_no_code_in_a_weights_file_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, form: str
) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "it-ran"
    content = {"fc.weight": Harmful(mark)}
    if form == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = dataclasses.replace(extractors.facts(name), sha256=digest)
    monkeypatch.setitem(extractors.FACTS, name, facts)
    monkeypatch.setenv(facts.variable, str(path))
    with pytest.raises(extractors.ExtractorError, match=f"{path} .*does not hold the weights of"):
        features.load(name)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Harmful(mark)))  # the trap itself works
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"not a file of weights", b"PK\x03\x04 and no more"])
@pytest.mark.parametrize("name", [NAME, "dinov2"])
def test_damaged_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    facts = dataclasses.replace(extractors.facts(name), sha256=None)
    monkeypatch.setitem(extractors.FACTS, name, facts)
    monkeypatch.setenv(facts.variable, str(path))
    with pytest.raises(extractors.ExtractorError, match=f"does not hold the weights of {name}"):
        features.load(name)


def test_weights_of_another_network(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state.pop("fc.bias")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(RuntimeError, match=r"fc\.bias"):
        inception.load(tmp_path / "w.pth")


@pytest.mark.slow
def test_one_command_measures_with_all_extractors_that_are_here(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare `fid` is Inception's; the others say whose they are."""
    monkeypatch.setitem(extractors.FACTS, NAME, known(weights))
    monkeypatch.setenv("RESOLUTE_INCEPTION_WEIGHTS", "replaced by --weights")
    for name, count in (("samples", 12), ("real", 16)):
        images = pictures(count, 3, (20, 24), seed=count).permute(0, 2, 3, 1)
        np.savez(tmp_path / f"{name}.npz", images.numpy())
    output = tmp_path / "result.json"
    asked = ["--samples", tmp_path / "samples.npz", "--reference", tmp_path / "real.npz",
             "--weights", f"{NAME}={weights}", "--output", output]  # fmt: skip
    assert evaluate.main([str(part) for part in asked]) == 0
    found = json.loads(output.read_text())
    assert {name for name in found["metrics"] if "." not in name} == {
        "fid", "patch-fid", "sfid", "precision", "recall", "kid", "density", "coverage"
    }  # fmt: skip
    # Random weights give logits without bounds: that one metric is marked, the others stand.
    assert "too far apart" in found["marks"]["is"]
    assert {"fid.fashion-cnn", "patch-fid.fashion-cnn"} < set(found["metrics"])
    assert found["marks"]["fid"].startswith("12 samples for 2,048 dimensions")
    assert found["left_out"] == ["dinov2"]
    reference = found["references"][NAME]
    assert reference["patch"] == 10
    assert reference["extractor_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
