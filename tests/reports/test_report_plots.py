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

from harness.record import run_folder
from reports.load import Row, Sweep, read
from reports.plots import fid_figure, fid_plot, loss_plot
from tests.reports.small_sweep import ABLATION

METRIC, PATCH = "fid.fashion-cnn", "patch-fid.fashion-cnn"
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
            metrics = {METRIC: value, PATCH: 2 * value}
            ends = {metric: (0.9 * one, 1.1 * one) for metric, one in metrics.items()}
            changed = {"cell_id": f"{index}", "method": name, "metrics": metrics}
            changed |= {"intervals": ends}
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
        canvas = fid_figure(sweep, [METRIC, PATCH])
        assert isinstance(canvas, Figure)
        canvas.draw_without_rendering()
        picture = fid_plot(sweep, [METRIC, PATCH])
        losses, left_out = loss_plot(sweep)
    assert picture is not None
    assert losses is not None
    assert left_out == []
    axes, other = canvas.axes
    assert axes.get_position().width + other.get_position().width >= 0.5
    assert axes.get_position().height >= 0.5
    assert [one.get_ylabel() for one in canvas.axes] == [
        "FID (fashion-cnn), lower is better", "patch FID (fashion-cnn), lower is better"
    ]  # fmt: skip
    renderer = canvas.canvas.get_renderer()  # type: ignore[attr-defined]
    width, height = canvas.bbox.width, canvas.bbox.height
    (legend,) = canvas.legends
    inside = [axes.xaxis.label, axes.yaxis.label, other.yaxis.label, legend]
    for box in (one.get_window_extent(renderer) for one in inside):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert axes.xaxis.label.get_window_extent(renderer).y0 >= legend.get_window_extent(renderer).y1
    assert Image.open(BytesIO(picture)).width < 1700
    (tmp_path / "fid.png").write_bytes(picture)
    (tmp_path / "loss.png").write_bytes(losses)


def bars(canvas: Figure | None, place: int) -> set[tuple[float, ...]]:
    """The ends of the error bars of a panel, of all lines."""
    assert canvas is not None
    found = set()
    for lines in canvas.axes[place].collections:
        for segment in lines.get_segments():  # type: ignore[attr-defined]
            found.add(tuple(round(float(y), 3) for y in segment[:, 1]))
    return found


def test_bars_are_over_seeds_or_with_one_seed_over_samples(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path / "one")
    one = fid_figure(read(record, tmp_path / "one"), [METRIC, PATCH])
    assert {(19.0, 21.0), (38.0, 42.0), (117.23, 129.57)} <= bars(one, 0)  # 5 % of the figures
    assert {(38.0, 42.0), (76.0, 84.0)} <= bars(one, 1)
    record = grid((0, 1, 2))
    fill(record, tmp_path / "three")
    three = fid_figure(read(record, tmp_path / "three"), [METRIC, PATCH])
    assert {(20.0, 21.0), (40.0, 41.0)} <= bars(three, 0)  # 20.5 ± 0.5, 40.5 ± 0.5
    assert {(80.0, 82.0)} <= bars(three, 1)


def test_a_metric_alone_and_settings_beside_the_resolution(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    text = ABLATION.replace("[12, 18, 24]", "[12, 24], inference.guidance: [1, 2]")
    record = grid(text=text)
    fill(record, tmp_path)
    sweep = read(record, tmp_path)
    canvas = fid_figure(sweep, [METRIC, PATCH])
    assert canvas is not None
    titles = [axes.get_title() for axes in canvas.axes]
    assert titles == ["guidance=1", "guidance=1", "guidance=2", "guidance=2"]
    alone = fid_figure(sweep, [METRIC])
    assert alone is not None
    assert len(alone.axes) == 2
    assert fid_figure(sweep, ["fid"]) is None


@pytest.mark.parametrize(
    "line", [b'{"images": 1, "lo', b"\0\0\0", b"\xff\xfe", b"7", b'{"images": 1}']
)
def test_a_damaged_loss_curve_is_left_out_with_its_reason(
    grid: Grid, fill: Fill, tmp_path: Path, line: bytes
) -> None:
    record = grid()
    fill(record, tmp_path, samples=False)
    file = run_folder(tmp_path, record["cells"][0]["runs"][0]["run_id"]).metrics_file
    first, second, *others = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([first, line + b"\n", second, *others]))
    picture, left_out = loss_plot(read(record, tmp_path))
    assert picture is not None
    (told,) = left_out
    assert told.startswith(f"RoPE, seed 0: {file}: ")


def test_figures_without_an_interval_are_drawn_without_bars(
    grid: Grid, fill: Fill, tmp_path: Path
) -> None:
    record = grid()
    fill(record, tmp_path)
    sweep = read(record, tmp_path)
    rows = [dataclasses.replace(row, intervals={}, floor_intervals={}) for row in sweep.rows]
    rows[0] = sweep.rows[0]
    canvas = fid_figure(dataclasses.replace(sweep, rows=tuple(rows)), [METRIC])
    assert canvas is not None
    assert len(canvas.axes[0].containers) == 1
