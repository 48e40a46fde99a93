"""The report in words: its opening paragraph, and the lines that a terminal shows."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from reports.column import Column
from reports.compare import Difference, difference, interval, places_of
from reports.formats import counted, family, figure, listed, noun, percent, signed, title
from reports.load import Row, Sweep, leading
from reports.notes import upsampled_references
from reports.stats import (
    Summary,
    floors,
    largest,
    marked,
    measured,
    protocols,
    several_seeds,
    spread,
    summaries,
    upsampled,
    winners,
)
from reports.tables import MARKED, UPSAMPLED

RANKED = 6  # rows that the headline names after the best


def paragraph(sweep: Sweep) -> str:
    """Which row has the lowest FID at each resolution, and what seeds or samples can say of it."""
    fid, patch = leading(sweep.rows)
    if fid is None:
        return "No evaluation is finished yet, so there is nothing to say."
    sentences = [_column(sweep, column, fid) for column in sweep.columns]
    if patch is not None:
        told = _column(sweep, largest(sweep.rows, patch), patch)
        sentences.append(f"Detail, which {noun(fid)} hardly sees: {told[0].lower()}{told[1:]}")
    sentences += [note.removeprefix(f"{UPSAMPLED} ") for note in upsampled_references(sweep, [fid])]
    return " ".join([*filter(None, sentences), *_certainty(sweep, fid)])


def _certainty(sweep: Sweep, metric: str) -> list[str]:
    """What the intervals and spreads of the paragraph are over."""
    counts = {
        one.n for column in sweep.columns for one in summaries(sweep.rows, column, metric).values()
    }
    told = []
    if max(counts) == 1:
        if any(metric in row.intervals for row in sweep.rows):
            told.append(
                "Every row has one seed: an interval is the 95 % interval over the samples, that "
                "of a difference over paired samples (the same noise and labels); how much "
                "training seeds differ is not known."
            )
        else:
            told.append(
                "Every row has one seed: there is no spread between seeds, so how much of a "
                "difference is chance is not known."
            )
    elif len(counts) > 1:
        told.append(
            f"The rows have {min(counts)} to {max(counts)} seeds, so their means are not all over "
            "the same ones."
        )
    if max(counts) > 1 and sweep.baseline is not None:
        told.append(
            "An interval is the 95 % t interval of the mean difference to the baseline over the "
            "seeds that both have; the best row was picked after looking, which favours it."
        )
    return told


def _column(sweep: Sweep, column: Column, metric: str) -> str:
    found = summaries(sweep.rows, column, metric)
    if not found:
        return ""
    where, name = f"At {column.title}", _name(sweep, metric)
    if len(protocols(sweep.rows, column, metric)) > 1:
        return f"{where} the rows were measured by more than one protocol and are not compared."
    if found.keys() <= marked(sweep.rows, column, metric).keys():
        return f"{where} every {name} is marked {MARKED}, so none is called the lowest."
    top = winners(sweep.rows, column, metric)
    if not top:
        return f"{where} no {name} is finite."
    asked = {row.cell_id for row in sweep.rows if row.column == column}
    if len(asked) == 1 < len(sweep.methods):
        return f"{where} there is only {sweep.methods[top[0]]}: {spread(metric, found[top[0]])}."
    so_far = _so_far(sweep, column, len(found), asked - found.keys())
    lowest = f"the lowest {name}{so_far}, {spread(metric, found[top[0]])}"
    if len(top) > 1:
        first, second, *more = (sweep.methods[one] for one in top)
        others = f"{len(more) + 1} other rows" if more else second
        have = f"{where} {first} and {others}, which coincide there, have {lowest}"
    else:
        have = f"{where} {sweep.methods[top[0]]} has {lowest}"
    return f"{have}{_against_baseline(sweep, column, metric, top)}."


def _so_far(sweep: Sweep, column: Column, count: int, absent: Collection[str]) -> str:
    """Of how many rows the best one is the best, where some have no figure."""
    if not absent:
        return ""
    coming = any((cell_id, column) not in sweep.stopped for cell_id in absent)
    why = "measured so far" if coming else "that were not stopped early"
    return f" of the {count} of {count + len(absent)} rows {why}"


def _name(sweep: Sweep, metric: str) -> str:
    """`FID`, or where the report has more than one `FID (fashion-cnn)`."""
    alike = [other for other in sweep.metrics if family(other) == family(metric)]
    return noun(metric) if len(alike) == 1 else title(metric)


def _against_baseline(sweep: Sweep, column: Column, metric: str, top: list[str]) -> str:
    if sweep.baseline is None:
        return ""
    baseline = sweep.baselines.get(column)
    if baseline is None:
        return "; the baseline has no such column"
    found = summaries(sweep.rows, column, metric)
    if baseline not in found:
        ended = (baseline, column) in sweep.stopped
        return (
            "; the baseline was stopped early"
            if ended
            else ("; the baseline is not measured there yet")
        )
    if baseline in top:
        return "; the baseline is among them" if len(top) > 1 else "; no row beats the baseline"
    mean = found[baseline].mean
    told = f"; the baseline {sweep.methods[baseline]} has {figure(metric, mean)}"
    change = _difference(sweep.rows, column, metric, top[0], baseline)
    if change is None:
        return f"{told}, with no seed in common"
    if change.low is None:
        alone = signed(metric, change.mean, places_of(metric, change, mean))
        return f"{told}, a difference of {alone} on one seed"
    told += f", a difference of {interval(metric, change, found[top[0]].mean)}"
    told += f" over {change.over if change.over == 'samples' else counted(change.n, 'seed')}"
    if change.excludes_zero:
        return f"{told}, and the interval excludes 0"
    return f"{told}: the interval includes 0, so these {change.over} do not tell the two apart"


def _difference(
    rows: Sequence[Row], column: Column, metric: str, ours: str, theirs: str
) -> Difference | None:
    found = measured(rows, column, metric)
    return difference(found[ours], found[theirs], metric, not several_seeds(rows))


def headline(rows: Sequence[Row]) -> list[str]:
    """The figures that matter, as lines for a terminal: those of the largest resolution.

    The best row; the baseline and the paired difference to it; the other rows and the floor; a
    line for each other training size that the baseline has a twin of; and which row has the lowest
    patch FID.
    """
    fid, patch = leading(rows)
    if fid is None:
        return ["no evaluation is finished yet"]
    lines = _ranking(rows, fid) + _of_twins(rows, fid)
    return lines + ([_patch_line(rows, patch)] if patch is not None else [])


def _ranking(rows: Sequence[Row], metric: str) -> list[str]:
    column = largest(rows, metric)
    where = _where(rows, column, metric)
    if why := _why_none(rows, column, metric):
        return [f"{where}: {why}"]
    first = winners(rows, column, metric)[0]
    found = summaries(rows, column, metric)
    names = {row.cell_id: row.method for row in rows}
    baseline = next((row.cell_id for row in rows if row.is_baseline), None)
    seeds = sorted({one.n for one in found.values()})
    count = counted(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    sign = dict.fromkeys(marked(rows, column, metric), f" {MARKED}")

    lines = [f"{where}, {count}: best is {names[first]} {spread(metric, found[first])}"]
    if baseline == first:
        lines[0] += " (the baseline)"
    elif baseline in found:
        told = f"{names[baseline]} {spread(metric, found[baseline])}{sign.get(baseline, '')}"
        lines.append(f"baseline: {told}")
        change = _difference(rows, column, metric, first, baseline)
        if change:
            lines[-1] += f"; difference of the best {interval(metric, change, found[first].mean)}"
            over = counted(change.n, "seed") if change.n > 1 else change.over
            lines[-1] += f" over {over}" if change.low is not None else ""
    ranked = sorted(found, key=lambda cell_id: found[cell_id].mean)
    others = [one for one in ranked if found[one].mean != found[first].mean and one != baseline]
    last = []
    if others:
        more = f" and {len(others) - RANKED} more" if len(others) > RANKED else ""
        each = (
            f"{names[one]} {_short(metric, found[one])}{sign.get(one, '')}"
            for one in others[:RANKED]
        )
        last.append("then " + " · ".join(each) + more)
    real = floors(rows, column, metric)
    if real:
        last.append(f"real images: {_short(metric, next(iter(real.values())))}")
    return lines + ([" | ".join(last)] if last else [])


def _of_twins(rows: Sequence[Row], metric: str) -> list[str]:
    """For each twin of the baseline who is best at its largest size, and the difference to it."""
    lines = []
    for twin in dict.fromkeys(row.cell_id for row in rows if row.is_twin):
        columns = {row.column for row in rows if row.is_twin and row.cell_id == twin}
        there = [
            replace(row, is_baseline=row.cell_id == twin) for row in rows if row.column in columns
        ]
        if any(metric in row.metrics for row in there):
            lines.append(" | ".join(_ranking(there, metric)[:2]))
    return lines


def _where(rows: Sequence[Row], column: Column, metric: str) -> str:
    """`FID (fashion-cnn) at 48×48 (reference 100 % upsampled)`."""
    share = upsampled(rows, column)
    told = f" (reference {percent(share)} upsampled)" if share else ""
    return f"{title(metric)} at {column.title}{told}"


def _why_none(rows: Sequence[Row], column: Column, metric: str) -> str:
    """Why no row of a column is called best; nothing where one is."""
    if len(protocols(rows, column, metric)) > 1:
        return "measured by more than one protocol, so rows are not compared"
    if winners(rows, column, metric):
        return ""
    doubtful = marked(rows, column, metric)
    if summaries(rows, column, metric).keys() <= doubtful.keys():
        reasons = dict.fromkeys(reason for own in doubtful.values() for reason in own)
        return f"every figure is marked {MARKED} ({listed(reasons)}), so none is called best"
    return "no figure is finite and without a mark, so none is called best"


def _patch_line(rows: Sequence[Row], metric: str) -> str:
    """Which row is best where detail counts, in one line."""
    column = largest(rows, metric)
    where = _where(rows, column, metric)
    if why := _why_none(rows, column, metric):
        return f"{where}: {why}"
    top = winners(rows, column, metric)
    found = summaries(rows, column, metric)
    names = {row.cell_id: row.method for row in rows}
    told = [f"{where}: lowest is {names[top[0]]} {spread(metric, found[top[0]])}"]
    baseline = next((row.cell_id for row in rows if row.is_baseline), None)
    if baseline in found and baseline not in top:
        told.append(f"baseline: {_short(metric, found[baseline])}")
    real = floors(rows, column, metric)
    if real:
        told.append(f"real images: {_short(metric, next(iter(real.values())))}")
    return " | ".join(told)


def _short(metric: str, found: Summary) -> str:
    """Without an interval over samples, which a line of many figures has no room for."""
    return spread(metric, replace(found, low=None, high=None))
