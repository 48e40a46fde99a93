"""Pictures keep their axes large, whatever the names."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from reports.load import Row, Sweep, read
from reports.plots import fid_figure, fid_plot, loss_plot

METRIC = "fid.fashion-cnn"
Grid = Callable[..., dict[str, Any]]
Fill = Callable[..., None]


def many(sweep: Sweep, count: int, letters: int) -> Sweep:
    """`count` rows with names of `letters` letters, in place of the sweep's."""
    more = "RPE-2D ×2 (RoPE) + resize-and-crop + micro-conditioning, guidance=2, " * 4
    names = [f"{index} {more}"[:letters] for index in range(count)]
    own = [row for row in sweep.rows if row.cell_id == sweep.rows[0].cell_id]
    rows: list[Row] = []
    for index, name in enumerate(names):
        for row in own:
            value = row.metrics[METRIC] * (1 + math.sin(index) / 3)
            changed = {"cell_id": f"{index}", "method": name, "metrics": {METRIC: value}}
            rows.append(dataclasses.replace(row, **changed))
    runs = [
        dataclasses.replace(sweep.runs[0], group_id=f"{index}", name=name)
        for index, name in enumerate(names)
    ]
    methods = {f"{index}": name for index, name in enumerate(names)}
    return dataclasses.replace(sweep, rows=tuple(rows), runs=tuple(runs), methods=methods)


@pytest.mark.parametrize(("count", "letters"), [(2, 8), (11, 40), (20, 60), (20, 200)])
def test_names_of_any_length_leave_the_axes_half_of_the_picture(
    grid: Grid, fill: Fill, tmp_path: Path, count: int, letters: int
) -> None:
    record = grid()
    fill(record, tmp_path)
    sweep = many(read(record, tmp_path), count, letters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas = fid_figure(sweep, METRIC)
        assert isinstance(canvas, Figure)
        canvas.draw_without_rendering()
        picture = fid_plot(sweep, METRIC)
        losses, left_out = loss_plot(sweep)
    assert picture is not None
    assert losses is not None
    assert left_out == []
    (axes,) = canvas.axes
    assert axes.get_position().width >= 0.5
    assert axes.get_position().height >= 0.5
    renderer = canvas.canvas.get_renderer()  # type: ignore[attr-defined]
    width, height = canvas.bbox.width, canvas.bbox.height
    (legend,) = canvas.legends
    inside = [axes.xaxis.label, axes.yaxis.label, legend]
    for box in (one.get_window_extent(renderer) for one in inside):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert axes.xaxis.label.get_window_extent(renderer).y0 >= legend.get_window_extent(renderer).y1
    assert Image.open(BytesIO(picture)).width < 1400
    (tmp_path / "fid.png").write_bytes(picture)
    (tmp_path / "loss.png").write_bytes(losses)
