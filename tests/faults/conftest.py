import time
from pathlib import Path

import pytest

from tests.faults import disturbed as d
from tests.tiny import BASE


@pytest.fixture(scope="session")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "base.yaml").write_text(BASE)
    (folder / "faults.yaml").write_text(d.ABLATION)
    return folder / "faults.yaml"


@pytest.fixture(scope="session")
def undisturbed(ablation: Path, tmp_path_factory: pytest.TempPathFactory) -> d.Outcome:
    """A sweep that nothing happens to."""
    outputs = tmp_path_factory.mktemp("undisturbed") / "outputs"
    started = time.monotonic()
    d.again(ablation, outputs)
    return d.Outcome(d.result(outputs), d.mirrored(outputs), time.monotonic() - started)
