from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import evaluate
from harness.data import real_images
from harness.evaluate import figures, image_grid, reference
from harness.features import extract
from harness.metrics import moments

CPU = torch.device("cpu")
PROTOCOL = {"reference": "a", "manifold": "b", "extractor_sha256": "c"}


def made(cache: Path, **protocol: str) -> evaluate.Reference:
    return reference(cache, "fashion-cnn", PROTOCOL | protocol, (12, 12), 200, 50, CPU)


def test_a_reference_is_computed_once_for_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path)
    seen = extract("fashion-cnn", real_images("train", 200, (12, 12)))
    mean, covariance = moments(seen.features)
    assert np.allclose(first.mean, mean)
    assert np.allclose(first.covariance, covariance)
    assert np.array_equal(first.manifold, seen.features[:50].numpy())
    made(tmp_path, reference="other data")
    assert len(list(tmp_path.iterdir())) == 2

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(evaluate, "extract", not_again)
    again = made(tmp_path)
    assert np.array_equal(again.covariance, first.covariance)
    with pytest.raises(AssertionError, match="computed again"):
        made(tmp_path, extractor_sha256="other weights")


def test_real_images_beat_noise_in_every_figure(tmp_path: Path) -> None:
    real = made(tmp_path)
    good = figures(extract("fashion-cnn", real_images("test", 100, (12, 12))), real, "fashion-cnn")
    noise = torch.randint(0, 256, (100, 1, 12, 12), dtype=torch.uint8)
    bad = figures(extract("fashion-cnn", noise), real, "fashion-cnn")
    assert good["fid.fashion-cnn"] < bad["fid.fashion-cnn"] / 5
    for name in ("is", "precision", "recall"):
        assert good[f"{name}.fashion-cnn"] > bad[f"{name}.fashion-cnn"], name


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_the_grid_holds_the_images_where_they_belong(channels: int, mode: str) -> None:
    images = torch.randint(0, 255, (7, channels, 4, 6), dtype=torch.uint8)
    picture = Image.open(BytesIO(image_grid(images, columns=3)))
    assert picture.mode == mode
    assert picture.size == (3 * 7 - 1, 3 * 5 - 1)
    pixels = np.asarray(picture).reshape(14, 20, channels)
    assert np.array_equal(pixels[5:9, 7:13], images[4].permute(1, 2, 0).numpy())
    assert (pixels[4] == 255).all()
