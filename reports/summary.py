"""The report's opening paragraph: plain words computed from the figures."""

from reports.formats import counted, figure, signed
from reports.load import Column, Sweep
from reports.stats import best, by_seed, interval, paired, protocols, spread, summary


def paragraph(sweep: Sweep) -> str:
    """Which row has the lowest FID at each resolution, and what the seeds can say of it."""
    metric = sweep.fid
    if metric is None:
        return "No evaluation is finished yet, so there is nothing to say."
    sentences = [text for column in sweep.columns if (text := _column(sweep, column, metric))]
    counts = {
        len(values)
        for column in sweep.columns
        for values in by_seed(sweep.rows, column, metric).values()
    }
    if max(counts) == 1:
        sentences.append(
            "Every row has one seed: there is no spread between seeds, so how much of a "
            "difference is chance is not known."
        )
    elif len(counts) > 1:
        sentences.append(
            f"The rows have {min(counts)} to {max(counts)} seeds, so their means are not all over "
            "the same ones."
        )
    if max(counts) > 1 and sweep.baseline is not None:
        sentences.append(
            "An interval is the 95 % t interval of the mean difference to the baseline over the "
            "seeds that both have; the best row was picked after looking, which favours it."
        )
    return " ".join(sentences)


def _column(sweep: Sweep, column: Column, metric: str) -> str | None:
    values = by_seed(sweep.rows, column, metric)
    if not values:
        return None
    where = f"At {column.title}"
    if len(protocols(sweep.rows, column, metric)) > 1:
        return f"{where} the rows were measured by more than one protocol and are not compared."
    means = {cell_id: summary(v.values()).mean for cell_id, v in values.items()}
    winners = best(means, metric)
    if not winners:
        return f"{where} no FID is finite."
    asked = {row.cell_id for row in sweep.rows if row.column == column}
    so_far = (
        f" of the {len(values)} of {len(asked)} rows measured so far" if asked - set(values) else ""
    )
    figures = spread(metric, summary(values[winners[0]].values()))
    if len(winners) > 1:
        first, second, *more = (sweep.methods[one] for one in winners)
        others = f"{len(more) + 1} other rows" if more else second
        have = f"{where} {first} and {others}, which coincide there, have the lowest FID{so_far}"
        have += f", {figures}"
    else:
        have = f"{where} {sweep.methods[winners[0]]} has the lowest FID{so_far}, {figures}"
    return f"{have}{_against_baseline(sweep, column, metric, winners)}."


def _against_baseline(sweep: Sweep, column: Column, metric: str, winners: list[str]) -> str:
    baseline = sweep.baseline
    if baseline is None:
        return ""
    values = by_seed(sweep.rows, column, metric)
    if baseline not in values:
        return "; the baseline is not measured there yet"
    name = sweep.methods[baseline]
    if baseline in winners:
        return "; the baseline is among them" if len(winners) > 1 else "; no row beats the baseline"
    mean = summary(values[baseline].values()).mean
    difference = paired(values[winners[0]], values[baseline])
    told = f"; the baseline {name} has {figure(metric, mean)}"
    if difference is None:
        return f"{told}, with no seed in common"
    if difference.low is None:
        return f"{told}, a difference of {signed(metric, difference.mean, mean)} on one seed"
    ours = summary(values[winners[0]].values()).mean
    told += f", a difference of {interval(metric, difference, ours)}"
    told += f" over {counted(difference.n, 'seed')}"
    if difference.excludes_zero:
        return f"{told}, and the interval excludes 0"
    return f"{told}: the interval includes 0, so these seeds do not tell the two apart"
