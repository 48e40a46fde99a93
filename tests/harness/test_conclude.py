"""The report is made again when it has to be, and the last words are commands that work."""

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from harness.ablation import read_ablation
from harness.conclude import conclude, report
from harness.grid import expand, to_json
from harness.plan import make_plan
from tests.harness.mirrored_outputs import write_ablation

NAME = "my small"


@pytest.mark.parametrize("damaged", ["", "not json", "[]", '{"format": 99}'])
def test_a_report_whose_inputs_are_damaged_is_made_anew(tmp_path: Path, damaged: str) -> None:
    write_ablation(tmp_path, NAME)
    grid, outputs = expand(read_ablation(tmp_path / f"{NAME}.yaml")), tmp_path / "outputs"
    report(grid, to_json(grid), outputs)
    inputs, made = (outputs / "reports" / NAME / name for name in ("inputs.json", "report.md"))
    known, written = inputs.read_text(), made.stat()
    report(grid, to_json(grid), outputs)
    assert made.stat() == written  # nothing is new
    inputs.write_text(damaged)
    report(grid, to_json(grid), outputs)
    assert inputs.read_text() == known
    assert made.stat().st_ino != written.st_ino


def test_the_command_that_mirrors_later_has_the_name_as_one_word(tmp_path: Path) -> None:
    write_ablation(tmp_path, NAME)
    grid, outputs = expand(read_ablation(tmp_path / f"{NAME}.yaml")), tmp_path / "outputs"
    report(grid, to_json(grid), outputs)
    said = io.StringIO()
    conclude(make_plan(grid, outputs), NAME, outputs, Console(file=said))
    (line,) = (line for line in said.getvalue().splitlines() if line.startswith("MLflow: "))
    command = shlex.split(line.removeprefix("MLflow: "))
    assert command[2:] == ["harness.track", "sync", "--outputs", str(outputs), NAME]
