"""Sample grids of the methods side by side at one resolution."""

import textwrap
from io import BytesIO
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from harness.record import RunFolder
from reports.column import Column
from reports.drawing import MOST
from reports.load import Sweep
from reports.stats import foremost

WIDTH = 1390  # pixels of the whole picture, about
TILE = 520  # pixels that a grid of samples has at least, where enlarging makes it so
GAP, TEXT = 18, 17
INK, PAPER, EMPTY = "#111111", "#ffffff", "#f0f0f0"


def sample_grid(sweep: Sweep, column: Column) -> bytes | None:
    """A PNG with one grid of images a method, enlarged without smoothing; None without samples.

    All grids are of one seed. Methods that coincide in this column share one grid. What is not
    there is an empty frame that says why.
    """
    seed = _seed(sweep, column)
    if seed is None:
        return None
    captions: dict[Path, list[str]] = {}
    folders = {run.folder.run_id: run.folder for run in sweep.runs}
    stopped: set[Path] = set()
    frontmost = set(foremost(sweep.rows, sweep.fid, MOST))
    for row in sweep.rows:
        if row.column == column and row.seed == seed and row.cell_id in frontmost:
            run = folders[row.run_id]
            file = run.samples_file(row.eval_id)
            captions.setdefault(file, []).append(row.method)
            if row.state == "stopped":
                stopped.add(file)
    pictures = {file: _open(file) for file in captions}
    first = next((picture for picture in pictures.values() if picture is not None), None)
    if first is None:
        return None
    factor = max(1, round(TILE / first.width))
    width, height = first.width * factor, first.height * factor
    font = ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TEXT
    )
    letters = max(10, int(width / font.getlength("n")))
    texts = {file: textwrap.wrap(_caption(names), letters) for file, names in captions.items()}
    across = max(1, min(len(pictures), (WIDTH - GAP) // (width + GAP)))
    shelves = [list(pictures)[i : i + across] for i in range(0, len(pictures), across)]
    line = TEXT + 5
    heads = [line * max(len(texts[file]) for file in shelf) + 4 for shelf in shelves]
    size = (
        GAP + across * (width + GAP),
        GAP + sum(head + height + GAP for head in heads),
    )
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    top = GAP
    for shelf, head in zip(shelves, heads, strict=True):
        for place, file in enumerate(shelf):
            left = GAP + place * (width + GAP)
            above = top + head - 4 - line * len(texts[file])
            draw.text((left, above), "\n".join(texts[file]), INK, font=font, spacing=5)
            picture = pictures[file]
            if picture is None:
                draw.rectangle(
                    (left, top + head, left + width - 1, top + head + height - 1), fill=EMPTY
                )
                why = "stopped early" if file in stopped else "not yet measured"
                draw.text((left + 12, top + head + 12), why, INK, font=font)
            else:
                enlarged = (picture.width * factor, picture.height * factor)
                canvas.paste(picture.resize(enlarged, Image.Resampling.NEAREST), (left, top + head))
        top += head + height + GAP
    buffer = BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def shown_seed(sweep: Sweep, column: Column) -> int | None:
    """The seed whose samples `sample_grid` shows."""
    return _seed(sweep, column)


def _seed(sweep: Sweep, column: Column) -> int | None:
    """The seed with the most samples on disk; of equal ones the first."""
    folders: dict[str, RunFolder] = {run.folder.run_id: run.folder for run in sweep.runs}
    counts = dict.fromkeys(sweep.seeds, 0)
    for row in sweep.rows:
        if row.column == column and folders[row.run_id].samples_file(row.eval_id).exists():
            counts[row.seed] += 1
    seed = max(counts, key=lambda one: counts[one])
    return seed if counts[seed] else None


def _open(file: Path) -> Image.Image | None:
    if not file.exists():
        return None
    with Image.open(file) as picture:
        return picture.convert("RGB")


def _caption(names: list[str]) -> str:
    first, *others = names
    return f"{first} (the same images: {'; '.join(others)})" if others else first
