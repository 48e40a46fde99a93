"""What stands below the tables of figures: what a figure is of, and why one is doubtful."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reports.formats import (
    BESIDE,
    FRECHET,
    INCEPTION,
    counted,
    extractor,
    family,
    in_order,
    listed,
    noun,
    percent,
    scaled,
    significant,
    title,
)
from reports.load import Row, Sweep
from reports.stats import floors, half_widths, marked, measured, several_seeds, upsampled
from reports.tables import MARKED, UPSAMPLED

OF_MANIFOLD = ("precision", "recall", "kid", "density", "coverage")  # against fewer real images
MOST_FILES = 5  # named below a table


def spreads(sweep: Sweep, counts: set[int], metrics: Sequence[str]) -> list[str]:
    """What a spread or an interval is over, and how far the samples alone leave figures open.

    Args:
        counts: the numbers of seeds behind the figures.
    """
    if not counts:
        return []
    widths = {metric: half_widths(sweep.rows, metric) for metric in metrics}
    ranges = [_range(metric, own) for metric, own in widths.items() if own]
    floor = any(
        one.low is not None
        for column in sweep.columns
        for metric in metrics
        for one in floors(sweep.rows, column, metric).values()
    )
    if counts == {1}:
        told = "n = 1 seed: no spread between seeds is known."
        rows = bool(ranges) and not several_seeds(sweep.rows)
        if rows or floor:
            of = "" if rows else " of the floor"
            told += f" In brackets is the 95 % interval{of} over the samples (infinitesimal "
            told += "jackknife, the reference held fixed)."
        if rows and _bare(sweep, metrics):
            told += " A figure without brackets has no interval: the samples give it none."
        return [told]
    fewer = ", where a figure does not say that it has fewer" if len(counts) > 1 else ""
    notes = [f"Mean ± standard deviation over n = {max(counts)} seeds{fewer}."]
    if ranges:
        brackets = "that of the floor in brackets, " if floor else ""
        notes += [
            "The samples alone, apart from seeds, leave a figure open by half of its 95 % interval "
            f"over samples, the reference held fixed: that of each seed is in table.csv, {brackets}"
            "and the smallest and largest stand below each table.",
            f"Over samples: {listed(ranges)}.",
        ]
    return notes


def _bare(sweep: Sweep, metrics: Sequence[str]) -> bool:
    """Whether a figure of a row has no interval over samples."""
    return any(m in row.metrics and m not in row.intervals for row in sweep.rows for m in metrics)


def _range(metric: str, widths: Sequence[float]) -> str:
    ends = (significant(scaled(metric, end), 2) for end in (min(widths), max(widths)))
    return " to ".join(f"± {end}" for end in dict.fromkeys(ends)) + f" ({noun(metric)})"


def measured_against(sweep: Sweep, metrics: Sequence[str]) -> list[str]:
    """How many images are behind the figures: of all columns, or of those that have it alike."""
    alike: dict[str, dict[str, None]] = {}
    for column in sweep.columns:
        for metric in metrics:
            for by_seed in measured(sweep.rows, column, metric).values():
                for row in by_seed.values():
                    alike.setdefault(_images(row, metric), {})[column.title] = None
    if len(alike) == 1:
        return [f"Each figure is of {next(iter(alike))}."]
    return [f"Figures of {images}: {' · '.join(columns)}." for images, columns in alike.items()]


def _images(row: Row, metric: str) -> str:
    """`500 generated images, against 20000 real ones`."""
    protocol = row.protocols.get(extractor(metric), row.protocol)
    generated = f"{protocol.get('samples')} generated images"
    if family(metric) == "is":
        return generated
    real = "manifold_images" if family(metric) in OF_MANIFOLD else "reference_images"
    return f"{generated}, against {protocol.get(real)} real ones"


def without_influence(lost: Mapping[Path, tuple[str, str]]) -> list[str]:
    """Which files of influence values an interval is missing for, and what to do.

    Args:
        lost: file -> what is wrong with it (`missing`), whose it is (`RoPE at 24×24 (2×)`).
    """
    told = []
    for file, (wrong, whose) in list(lost.items())[:MOST_FILES]:
        kept = Path(*file.parts[-4:])  # runs/<run id>/eval/<file>: below outputs
        result = kept.with_name(kept.name.partition(".")[0] + ".json")
        told.append(
            f"No interval with {whose}: {kept} is {wrong}. To measure that evaluation again, "
            f"delete {result} and give the same sweep again."
        )
    if len(lost) > MOST_FILES:
        told.append(f"So it is with {counted(len(lost) - MOST_FILES, 'more such file')}.")
    return told


def upsampled_references(sweep: Sweep, metrics: Sequence[str]) -> list[str]:
    """Which columns are measured against enlarged images, and what that does to their figures."""
    if all(family(metric) == "is" for metric in metrics):  # it has no reference
        return []
    alike: dict[str, dict[str, None]] = {}
    for column in sweep.columns:
        if share := upsampled(sweep.rows, column):
            alike.setdefault(percent(share), {})[column.trained.title] = None
    return [
        f"{UPSAMPLED} The reference of {listed(titles)} is {share} upsampled from smaller "
        "originals: such figures favour blur."
        for share, titles in alike.items()
    ]


def blanks(sweep: Sweep) -> list[str]:
    """What a blank means, where a row does not have every column, and what `stopped` does."""
    ragged = len(sweep.asked) < len(sweep.columns) * len(sweep.methods)
    told = ["Blank: the row has no such column, so nothing is missing."] if ragged else []
    if sweep.stopped:
        told.append(
            "Stopped: early stopping ended a run of the row before it was measured there, so it "
            "has no result."
        )
    return told


def twins(sweep: Sweep) -> list[str]:
    """The columns where rows are compared with the baseline of another training size."""
    titles: dict[str, list[str]] = {}
    for column in sweep.columns:
        cell_id = sweep.baselines.get(column, sweep.baseline)
        if cell_id is not None and cell_id != sweep.baseline:
            titles.setdefault(cell_id, []).append(column.title)
    return [
        f"At {listed(own)}, which the baseline does not have, against {sweep.methods[cell_id]}: "
        "the baseline in all but its training size."
        for cell_id, own in titles.items()
    ]


def without_baseline(sweep: Sweep) -> list[str]:
    """The columns in which nothing can be compared with the baseline."""
    own = sweep.of_baseline.columns
    lacking = [column.title for column in sweep.columns if column not in own]
    if not lacking:
        return []
    return [f"The baseline has no column {listed(lacking)}, so there are no differences there."]


def reasons(sweep: Sweep, metrics: Sequence[str]) -> list[str]:
    """Why figures carry the sign or are not there, each reason once."""
    found: dict[str, dict[str, None]] = {}
    for column in sweep.columns:
        for metric in metrics:
            for own in marked(sweep.rows, column, metric).values():
                for reason in own:
                    found.setdefault(reason, {})[noun(metric)] = None
    return [f"{MARKED} {listed(names)}: {reason}." for reason, names in found.items()]


def not_computed(sweep: Sweep) -> list[str]:
    """Metrics that no row has, so that they have no table, each with the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for metric in in_order(metric for row in sweep.rows for metric in row.marks):
        if metric not in sweep.metrics:
            for row in sweep.rows:
                if metric in row.marks:
                    alike = found.setdefault((extractor(metric), row.marks[metric]), [])
                    alike += [] if metric in alike else [metric]
    return [f"{MARKED} No {title(*own)}: {reason}." for (_, reason), own in found.items()]


def what_they_are(sweep: Sweep) -> list[str]:
    """What the distances of this report can be compared with, and what patch FID is."""
    told = []
    for name in dict.fromkeys(map(extractor, sweep.metrics)):
        own = [m for m in sweep.metrics if extractor(m) == name and family(m) in FRECHET]
        if own and name != INCEPTION:
            told.append(
                f"{title(*own)}: no Inception FID, the features are those of {name}. It cannot be "
                "compared with published FIDs."
            )
    if any(family(metric) in BESIDE.values() for metric in sweep.metrics):
        told.append(
            "Patch FID is the same distance over a random crop of each image at its own "
            "resolution (the side is under Provenance). FID resizes images to the extractor's "
            "input, so that an upsampled small image can pass for a truly large one; a crop shows "
            "its missing detail."
        )
    return told
