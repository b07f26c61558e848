"""A table as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memorization_suite.experiments.evidence.base import Cell, Listed
from memorization_suite.runs.files import csv_text
from memorization_suite.runs.text import markdown_table

# What LaTeX reads otherwise than as itself.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}
# And Markdown, in a cell.
MARKED = {letter: f"\\{letter}" for letter in "\\`*_[]<>|"}


def markdown(table: Listed, made: str) -> str:
    """For documents. made: how it came about, a sentence."""
    rows = []
    for row in table.rows:
        cells = {}
        for name, cell in row.items():
            text = escaped(cell.text, MARKED)
            cells[escaped(name, MARKED)] = f"**{text}**" if cell.best else text
        rows.append(cells)
    return f"{markdown_table(rows)}\n{escaped(table.caption, MARKED)} {made}\n"


def latex(table: Listed, made: str) -> str:
    """With booktabs, for a paper. The label is the author's."""
    names = list(table.rows[0])
    lines = [
        f"% {' '.join(made.split())}",
        r"\begin{table}",
        f"  \\caption{{{escaped(table.caption, SPECIAL)}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}",
        r"    \toprule",
        line_of([Cell(name) for name in names]),
        r"    \midrule",
        *[line_of(list(row.values())) for row in table.rows],
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
    return f"    {' & '.join(texts)} \\\\"


def escaped(text: str, special: dict[str, str]) -> str:
    """The text with every special letter as itself, in one line."""
    return "".join(special.get(letter, letter) for letter in " ".join(text.split()))


def csv(table: Listed, made: str) -> str:
    """Numbers in columns of their own: mean, low and high. What made it is a column, too."""
    rows = []
    for row in table.rows:
        cells: dict[str, object] = {}
        for name, cell in row.items():
            if cell.numbers is None:
                cells[name] = cell.text
                continue
            cells[name] = f"{cell.numbers.value:.6g}"
            cells[f"{name} low"] = f"{cell.numbers.low:.6g}"
            cells[f"{name} high"] = f"{cell.numbers.high:.6g}"
        rows.append({**cells, "made by": made})
    return csv_text(rows)


# Ending of a file -> what writes it.
FORMATS: dict[str, Callable[[Listed, str], str]] = {"md": markdown, "csv": csv, "tex": latex}
