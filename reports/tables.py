"""Tables: built once, written as Markdown, as LaTeX (booktabs) and as a long CSV."""

import html
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.formats import NOTHING, arrow, figure, pixels, title
from reports.load import Column, Row, Sweep
from reports.stats import best, by_seed, floors, interval, paired, protocols, spread, summary

OTHER_CODE = "†"
MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of protocols, where a column has several
FLOOR_NAME = "real images (floor)"


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A title, a header, and rows as long as the header; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    numeric: bool = True  # columns after the first are set to the right


def table(title: str, header: list[str], rows: list[list[str]], numeric: bool = False) -> Table:
    """A table without marks or notes."""
    body = tuple(tuple(map(Cell, row)) for row in rows)
    return Table(title, tuple(header), body, numeric=numeric)


def metric_table(sweep: Sweep, metric: str) -> Table:
    """One metric: a row per method in the order of the file, a column per resolution.

    The best of a column is marked, except where its figures are of more than one protocol: these
    carry the protocol's letter instead.
    """
    other = other_code_rows(sweep)
    counts = {len(v) for c in sweep.columns for v in by_seed(sweep.rows, c, metric).values()}
    body: dict[str, list[Cell]] = {
        cell_id: [Cell(row_name(sweep, cell_id) + (f" {OTHER_CODE}" if cell_id in other else ""))]
        for cell_id in sweep.methods
    }
    floor_row, mixed = [Cell(FLOOR_NAME)], []
    for column in sweep.columns:
        letters = protocol_letters(sweep, column, metric)
        values = by_seed(sweep.rows, column, metric)
        means = {cell_id: summary(v.values()).mean for cell_id, v in values.items()}
        winners = [] if letters else best(means, metric)
        if len(winners) == len(means) > 1:  # all rows coincide: nothing is best
            winners = []
        if letters:
            mixed.append(column.title)
        for cell_id, cells in body.items():
            if cell_id not in values:
                cells.append(Cell(NOTHING))
                continue
            found = summary(values[cell_id].values())
            text = spread(metric, found) + (f" (n = {found.n})" if found.n < max(counts) else "")
            cells.append(Cell(text + _marks(sweep, cell_id, column, letters), cell_id in winners))
        real = [
            figure(metric, value) + (f" [{letters[key]}]" if key in letters else "")
            for key, value in floors(sweep.rows, column, metric).items()
        ]
        floor_row.append(Cell("; ".join(real) or NOTHING))
    header = ("method", *(column.title for column in sweep.columns))
    rows = (*(tuple(cells) for cells in body.values()), tuple(floor_row))
    return Table(
        f"{title(metric)} {arrow(metric)}", header, rows, _notes(sweep, metric, counts, mixed)
    )


def difference_table(sweep: Sweep, metric: str) -> Table:
    """Each row minus the baseline, seed by seed, with the t interval of the mean difference."""
    assert sweep.baseline is not None
    other = other_code_rows(sweep)
    evaluations: dict[tuple[str, Column, int], tuple[str, str]] = {
        (row.cell_id, row.column, row.seed): row.evaluation for row in sweep.rows
    }
    rows = []
    counts, same_evaluation = set(), False
    by_column = {c: by_seed(sweep.rows, c, metric) for c in sweep.columns}
    mixed = {c for c in sweep.columns if len(protocols(sweep.rows, c, metric)) > 1}
    for cell_id in sweep.methods:
        if cell_id == sweep.baseline:
            continue
        cells = [Cell(sweep.methods[cell_id] + (f" {OTHER_CODE}" if cell_id in other else ""))]
        for column in sweep.columns:
            values = by_column[column]
            ours, theirs = values.get(cell_id, {}), values.get(sweep.baseline, {})
            difference = paired(ours, theirs)
            if difference is None:
                cells.append(Cell(NOTHING))
            elif column in mixed:
                cells.append(Cell("not compared"))
            elif all(
                evaluations[cell_id, column, s] == evaluations[sweep.baseline, column, s]
                for s in ours.keys() & theirs.keys()
            ):
                same_evaluation = True
                cells.append(Cell("="))
            else:
                counts.add(difference.n)
                like = min(summary(v.values()).mean for v in (ours, theirs))
                few = 1 < difference.n < len(sweep.seeds)
                more = f" (n = {difference.n})" if few else ""
                cells.append(Cell(interval(metric, difference, like) + more))
        rows.append(tuple(cells))
    notes = [
        f"{title(metric)} of the row minus that of {sweep.methods[sweep.baseline]} with the same "
        "seed (and so the same noise and labels); below 0 is better than it."
    ]
    if any(n > 1 for n in counts):
        notes.append(
            "Mean over seeds [95 % t interval of the mean]; each interval is for its own "
            "comparison, none is widened for there being many."
        )
    if same_evaluation:
        notes.append("= is the baseline's own evaluation: the methods coincide there.")
    header = ("method", *(column.title for column in sweep.columns))
    heading = f"{title(metric)}: difference to the baseline"
    return Table(heading, header, tuple(rows), tuple(notes))


def row_name(sweep: Sweep, cell_id: str) -> str:
    return sweep.methods[cell_id] + (" (baseline)" if cell_id == sweep.baseline else "")


def other_code_rows(sweep: Sweep) -> list[str]:
    """Rows to mark where the results are of several code ids: those not made by the leading one.

    The leading one is the code that is here now if it made any result, else the most frequent.
    """
    found = [(row.cell_id, row.code_ids) for row in sweep.rows if row.code_ids]
    every = sorted(code for _, codes in found for code in codes)
    if len(set(every)) < 2:
        return []
    leading = sweep.code_id if sweep.code_id in every else max(every, key=every.count)
    return list(dict.fromkeys(cell_id for cell_id, codes in found if codes != {leading}))


def protocol_letters(sweep: Sweep, column: Column, metric: str) -> dict[str, str]:
    """Protocol -> its letter, over the whole report; empty where the column has only one."""
    if len(protocols(sweep.rows, column, metric)) < 2:
        return {}
    return {p: MARKS[i % len(MARKS)] for i, p in enumerate(all_protocols(sweep))}


def all_protocols(sweep: Sweep) -> list[str]:
    """Every protocol that a figure of this report was measured by, in the order of the columns."""
    found = [
        r.protocol_key for c in sweep.columns for r in sweep.rows if r.column == c and r.metrics
    ]
    return list(dict.fromkeys(found))


def _marks(sweep: Sweep, cell_id: str, column: Column, letters: dict[str, str]) -> str:
    if not letters:
        return ""
    used = [
        letters[row.protocol_key]
        for row in sweep.rows
        if row.cell_id == cell_id and row.column == column and row.protocol_key in letters
    ]
    return f" [{', '.join(dict.fromkeys(used))}]" if used else ""


def _notes(sweep: Sweep, metric: str, counts: set[int], mixed: list[str]) -> tuple[str, ...]:
    notes = []
    if counts == {1}:
        notes.append("n = 1 seed: no spread between seeds is known.")
    elif counts:
        fewer = ", where a figure does not say that it has fewer" if len(counts) > 1 else ""
        notes.append(f"Mean ± standard deviation over n = {max(counts)} seeds{fewer}.")
    used = {
        (row.protocol.get("samples"), row.protocol.get("reference_images"))
        for row in sweep.rows
        if metric in row.metrics
    }
    if len(used) == 1:
        samples, real = used.pop()
        notes.append(f"Each figure is of {samples} generated images; FID is to {real} real ones.")
    if mixed:
        notes.append(
            f"At {', '.join(mixed)} the figures are of different protocols [letters: see "
            "Provenance] and must not be compared; none is marked as best."
        )
    return tuple(notes)


def escaped(text: str) -> str:
    """Text that Markdown takes literally, wherever it stands in a line."""
    text = html.escape(text, quote=False).replace("\n", " ")
    return _SPECIAL.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), text)


# A bracket makes a link or a picture only before another one; an underscore inside a word nothing.
_SPECIAL = re.compile(r"[|*`\\~]|\](?=[\[(:])|(?<!\w)_|_(?!\w)")


def markdown(table: Table) -> str:
    """The table without its title and its notes."""
    lines = ["| " + " | ".join(escaped(name) for name in table.header) + " |"]
    lines.append(
        "|"
        + "|".join([":---"] + ["---:" if table.numeric else ":---"] * (len(table.header) - 1))
        + "|"
    )
    for row in table.rows:
        cells = (f"**{escaped(c.text)}**" if c.best else escaped(c.text) for c in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "×": r"$\times$", "±": r"$\pm$", "−": "$-$", "–": "--", "↓": r"$\downarrow$",
    "↑": r"$\uparrow$", "†": r"$\dagger$",
}  # fmt: skip


def latex(table: Table) -> str:
    """A `tabular` with booktabs' rules, its title as a comment."""

    def escape(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    def line(cells: list[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = [
        line([rf"\textbf{{{escape(c.text)}}}" if c.best else escape(c.text) for c in row])
        for row in table.rows
    ]
    if table.rows and table.rows[-1][0].text == FLOOR_NAME:
        body.insert(-1, r"\midrule")
    notes = [f"% {escape(note)}" for note in table.notes]
    lines = [f"% {table.title}", *notes, rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}"]
    lines += [r"\toprule", line([escape(name) for name in table.header]), r"\midrule"]
    return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def long_frame(sweep: Sweep) -> pd.DataFrame:
    """One row for each cell, column, seed and metric that is measured."""
    return pd.DataFrame(
        [_long(sweep, row, metric) for row in sweep.rows for metric in row.metrics],
        columns=[
            "cell_id", "method", "settings", "height", "width", "column", "seed", "metric",
            "value", "floor", "samples", "reference", "reference_images", "extractor",
            "extractor_sha256", "code_id", "state", "eval_id", "run_id",
        ],
    )  # fmt: skip


def _long(sweep: Sweep, row: Row, metric: str) -> dict[str, Any]:
    known = ("samples", "reference", "reference_images", "extractor", "extractor_sha256")
    return {
        "cell_id": row.cell_id,
        "method": row.method,
        "settings": sweep.labels[row.cell_id],
        "height": row.column.resolution[0],
        "width": row.column.resolution[1],
        "column": pixels(row.column.resolution, "x")
        + "".join(f" {k}={v}" for k, v in row.column.rest),
        "seed": row.seed,
        "metric": metric,
        "value": row.metrics[metric],
        "floor": row.floor.get(metric),
        "code_id": " ".join(sorted(row.code_ids)),
        "state": row.state,
        "eval_id": row.eval_id,
        "run_id": row.run_id,
    } | {key: row.protocol.get(key) for key in known}
