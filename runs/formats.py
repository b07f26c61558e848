"""A table as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memorization_suite.runs.files import csv_text, marked
from memorization_suite.runs.text import markdown_table


@dataclass(frozen=True)
class Cell:
    """A number of a table, or a text."""

    text: str
    # For files: the number, and the ends of its interval; None for a text.
    numbers: tuple[float, float, float] | None = None
    # Whether no other one of its column is as good, beyond the paired interval.
    best: bool = False


@dataclass(frozen=True)
class Listed:
    """A table, and what stands below it."""

    # Column -> cell; a row may lack some.
    rows: list[dict[str, Cell]]
    caption: str = ""

    @property
    def columns(self) -> list[str]:
        """Their names, in the order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def lines(self) -> list[list[Cell]]:
        """The cells of each row, an empty one for what it lacks."""
        return [[row.get(name, Cell("")) for name in self.columns] for row in self.rows]


# What LaTeX reads otherwise than as itself.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
# And Markdown, in a cell.
MARKED = {letter: f"\\{letter}" for letter in "\\`*_[]<>|"}


def markdown(table: Listed, made: str = "") -> str:
    """For documents. made: how it came about, a sentence."""
    names = [escaped(name, MARKED) for name in table.columns]
    rows = []
    for cells in table.lines():
        texts = [escaped(cell.text, MARKED) for cell in cells]
        bold = [f"**{text}**" if cell.best else text for text, cell in zip(texts, cells)]
        rows.append(dict(zip(names, bold)))
    below = f"{escaped(table.caption, MARKED)} {made}".strip()
    return markdown_table(rows) + (f"\n{below}\n" if below else "")


def latex(table: Listed, made: str = "") -> str:
    """With booktabs, for a paper. The label is the author's."""
    names = table.columns
    lines = [
        *([f"% {' '.join(made.split())}"] if made else []),
        r"\begin{table}",
        *([f"  \\caption{{{escaped(table.caption, SPECIAL)}}}"] if table.caption else []),
        f"  \\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}",
        r"    \toprule",
        line_of([Cell(name) for name in names]),
        r"    \midrule",
        *[line_of(cells) for cells in table.lines()],
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def line_of(cells: Sequence[Cell]) -> str:
    """A row of LaTeX."""
    texts = []
    for cell in cells:
        text = escaped(cell.text, SPECIAL)
        texts.append(f"\\textbf{{{text}}}" if cell.best else text)
    # After the \\ of the row before, these two would be its argument.
    guard = "{}" if texts and texts[0].startswith(("[", "*")) else ""
    return f"    {guard}{' & '.join(texts)} \\\\"


def escaped(text: str, special: dict[str, str]) -> str:
    """The text with every special letter as itself, in one line."""
    return "".join(special.get(letter, letter) for letter in " ".join(text.split()))


def csv(table: Listed, made: str = "") -> str:
    """Numbers in columns of their own: mean, low and high. What made it is a column, too."""
    numbered = {name for row in table.rows for name, cell in row.items() if cell.numbers}
    rows = []
    for line in table.lines():
        cells: dict[str, object] = {}
        for name, cell in zip(table.columns, line):
            if name not in numbered:
                cells[name] = cell.text
                continue
            texts = [f"{value:.6g}" for value in cell.numbers or ()] or ["", "", ""]
            cells |= dict(zip((name, f"{name} low", f"{name} high"), texts))
        cells |= {"made by": made} if made else {}
        rows.append({name: marked(value) for name, value in cells.items()})
    return csv_text(rows)


# Ending of a file -> what writes it.
FORMATS: dict[str, Callable[[Listed, str], str]] = {"md": markdown, "csv": csv, "tex": latex}
