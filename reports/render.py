"""The report itself: report.md, report.html, tables, headline.txt, plots and sample grids."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import markdown as markdown_to_html

from harness.files import write_atomic
from reports import compute, costs, grids, load, notes, origin, plots, results, settings, tables
from reports.column import shares
from reports.drawing import MOST
from reports.formats import (
    BESIDE,
    counted,
    family,
    side_by_side,
    title,
)
from reports.frame import long_frame
from reports.load import Sweep
from reports.stats import several_seeds
from reports.summary import headline, paragraph
from reports.tables import MARKED, OTHER_CODE, Table, escaped

Images = dict[str, bytes]  # file name -> PNG

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1600px; margin: 2em auto;
       padding: 0 1.2em; }
p, li { max-width: 80ch; } p:has(img) { max-width: none; }
h1 { margin-bottom: .2em; } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }
h3 { margin-bottom: .4em; }
img { max-width: 100%; height: auto; }
.table { overflow: auto; max-height: 92vh; }
table { border-collapse: collapse; font-size: .92em; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .6em; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
thead th { border-bottom: 2px solid #555; white-space: nowrap; vertical-align: bottom;
           position: sticky; top: 0; background: #fff; z-index: 1; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; min-width: 14em; }
thead th:first-child { z-index: 2; }
tbody tr:hover td { background: #f6f6f6; }
@media print { .table { max-height: none; } }
code { font-size: .92em; background: #f2f2f2; padding: .1em .3em; }
"""


def build(grid_record: Mapping[str, Any], outputs: Path) -> Path:
    """Write the report of a grid as it stands; the path of its report.md.

    Args:
        grid_record: `harness.grid.to_json` of the ablation.
        outputs: the folder with `runs/`; the report lands in `reports/<name>/` there.

    Raises:
        UserError: a record that is damaged, or that a newer version wrote.
    """
    sweep = load.read(grid_record, outputs)
    trained = sweep.trained  # figures of snapshots have a part of their own
    cost = compute.reached(sweep, sweep.fid) if sweep.fid else []
    folder = outputs / "reports" / sweep.name
    images: Images = {}
    text = "\n".join(
        [
            *_opening(trained, cost),
            *_results(trained),
            *_plots(trained, images),
            *_compute(sweep, images),
            *_loss(sweep, images),
            *_samples(trained, images),
            *_accounts(sweep),
            *_provenance(sweep),
        ]
    )
    for name, picture in images.items():
        write_atomic(folder / name, picture)
    found = [results.metric_table(trained, group) for group in side_by_side(trained.metrics)]
    latex = "\n".join([f"% {_sampling(sweep)}", *(tables.latex(table) for table in found)])
    write_atomic(folder / "table.tex", latex if found else "")
    frame = long_frame(sweep)
    write_atomic(folder / "table.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_atomic(folder / "headline.txt", "\n".join([*headline(trained.rows), *cost]) + "\n")
    write_atomic(folder / "report.html", _page(sweep.name, text, images))
    write_atomic(folder / "report.md", text)
    return folder / "report.md"


def _opening(sweep: Sweep, cost: Sequence[str]) -> list[str]:
    return [
        f"# {escaped(sweep.name)}\n",
        f"**{escaped(sweep.question)}**\n",
        escaped(" ".join([paragraph(sweep), *(f"{one}." for one in cost)])) + "\n",
    ]


def _results(sweep: Sweep) -> list[str]:
    """The main tables: FID beside patch FID, then one per metric: all in one are too wide."""
    if not sweep.metrics:
        return []
    groups = side_by_side(sweep.metrics)
    parts = ["## Results\n", *_each(results.metric_table(sweep, group) for group in groups)]
    parts.append(f"{_sampling(sweep)}\n")
    parts.append(
        "Bold is the best of a column. The last row is what real images that no reference has "
        "get, in the same number and by the same protocol: about what a perfect model would.\n"
    )
    parts += [escaped(note) + "\n" for note in notes.not_computed(sweep)]
    parts += [note + "\n" for note in notes.what_they_are(sweep)]
    if any("RPE-2D" in name for name in sweep.methods.values()):
        parts.append(
            "RPE-2D rows are this project's reconstruction of the method from its description, "
            "not its authors' code.\n"
        )
    if any(row.marks for row in sweep.rows):
        parts.append(f"A figure with {MARKED} is never called the best; why is below its table.\n")
    if found_other := results.other_code_rows(sweep):
        parts.append(
            f"{OTHER_CODE} {counted(len(found_other), 'row')} with results of other code than "
            "the rest: see Provenance.\n"
        )
    parts.append("## Difference to the baseline\n")
    if sweep.baseline is None:
        return [*parts, "No baseline is named among these rows.\n"]
    if len(sweep.of_baseline.methods) == 1:
        return [*parts, "No other row has a column of the baseline.\n"]
    return parts + _each(results.difference_table(sweep, group) for group in _fids(sweep))


def _sampling(sweep: Sweep) -> str:
    told = settings.account(sweep.settings, settings.SAMPLING, "rows")
    return f"Sampling settings {told}."


def _plots(sweep: Sweep, images: Images) -> list[str]:
    parts = []
    for metrics in _fids(sweep):
        if picture := plots.fid_plot(sweep, metrics):
            name = f"{metrics[0].replace('.', '-')}.png"
            images[name] = picture
            parts.append(f"![{escaped(title(*metrics))} against resolution]({name})\n")
    if not parts:
        return []
    return ["## FID against resolution\n", *parts, *_drawn(sweep)]


def _drawn(sweep: Sweep) -> list[str]:
    """What the bars of a plot are, and which rows it shows."""
    parts = []
    if several_seeds(sweep.rows):
        parts.append("Bars are one standard deviation over seeds.\n")
    elif any(family(metric) in BESIDE for row in sweep.rows for metric in row.intervals):
        parts.append("Bars are 95 % intervals over the samples.\n")
    if len(sweep.methods) > MOST:
        parts.append(
            f"Drawn are the {MOST} rows with the lowest FID at the largest resolution that they "
            "have, and the baseline; samples are theirs too.\n"
        )
    return parts


def _compute(sweep: Sweep, images: Images) -> list[str]:
    """What snapshots from the midst of the training say; nothing where there are none."""
    followed = compute.followed(sweep)
    if not followed:
        return []
    parts = []
    for metrics in _fids(sweep):
        if picture := compute.compute_plot(sweep, metrics):
            name = f"{metrics[0].replace('.', '-')}-compute.png"
            images[name] = picture
            parts.append(f"![{escaped(title(*metrics))} against training compute]({name})\n")
    parts += _drawn(sweep.trained) if parts else []
    costs_of = [compute.cost_table(sweep, metric) for metrics in _fids(sweep) for metric in metrics]
    over = []
    for column in followed:
        own, where = (
            sweep.narrowed(shares(sweep.columns, column)),
            f" over training, {column.title}",
        )
        over += [results.metric_table(own, metrics, where) for metrics in _fids(own)]
    return ["## FID against training compute\n", *parts, *_each([*filter(None, costs_of), *over])]


def _fids(sweep: Sweep) -> list[tuple[str, ...]]:
    """FID and patch FID of each extractor."""
    return [metrics for metrics in side_by_side(sweep.metrics) if family(metrics[0]) == "fid"]


def _loss(sweep: Sweep, images: Images) -> list[str]:
    picture, left_out = plots.loss_plot(sweep)
    parts = ["## Training loss\n"] if picture or left_out else []
    if picture:
        images["loss.png"] = picture
        parts.append("![Training loss](loss.png)\n")
    trainings = len({run.group_id for run in sweep.runs})
    if picture and trainings > MOST:
        parts.append(f"Drawn are the first {MOST} of {trainings} trainings.\n")
    return parts + [f"Left out: {escaped(one)}.\n" for one in left_out]


def _samples(sweep: Sweep, images: Images) -> list[str]:
    parts = []
    for column in sweep.columns:
        picture = grids.sample_grid(sweep, column)
        if picture is None:
            continue
        name = f"samples-{column.slug}.png"
        images[name] = picture
        parts.append(f"### {escaped(column.title)}, seed {grids.shown_seed(sweep, column)}\n")
        parts.append(f"![Samples at {escaped(column.title)}]({name})\n")
    if not parts:
        return []
    labels = {row.protocol.get("labels") for row in sweep.rows if row.metrics}
    same = "noise" if len(labels) > 1 else "noise and labels"
    ordered = ", a class a column" if labels == {"balanced"} else ""
    told = (
        f"The same {same} for every method{ordered}, the first images as they came: nothing is "
        "picked.\n"
    )
    return ["## Samples\n", told, *parts]


def _accounts(sweep: Sweep) -> list[str]:
    parts = ["## Cost\n", tables.markdown(costs.cost_table(sweep))]
    missing = costs.missing_table(sweep)
    parts.append("## Failed, missing, dropped\n")
    parts.append(tables.markdown(missing) if missing else "Every evaluation is there.\n")
    told = [f"Rule {name} dropped {counted(n, 'cell')}." for name, n in sweep.dropped.items()]
    told += [f"{note[0].upper()}{note[1:]}." for note in sweep.notes if note]
    if told:
        parts.append("\n".join(f"- {escaped(line)}" for line in told) + "\n")
    return parts


def _provenance(sweep: Sweep) -> list[str]:
    parts = ["## Provenance\n"]
    parts.append(f"From {escaped(sweep.file)}, {counted(len(sweep.methods), 'row')}, seeds "
                 f"{', '.join(map(str, sweep.seeds))}.\n")  # fmt: skip
    trained = settings.account(sweep.settings, settings.TRAINING, "trainings")
    parts.append(f"Common settings {escaped(trained)}.\n")
    found = [origin.protocol_table(sweep), origin.machine_table(sweep)]
    parts += [_titled(one, ()) for one in found if one is not None]
    parts += [escaped(note) + "\n" for note in origin.code_notes(sweep)]
    return parts


def _each(found: Iterable[Table]) -> list[str]:
    """Tables with their notes; what an earlier one says is not said again."""
    parts, said = [], set[str]()
    for one in found:
        parts.append(_titled(one, [note for note in one.notes if note not in said]))
        said |= set(one.notes)
    return parts


def _titled(table: Table, notes: Sequence[str]) -> str:
    parts = [f"### {escaped(table.title)}", tables.markdown(table).rstrip(), *map(escaped, notes)]
    return "\n\n".join(parts) + "\n"


def _whole_numbers(cell: re.Match[str]) -> str:
    """A wide table breaks the line before an interval, never inside it."""
    return re.sub(r"\[[^]]*\]| ± ", lambda found: found[0].replace(" ", "&nbsp;"), cell[0])


def _page(name: str, text: str, images: Images) -> str:
    """The same report as one HTML file that needs nothing else."""
    body = markdown_to_html.markdown(text, extensions=["tables"])
    for file, picture in images.items():
        data = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        body = body.replace(f'src="{file}"', f'src="{data}"')
    body = re.sub(r"(<th\b[^>]*>[^<]*) · ", r"\1<br>", body)  # a name of two lines
    body = re.sub(r'(?<=right;">)(<strong>)?[^<]*', _whole_numbers, body)  # of numbers
    body = re.sub(r"<table>.*?</table>", r'<div class="table">\g<0></div>', body, flags=re.DOTALL)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(name)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )
