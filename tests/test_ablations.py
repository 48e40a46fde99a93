"""The ablation files that ship: each expands on every base, and says what a reader needs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import folder
from harness.ablation import read_ablation
from harness.grid import expand
from tests.tiny import ROOT

FILES = sorted((ROOT / "ablations").glob("*.yaml"))
HEADER = ("sweep ablations/{name}.yaml", "2 cores", "H100", "paper", "Measured")


@pytest.mark.parametrize("base", ["fashion_mnist", "glyphs"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_expands(file: Path, base: str) -> None:
    grid = expand(read_ablation(file, base=ROOT / "ablations" / "base" / f"{base}.yaml"))
    assert grid.baseline is not None
    assert len(grid.cells) > 2


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An indexed folder of a few pictures."""
    place = tmp_path_factory.mktemp("pictures")
    for i in range(40):
        pixels = np.full((32, 48, 3), 6 * i, np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESOLUTE_DATA", str(tmp_path_factory.mktemp("indexes")))
        assert folder.main([str(place)]) == 0
        yield place


@pytest.mark.parametrize("base", ["pictures", "imagenet_256"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_expands_on_pictures(file: Path, base: str, pictures: Path) -> None:
    """With other sizes and counts than the base's: these pictures are small and few."""
    small = pictures.parent / f"{base}.yaml"
    small.write_text(
        f"base: {ROOT}/ablations/base/{base}.yaml\nunit: 16\nmodel: {{patch: 2}}\n"
        f"data: {{folder: {pictures}}}\nevaluate: {{extractors: fashion-cnn, samples: 10, "
        "reference_images: 20, manifold_images: 10}\n"
    )
    assert len(expand(read_ablation(file, base=small)).cells) > 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_says_its_command_cost_and_findings(file: Path) -> None:
    head = file.read_text().partition("question:")[0]
    for told in HEADER:
        assert told.format(name=file.stem) in head


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_tables_have_the_row_that_upsamples(file: Path) -> None:
    """Generating at the training size and resizing, but where only that size is measured."""
    grid = expand(read_ablation(file))
    sizes = {
        m.evaluation.evaluate.resolution != cell.training.data.resolution
        for cell in grid.cells
        for m in cell.measurements
    }
    if True in sizes:
        assert any(cell.inference.resize != "none" for cell in grid.cells)
