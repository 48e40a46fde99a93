"""Features by name, against the model itself and against torch-fidelity's own pipeline."""

import dataclasses
import hashlib
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch_fidelity
from torch.utils.data import Dataset

from harness import extractors, fashion_cnn, features, metrics


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


def test_same_values_as_torch_fidelity() -> None:
    generated, real = blobs(300, 0, 1.0), blobs(300, 1, 0.8)
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(generated),
        input2=Pictures(real),
        feature_extractor="fashion-cnn",
        isc=True,
        fid=True,
        prc=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        batch_size=100,
    )
    a, b = features.extract("fashion-cnn", generated), features.extract("fashion-cnn", real)
    fid = metrics.fid(metrics.moments(a.features), metrics.moments(b.features))
    assert fid == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    score = metrics.inception_score(a.logits)
    assert score == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    # One sample in 300 may sit on a ball's edge: theirs are float32 distances.
    precision, recall = metrics.precision_recall(a.features, b.features)
    assert precision == pytest.approx(theirs["precision"], abs=1.01 / 300)
    assert recall == pytest.approx(theirs["recall"], abs=1.01 / 300)
    assert 0 < precision < 1
    assert fid > 0.1


def test_extract_is_the_model_in_batches() -> None:
    pictures = blobs(50, 2, 1.0)
    model = fashion_cnn.load(extractors.facts("fashion-cnn").weights)
    expected, expected_logits = model(pictures)
    for batch in (1, 7, 256):
        result = features.extract("fashion-cnn", pictures, batch=batch)
        torch.testing.assert_close(result.features, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(result.logits, expected_logits, rtol=1e-5, atol=1e-5)


def test_extract_repeats_bit_for_bit() -> None:
    pictures = blobs(50, 3, 1.0)
    first, again = (features.extract("fashion-cnn", pictures, batch=16) for _ in range(2))
    assert torch.equal(first.features, again.features)
    assert torch.equal(first.logits, again.logits)


@pytest.mark.parametrize("name", features.EXTRACTORS)
def test_facts_are_true(name: str) -> None:
    known = extractors.facts(name)
    result = features.extract(name, blobs(2, 4, 1.0))
    assert result.features.shape == (2, known.features)
    assert result.logits.shape == (2, known.classes)
    assert result.features.dtype == result.logits.dtype == torch.float32
    result.features.requires_grad_().sum().backward()  # no tensor of inference mode gets out


def test_every_extractor_has_facts() -> None:
    assert features.EXTRACTORS.keys() == extractors.FACTS.keys()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(2, 1, 8, 8), "torch.float32, expected uint8"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), r"\[2, 2, 8, 8\], expected"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), r"\[2, 8, 8\], expected"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), r"\[0, 1, 8, 8\], expected"),
    ],
)
def test_extract_refuses(pictures: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features.extract("fashion-cnn", pictures)


def test_unknown_names() -> None:
    with pytest.raises(extractors.ExtractorError, match="there are: fashion-cnn"):
        features.extract("inception", blobs(2, 0, 1.0))
    with pytest.raises(extractors.ExtractorError, match="did you mean 'fashion-cnn'"):
        extractors.weights_sha256("fashion_cnn")


def test_importing_again_registers_once() -> None:
    importlib.reload(features)
    assert features.extract("fashion-cnn", blobs(1, 0, 1.0)).logits.shape == (1, 10)


def test_weights_sha256_follows_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = extractors.facts("fashion-cnn")
    shipped = hashlib.sha256(known.weights.read_bytes()).hexdigest()
    assert extractors.weights_sha256("fashion-cnn") == shipped

    weights = tmp_path / "w.safetensors"
    moved = dataclasses.replace(known, weights=weights)
    monkeypatch.setitem(extractors.FACTS, "fashion-cnn", moved)
    for use in (extractors.weights_sha256, lambda name: features.extract(name, blobs(1, 0, 1.0))):
        with pytest.raises(extractors.ExtractorError, match=r"python -m harness\.fashion_cnn"):
            use("fashion-cnn")
    shutil.copy(known.weights, weights)
    assert extractors.weights_sha256("fashion-cnn") == shipped
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert extractors.weights_sha256("fashion-cnn") != shipped


@pytest.mark.parametrize("module", ["harness.extractors", "harness.dataset"])
def test_imports_no_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    project = Path(extractors.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", script], cwd=project).returncode == 0
