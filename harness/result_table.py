"""A result of `harness.evaluate` as a table on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.files import Json


def show(result: Json) -> None:
    """The figures as a table, and what a reader must know of them."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("metric", "left"), ("value", "right"), ("95 % interval", "right"),
                           ("real images", "right")):  # fmt: skip
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    for name, value in result["metrics"].items():
        low_high = result["intervals"].get(name)
        told = f"{low_high[0]:.5g} to {low_high[1]:.5g}" if low_high else "–"
        floor = result["floor"].get(name)
        mark = " †" if name in result["marks"] else ""
        real = f"{floor:.5g}" if floor is not None else "–"
        table.add_row(name, f"{value:.5g}{mark}", told, real)
    console.print(table)
    for name, reason in result["marks"].items():
        console.print(f"† {name}: {reason}", soft_wrap=True, highlight=False, markup=False)
    samples = result["samples"]
    lines = [
        f"samples: {samples['count']} of {size_of(samples['size'])}, {samples['source']}, "
        f"sha256 {samples['digest'][:16]}"
    ]
    for name, facts in result["references"].items():
        lines.append(
            f"reference: {_counts(facts)} of {facts['source']}, digest {facts['digest'][:16]}; "
            f"{name}, weights {facts['extractor_sha256'][:16]}, crops of {facts['patch']}"
        )
    if not result["held_out"]:
        lines.append("real images: not measured; give some with --held-out for the floor")
    if result["left_out"]:
        lines.append(
            f"left out, because their weights are not on this machine: "
            f"{', '.join(result['left_out'])} (python -m harness.extractors says how to get them)"
        )
    if samples["distinct"] < samples["count"]:
        lines.append(
            f"only {samples['distinct']} of the samples are distinct images: the intervals take "
            "them for independent, and are too narrow"
        )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _counts(facts: Mapping[str, Any]) -> str:
    counts = {str(n) if n is not None else "an unknown number" for n in facts["counts"].values()}
    return " or ".join(sorted(counts)) + " images"


def size_of(size: Sequence[int]) -> str:
    """`24x32`: height, width."""
    return f"{size[0]}x{size[1]}"
