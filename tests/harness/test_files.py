import os
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.files import checksum, read_json, write_atomic, write_json


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


def test_a_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    assert checksum(b"123456789") == "crc32:cbf43926"  # the check value of CRC-32/ISO-HDLC
    large = bytes(range(256)) * 2**17  # read in more than one part
    (tmp_path / "large").write_bytes(large)
    assert checksum(tmp_path / "large") == checksum(large) != checksum(large[:-1])
