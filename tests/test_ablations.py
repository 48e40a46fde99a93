"""The ablation files that ship: each expands on every base, and says what a reader needs."""

from pathlib import Path

import pytest

from harness.ablation import read_ablation
from harness.grid import expand
from tests.tiny import ROOT

FILES = sorted((ROOT / "ablations").glob("*.yaml"))
OF_A_FIXED_SIZE = ("quickstart",)
HEADER = ("sweep ablations/{name}.yaml", "2 cores", "H100", "paper", "Measured")


@pytest.mark.parametrize("base", ["fashion_mnist", "glyphs"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_expands(file: Path, base: str) -> None:
    grid = expand(read_ablation(file, base=ROOT / "ablations" / "base" / f"{base}.yaml"))
    assert grid.baseline is not None
    assert len(grid.cells) > 2


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
