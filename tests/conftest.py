from pathlib import Path

import pytest

from tests.slurm_cluster import slurm  # noqa: F401  # a fixture for all
from tests.tiny import ABLATION, BASE, Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write("x.yaml", text) -> its path, beside a small base.yaml."""
    (tmp_path / "base.yaml").write_text(BASE)

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


@pytest.fixture
def tiny(write: Write) -> Path:
    """An ablation of three rows and two trainings that takes seconds."""
    return write("tiny.yaml", ABLATION)
