"""What went wrong, said to a person: what was got, what is allowed, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can mend; its text is the whole message, one or two lines.

    The commands print it and exit with status 2, without a traceback.
    """


class UnreachableError(UserError):
    """Something that is wanted does not answer now; nothing is lost, and later it will.

    The commands print it and exit with status 1.
    """


def short(text: str) -> str:
    """`text` for a message: on one line, cut at 80 characters."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def got(value: object) -> str:
    """`value` for a message, as Python writes it, cut at 80 characters."""
    return short(repr(value))


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the choice most like `word`, or nothing where none is like it."""
    choices = list(choices)
    fields = {choice.rsplit(".", 1)[-1]: choice for choice in choices}
    field = word.rsplit(".", 1)[-1]
    if "." in word and field in fields:  # the right field under the wrong section
        match: str | None = fields[field]
    else:
        match = next(iter(get_close_matches(word, choices, n=1, cutoff=0.6)), None)
    return f"; did you mean '{match}'?" if match else ""
