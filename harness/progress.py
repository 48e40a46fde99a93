"""A progress bar with images per second and time left, on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, images: int, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show how much of so many images is done; call the value with how many more are."""
    if not (shown and sys.stderr.isatty()):
        yield lambda more: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}"), TimeRemainingColumn(compact=True))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=images, rate="")

        def advance(more: int) -> None:
            bar.advance(task, more)
            if speed := bar.tasks[task].speed:
                bar.update(task, rate=f"{speed:.0f} images/s")

        yield advance
