"""A progress bar with images per second and time left, on a terminal only."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft


class Advance(Protocol):
    """Says that so many more images are done."""

    def __call__(self, images: int) -> None: ...


class _Rate(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task):  # type: ignore[no-untyped-def]
        self.text_format = f"{task.speed:.0f} images/s" if task.speed else ""
        return super().render(task)


@contextmanager
def progress(what: str, images: int, shown: bool = True) -> Iterator[Advance]:
    """Show how much of so many images is done; the value says that more are."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(),
               TimeLeft(compact=True))  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (shown and sys.stderr.isatty())) as bar:
        task = bar.add_task(what, total=images)

        def advance(images: int) -> None:
            bar.advance(task, images)

        yield advance
