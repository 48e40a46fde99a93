"""What a plan says of figures that could mislead."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import folder
from harness.ablation import read_ablation
from harness.errors import UserError
from harness.grid import expand
from tests.tiny import Write


def test_pictures_that_are_enlarged_and_an_extractor_of_other_data_are_told(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESOLUTE_DATA", str(tmp_path / "data"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(40):
        side = 16 if i % 4 else 12
        pixels = np.full((side, side), 6 * i, np.uint8)
        Image.fromarray(pixels).save(pictures / f"{i}.png")
    text = (
        "question: What?\nbase: base.yaml\n"
        f"set: {{data.name: image_folder, data.folder: {pictures}, evaluate.samples: 10,"
        " evaluate.reference_images: 20, evaluate.manifold_images: 10}\n"
        "axes: {data.resolution: [8, 16]}\n"
    )
    with pytest.raises(UserError, match=r"python -m harness\.folder"):
        expand(read_ablation(write("a.yaml", text)))
    assert folder.main([str(pictures)]) == 0
    strange, enlarged = expand(read_ablation(write("a.yaml", text))).notes
    assert strange.startswith("fashion-cnn knows fashion_mnist only: of image_folder")
    assert enlarged == "training at 16x16: 25% of the pictures are smaller and are enlarged"


def test_the_shipped_data_raise_none(tiny: Path) -> None:
    assert expand(read_ablation(tiny)).notes == ()
