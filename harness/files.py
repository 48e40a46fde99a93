"""Files that are whole or not there: written beside their name and renamed, read with a check."""

import json
import os
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError

FORMAT = 1  # of the run folder; a file with a larger one is refused
Json = dict[str, Any]


def check_target(path: Path) -> None:
    """Refuse to write where a rename would replace a folder or a device, such as /dev/null.

    Raises:
        UserError: there is one.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no regular file; name another one to write to")


def check_writable(path: Path) -> None:
    """Refuse a file that could not be written, before the work whose result it is to hold.

    Raises:
        UserError: why.
    """
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file: it appears under its name complete, or not at all."""
    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def checksum(content: bytes | Path) -> str:
    """CRC-32 of the content, or of the file: against damage, not against forgery."""
    if isinstance(content, bytes):
        return f"crc32:{zlib.crc32(content):08x}"
    found = 0
    with content.open("rb") as file:
        while part := file.read(2**24):
            found = zlib.crc32(part, found)
    return f"crc32:{found:08x}"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, needs: tuple[str, ...] = ()) -> Json:
    """The JSON object in `path`, which must have the keys that are needed.

    Raises:
        UserError: it is missing, is damaged, or a newer version of this program wrote it.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        value = None
    whole = isinstance(value, dict) and isinstance(value.get("format", FORMAT), int)
    if not whole or any(key not in value for key in needs):
        raise UserError(f"{path}: is damaged; move it away and start the sweep again")
    if value.get("format", FORMAT) > FORMAT:
        raise UserError(
            f"{path}: was written by a newer version (format {value['format']}, this one reads up "
            f"to {FORMAT}); update this checkout, or choose another folder with --outputs"
        )
    return value
