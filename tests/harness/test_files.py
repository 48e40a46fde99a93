import os
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.files import read_json, write_atomic, write_json


def test_a_whole_file_or_none(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert read_json(file) == {"a": 1}
    os.mkfifo(tmp_path / "device")
    for name in ("deep", "device"):
        with pytest.raises(UserError, match="is no regular file"):
            write_atomic(tmp_path / name, b"x")
    (tmp_path / "device").unlink()
    assert [p.name for p in file.parent.iterdir()] == ["x.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
