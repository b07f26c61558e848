"""Texts for people that several commands print."""

from __future__ import annotations

from collections.abc import Iterable


def table_text(rows: list[dict[str, str]]) -> str:
    """Columns of equal width under their names; an empty column is left out."""
    padded = []
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if any(cells):
            width = max(map(len, [name, *cells]))
            padded.append([cell.ljust(width) for cell in [name, *cells]])
    lines = ["  ".join(cells).rstrip() for cells in zip(*padded)]
    return "\n".join(lines)


def markdown_table(rows: list[dict[str, str]]) -> str:
    """The same for a Markdown file, with every column."""
    lines = [markdown_line(rows[0]), "|" + "---|" * len(rows[0])]
    lines += [markdown_line(row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def markdown_line(cells: Iterable[str]) -> str:
    """A line of it."""
    return "| " + " | ".join(cells) + " |"
