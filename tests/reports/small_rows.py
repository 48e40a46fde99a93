"""Rows of a report by hand."""

from typing import Any

from reports.column import Column
from reports.load import Row

FID, PATCH = "fid.fashion-cnn", "patch-fid.fashion-cnn"
COLUMN = Column((24, 24), (), "2×")


def row(
    method: str, fid: float | None, size: int = 24, seed: int = 0, half: float | None = None,
    **more: Any,
) -> Row:  # fmt: skip
    """A row with this FID, and the interval FID ± half."""
    known: dict[str, Any] = {"metrics": {} if fid is None else {FID: fid}}
    known |= {"floor": {FID: 0.7}, "floor_intervals": {FID: (0.5, 0.9)}}
    if fid is not None and half is not None:
        known["intervals"] = {FID: (fid - half, fid + half)}
    column = Column((size, size), (), f"{size / 12:g}×")
    return Row(method, method, column, seed, f"run-{method}-{seed}", f"e{size}", **known | more)
