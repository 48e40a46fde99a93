"""The long table: one line for each figure, for whoever computes with them."""

from typing import Any

import pandas as pd

from reports.formats import extractor, pixels
from reports.load import Row, Sweep

PROTOCOL = (
    "samples",
    "labels",
    "reference",
    "reference_images",
    "manifold",
    "manifold_images",
    "upsampled",
    "patch",
    "extractor",
    "extractor_sha256",
)
TRAINING = ("images", "flops", "seconds")  # spent up to what was measured  # fmt: skip
COLUMNS = (
    "cell_id", "method", "settings", "height", "width", "after", "column", "seed", "metric",
    "value", "low", "high", "mark", "floor", "floor_low", "floor_high", *PROTOCOL,
    *(f"training_{key}" for key in TRAINING), "code_id", "state", "eval_id", "run_id",
)  # fmt: skip


def long_frame(sweep: Sweep) -> pd.DataFrame:
    """One line for each cell, column, seed and metric that is measured, in the metric's own unit.

    A metric that could not be computed has a line too: a mark and no value.
    `low` and `high` are the ends of the 95 % interval over the samples of this one seed.
    """
    lines = [
        _line(sweep, row, metric)
        for row in sweep.rows
        for metric in dict.fromkeys([*row.metrics, *row.marks])
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def _line(sweep: Sweep, row: Row, metric: str) -> dict[str, Any]:
    low, high = row.intervals.get(metric, (None, None))
    floor_low, floor_high = row.floor_intervals.get(metric, (None, None))
    protocol = row.protocols.get(extractor(metric), row.protocol)
    return {
        "cell_id": row.cell_id,
        "method": row.method,
        "settings": sweep.labels[row.cell_id],
        "height": row.column.resolution[0],
        "width": row.column.resolution[1],
        "after": row.column.after,
        "column": pixels(row.column.resolution, "x")
        + (f" after={row.column.after:g}" if row.column.after < 1 else "")
        + "".join(f" {k}={v}" for k, v in row.column.rest),
        "seed": row.seed,
        "metric": metric,
        "value": row.metrics.get(metric),
        "low": low,
        "high": high,
        "mark": row.marks.get(metric),
        "floor": row.floor.get(metric),
        "floor_low": floor_low,
        "floor_high": floor_high,
        "code_id": " ".join(sorted(row.code_ids)),
        "state": row.state,
        "eval_id": row.eval_id,
        "run_id": row.run_id,
        **{key: protocol.get(key) for key in PROTOCOL},
        **{f"training_{key}": row.training.get(key) for key in TRAINING},
        "upsampled": row.upsampled,
    }
