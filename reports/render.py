"""The report itself: report.md, report.html, tables, headline.txt, plots and sample grids."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import markdown as markdown_to_html

from harness.record import write_atomic
from reports import costs, grids, load, origin, plots, results, settings, tables
from reports.formats import (
    BESIDE,
    FRECHET,
    INCEPTION,
    counted,
    extractor,
    family,
    in_order,
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
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1400px; margin: 2em auto;
       padding: 0 1.2em; }
p, li { max-width: 80ch; } p:has(img) { max-width: none; }
h1 { margin-bottom: .2em; } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }
h3 { margin-bottom: .4em; }
img { max-width: 100%; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92em; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .8em; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
thead th { border-bottom: 2px solid #555; white-space: nowrap; vertical-align: bottom; }
td[style*="right"] { white-space: nowrap; }
tbody tr:hover { background: #f6f6f6; }
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
    folder = outputs / "reports" / sweep.name
    images: Images = {}
    text = "\n".join(
        [
            *_opening(sweep),
            *_results(sweep),
            *_plots(sweep, images),
            *_samples(sweep, images),
            *_accounts(sweep),
            *_provenance(sweep),
        ]
    )
    for name, picture in images.items():
        write_atomic(folder / name, picture)
    found = [results.metric_table(sweep, group) for group in side_by_side(sweep.metrics)]
    latex = "\n".join([f"% {_sampling(sweep)}", *(tables.latex(table) for table in found)])
    write_atomic(folder / "table.tex", latex if found else "")
    frame = long_frame(sweep)
    write_atomic(folder / "table.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_atomic(folder / "headline.txt", "\n".join(headline(sweep.rows)) + "\n")
    write_atomic(folder / "report.html", _page(sweep.name, text, images))
    write_atomic(folder / "report.md", text)
    return folder / "report.md"


def _opening(sweep: Sweep) -> list[str]:
    return [
        f"# {escaped(sweep.name)}\n",
        f"**{escaped(sweep.question)}**\n",
        escaped(paragraph(sweep)) + "\n",
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
    parts += [escaped(note) + "\n" for note in _not_computed(sweep)]
    parts += _what_they_are(sweep)
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
    main = [group for group in groups if family(group[0]) == "fid"]
    return parts + _each(results.difference_table(sweep, group) for group in main)


def _not_computed(sweep: Sweep) -> list[str]:
    """Metrics that no row has, so that they have no table, each with the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for metric in in_order(metric for row in sweep.rows for metric in row.marks):
        if metric not in sweep.metrics:
            for row in sweep.rows:
                if metric in row.marks:
                    alike = found.setdefault((extractor(metric), row.marks[metric]), [])
                    alike += [] if metric in alike else [metric]
    return [f"{MARKED} No {title(*own)}: {reason}." for (_, reason), own in found.items()]


def _what_they_are(sweep: Sweep) -> list[str]:
    """What the distances of this report can be compared with, and what patch FID is."""
    told = []
    for name in dict.fromkeys(map(extractor, sweep.metrics)):
        own = [m for m in sweep.metrics if extractor(m) == name and family(m) in FRECHET]
        if own and name != INCEPTION:
            told.append(
                f"{title(*own)}: no Inception FID, the features are those of {name}. It cannot be "
                "compared with published FIDs.\n"
            )
    if any(family(metric) in BESIDE.values() for metric in sweep.metrics):
        told.append(
            "Patch FID is the same distance over a random crop of each image at its own "
            "resolution (the side is under Provenance). FID resizes images to the extractor's "
            "input, so that an upsampled small image can pass for a truly large one; a crop shows "
            "its missing detail.\n"
        )
    return told


def _sampling(sweep: Sweep) -> str:
    told = settings.account(sweep.settings, settings.SAMPLING, "rows")
    return f"Sampling settings {told}."


def _plots(sweep: Sweep, images: Images) -> list[str]:
    parts = []
    for metrics in side_by_side(sweep.metrics):
        if family(metrics[0]) == "fid" and (picture := plots.fid_plot(sweep, metrics)):
            name = f"{metrics[0].replace('.', '-')}.png"
            images[name] = picture
            parts.append(f"![{escaped(title(*metrics))} against resolution]({name})\n")
    if parts:
        parts.insert(0, "## FID against resolution\n")
        if several_seeds(sweep.rows):
            parts.append("Bars are one standard deviation over seeds.\n")
        elif any(family(metric) in BESIDE for row in sweep.rows for metric in row.intervals):
            parts.append("Bars are 95 % intervals over the samples.\n")
        if len(sweep.methods) > plots.MOST:
            parts.append(
                f"Drawn are the {plots.MOST} rows with the lowest FID at the largest resolution, "
                "and the baseline; samples are theirs too.\n"
            )
    picture, left_out = plots.loss_plot(sweep)
    if picture or left_out:
        parts.append("## Training loss\n")
    if picture:
        images["loss.png"] = picture
        parts.append("![Training loss](loss.png)\n")
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


def _page(name: str, text: str, images: Images) -> str:
    """The same report as one HTML file that needs nothing else."""
    body = markdown_to_html.markdown(text, extensions=["tables"])
    for file, picture in images.items():
        data = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        body = body.replace(f'src="{file}"', f'src="{data}"')
    body = re.sub(r"(<th\b[^>]*>[^<]*) · ", r"\1<br>", body)  # a name of two lines
    body = re.sub(r"<table>.*?</table>", r'<div class="table">\g<0></div>', body, flags=re.DOTALL)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(name)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )
