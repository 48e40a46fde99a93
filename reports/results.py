"""The tables of figures: metrics of all methods, and their differences to the baseline."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from reports import notes
from reports.column import Column
from reports.compare import difference, influence, interval
from reports.formats import NOTHING, arrow, noun, title
from reports.load import Row, Sweep
from reports.stats import (
    floors,
    marked,
    measured,
    protocols,
    reference_sign,
    several_seeds,
    spread,
    summaries,
    winners,
)
from reports.tables import FLOOR_NAME, MARKED, OTHER_CODE, Cell, Table

MOST_BEST = 3  # rows that coincide and are still called the best
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NOT_COMPARED, COINCIDES = "not compared", "="  # instead of a difference


def metric_table(sweep: Sweep, metrics: Sequence[str], where: str = "") -> Table:
    """Metrics of one extractor: a row per method in the order of the file, a column per resolution.

    The best of a column is bold, except where its figures are of more than one protocol: these
    carry the protocol's letter instead. A figure that must not be taken like the others carries
    a sign, and is never the best. `where` is said in the title.
    """
    most = max(counts) if (counts := _seed_counts(sweep, metrics)) else 0
    rows = {cell_id: [Cell(name)] for cell_id, name in _row_names(sweep).items()}
    real = [Cell(FLOOR_NAME)]
    for column in sweep.columns:
        for metric in metrics:
            cells = _cells(sweep, column, metric, most)
            for cell_id, row in rows.items():
                row.append(cells.get(cell_id, _empty(sweep, cell_id, column)))
            real.append(_floor(sweep, column, metric))
    told = [*notes.spreads(sweep, counts, metrics), *notes.measured_against(sweep, metrics)]
    told += [*_mixed(sweep, metrics), *notes.reasons(sweep, metrics)]
    told += [*notes.upsampled_references(sweep, metrics), *notes.blanks(sweep)]
    return Table(
        f"{title(*metrics)}{where} {arrow(metrics[0])}",
        _header(sweep, metrics),
        tuple(tuple(row) for row in [*rows.values(), real]),
        tuple(told),
    )


def _empty(sweep: Sweep, cell_id: str, column: Column) -> Cell:
    """A dash where a figure is not there yet, nothing where none was asked for, or `stopped`."""
    if (cell_id, column) in sweep.stopped:
        return Cell("stopped")
    return Cell(NOTHING if (cell_id, column) in sweep.asked else "")


def _cells(sweep: Sweep, column: Column, metric: str, most: int) -> dict[str, Cell]:
    """Cell id -> what a column says of it."""
    found = summaries(sweep.rows, column, metric)
    letters = protocol_letters(sweep, column, metric)
    doubtful = marked(sweep.rows, column, metric)
    top = [] if letters else winners(sweep.rows, column, metric)
    asked = sum(one == column for _, one in sweep.asked)
    # Nothing stands out where all rows or many coincide, or where there is only one.
    if len(top) == len(found) > 1 or len(top) > MOST_BEST or asked == 1:
        top = []
    behind = measured(sweep.rows, column, metric)
    cells = {cell_id: Cell(f"{NOTHING} {MARKED}") for cell_id in doubtful}  # not computed
    for cell_id, one in found.items():
        text = spread(metric, one) + (f" (n = {one.n})" if one.n < most else "")
        text += f" {MARKED}" if cell_id in doubtful else ""
        if letters:
            own = behind[cell_id].values()
            text += _lettered(letters[row.protocol_key(metric)] for row in own)
        cells[cell_id] = Cell(text, cell_id in top)
    return cells


def _floor(sweep: Sweep, column: Column, metric: str) -> Cell:
    letters = protocol_letters(sweep, column, metric)
    doubtful = marked(sweep.rows, column, metric)
    # As many images, so what is wrong with every row for its count is wrong with these.
    every = measured(sweep.rows, column, metric).keys()
    sign = f" {MARKED}" if every and every <= doubtful.keys() else ""
    told = [
        spread(metric, one) + sign + (_lettered([letters[key]]) if key in letters else "")
        for key, one in floors(sweep.rows, column, metric).items()
    ]
    return Cell("; ".join(told) or NOTHING)


def difference_table(sweep: Sweep, metrics: Sequence[str]) -> Table:
    """Each row minus the baseline, with the interval of the difference.

    It is the t interval over seeds, or with one seed the interval over the samples. In a column
    that the baseline does not have its twin of another training size stands in for it; without one
    the column is left out, and so is a row without any of the others.
    """
    assert sweep.baseline is not None
    baseline, absent, sweep = sweep.baseline, notes.without_baseline(sweep), sweep.of_baseline
    told = [
        f"{title(*metrics)} of the row minus that of {sweep.methods[baseline]} with the same seed "
        "(and so the same noise and labels); below 0 is better than it."
    ]
    told += [*notes.twins(sweep), *absent]
    over_samples = not several_seeds(sweep.rows)
    names = _row_names(sweep).items()
    rows = {cell_id: [Cell(name)] for cell_id, name in names if cell_id != baseline}
    seen: set[str] = set()  # what the notes have to explain
    without: dict[Path, tuple[str, str]] = {}  # files that an interval is missing for
    for column in sweep.columns:
        for metric in metrics:
            found = measured(sweep.rows, column, metric)
            held_to = sweep.baselines[column]
            theirs = found.get(held_to, {})
            doubtful = marked(sweep.rows, column, metric)
            for cell_id, row in rows.items():
                if (cell_id, column) not in sweep.asked:
                    row.append(Cell(""))
                    continue
                ours = found.get(cell_id, {})
                if (cell_id, column) in sweep.stopped and not ours:
                    row.append(_empty(sweep, cell_id, column))
                    continue
                text, kind = _difference(ours, theirs, metric, over_samples, len(sweep.seeds))
                sign = (
                    text not in (NOT_COMPARED, COINCIDES) and {cell_id, held_to} & doubtful.keys()
                )
                row.append(Cell(f"{text} {MARKED}" if sign else text))
                seen.add(kind)
                if kind == "alone" and over_samples:
                    for one in (*ours.values(), *theirs.values()):
                        if one.influence and (wrong := influence(one, metric)[1]):
                            whose = f"{one.method} at {column.title}"
                            without.setdefault(one.influence, (wrong, whose))
    if "seeds" in seen:
        told.append(
            "Mean over seeds [95 % t interval of the mean]; each interval is for its own "
            "comparison, none is widened for there being many."
        )
    if "samples" in seen:
        told.append(
            "One seed: in brackets is the 95 % interval over the samples, sample i of one row "
            "paired with sample i of the other. How much training seeds differ is not in it."
        )
    if any(cell.text == COINCIDES for row in rows.values() for cell in row):
        told.append(f"{COINCIDES} is the baseline's own evaluation: the methods coincide there.")
    heading = f"{title(*metrics)}: difference to the baseline"
    told += [*notes.without_influence(without), *notes.reasons(sweep, metrics)]
    told += [*notes.upsampled_references(sweep, metrics), *notes.blanks(sweep)]
    return Table(heading, _header(sweep, metrics), tuple(map(tuple, rows.values())), tuple(told))


def _difference(
    ours: Mapping[int, Row], theirs: Mapping[int, Row], metric: str, over_samples: bool, seeds: int
) -> tuple[str, str]:
    """What a cell says, and what its interval is over (`alone`: it has none)."""
    found = difference(ours, theirs, metric, over_samples)
    if found is None:
        return NOTHING, ""
    both = ours.keys() & theirs.keys()
    if len({one[seed].protocol_key(metric) for one in (ours, theirs) for seed in both}) > 1:
        return NOT_COMPARED, ""
    if all(ours[seed].evaluation == theirs[seed].evaluation for seed in both):
        return COINCIDES, ""
    values = ([row.metrics[metric] for row in one.values()] for one in (ours, theirs))
    text = interval(metric, found, min(sum(own) / len(own) for own in values))
    few = f" (n = {found.n})" if 1 < found.n < seeds else ""
    return text + few, found.over if found.low is not None else "alone"


def _row_names(sweep: Sweep) -> dict[str, str]:
    """Cell id -> `RoPE (baseline) †`: the method, and that other code made its results."""
    other = set(other_code_rows(sweep))
    return {
        cell_id: name
        + (" (baseline)" if cell_id == sweep.baseline else "")
        + (f" {OTHER_CODE}" if cell_id in other else "")
        for cell_id, name in sweep.methods.items()
    }


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
    return all_protocols(sweep) if len(protocols(sweep.rows, column, metric)) > 1 else {}


def all_protocols(sweep: Sweep) -> dict[str, str]:
    """Every protocol that a figure of this report was measured by -> its letter.

    They are in the order of the columns: A to Z, then AA, BB, ...
    """
    size = len(ALPHABET)
    return {key: ALPHABET[i % size] * (1 + i // size) for i, key in enumerate(sweep.protocols)}


def _lettered(letters: Iterable[str]) -> str:
    return f" [{', '.join(dict.fromkeys(letters))}]"


def _header(sweep: Sweep, metrics: Sequence[str]) -> tuple[str, ...]:
    rows, first = sweep.rows, metrics[0]
    titles = [column.title + reference_sign(rows, column, first) for column in sweep.columns]
    if len(metrics) == 1:
        return ("method", *titles)
    return ("method", *(f"{name}\n{noun(metric)}" for name in titles for metric in metrics))


def _seed_counts(sweep: Sweep, metrics: Sequence[str]) -> set[int]:
    return {
        len(by_seed)
        for metric in metrics
        for column in sweep.columns
        for by_seed in measured(sweep.rows, column, metric).values()
    }


def _mixed(sweep: Sweep, metrics: Sequence[str]) -> list[str]:
    mixed = {
        column.title: None
        for column in sweep.columns
        for metric in metrics
        if protocol_letters(sweep, column, metric)
    }
    if not mixed:
        return []
    return [
        f"At {', '.join(mixed)} the figures are of different protocols [letters: see Provenance] "
        "and must not be compared; none is marked as best."
    ]
