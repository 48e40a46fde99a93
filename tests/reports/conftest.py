"""A small sweep's grid record, and its outputs folder on request."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.ablation import read_ablation
from harness.grid import expand, to_json
from tests.reports.small_sweep import ABLATION, BASE, CODE, Record, write_outputs


@pytest.fixture(autouse=True)
def _code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code's id is a known one, so that a change of the code changes no expected text."""
    monkeypatch.setattr("reports.load.code_id", lambda: CODE)
    monkeypatch.setattr("harness.plan.code_id", lambda: CODE)


@pytest.fixture
def grid(tmp_path: Path) -> Callable[..., Record]:
    """Grid record of an ablation's text with these seeds."""

    def make(seeds: tuple[int, ...] = (0,), text: str = ABLATION, name: str = "small") -> Record:
        (tmp_path / "base.yaml").write_text(BASE)
        file = tmp_path / f"{name}.yaml"
        file.write_text(text.replace("SEEDS", str(list(seeds))))
        record = to_json(expand(read_ablation(file)))
        return record | {"file": f"ablations/{name}.yaml"}

    return make


@pytest.fixture
def fill() -> Callable[..., None]:
    """Write the runs of a grid record as if a sweep had done them."""
    return write_outputs
