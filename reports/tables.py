"""Tables: built once, written as Markdown and as LaTeX (booktabs)."""

import html
import re
from dataclasses import dataclass
from itertools import groupby

OTHER_CODE, MARKED = "†", "‡"  # made by other code than the rest; not to be taken like the rest
UPSAMPLED = "§"  # of a column: measured against images that were enlarged
FLOOR_NAME = "real images (floor)"


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A title, a header, and rows as long as the header; the first column names the row.

    A name in the header may have two lines: columns that stand together share the first.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    numeric: bool = True  # columns after the first are set to the right


def table(title: str, header: list[str], rows: list[list[str]], numeric: bool = False) -> Table:
    """A table without marks or notes."""
    body = tuple(tuple(map(Cell, row)) for row in rows)
    return Table(title, tuple(header), body, numeric=numeric)


def escaped(text: str) -> str:
    """Text that Markdown takes literally, wherever it stands in a line."""
    text = html.escape(text, quote=False).replace("\n", " ")
    return _SPECIAL.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), text)


# A bracket makes a link or a picture only before another one; an underscore inside a word nothing.
_SPECIAL = re.compile(r"[|*`\\~]|\](?=[\[(:])|(?<!\w)_|_(?!\w)")


def markdown(table: Table) -> str:
    """The table without its title and its notes."""
    header = (escaped(name.replace("\n", " · ")) for name in table.header)
    lines = ["| " + " | ".join(header) + " |"]
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
    "↑": r"$\uparrow$", "†": r"$\dagger$", "‡": r"$\ddagger$", "∞": r"$\infty$", "³": "$^3$",
    "§": r"\S{}", "≤": r"$\leq$",
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
    shared, names = zip(*(name.rpartition("\n")[::2] for name in table.header), strict=True)
    lines += [r"\toprule"]
    if any(shared):
        above, rules, place = [], [], 1
        for name, group in groupby(shared):
            width = len(list(group))
            if name:
                above.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(name)}}}")
                rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
            else:
                above += [""] * width
            place += width
        lines += [line(above), " ".join(rules)]
    lines += [line([escape(name) for name in names]), r"\midrule"]
    return "\n".join([*lines, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"
