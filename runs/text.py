"""Texts for people that several commands print."""

from __future__ import annotations

# Columns of a Markdown table that are wider in its source are not aligned there.
WIDEST = 60
WIDEST_LAST = 24


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
    """The same for a Markdown file, with every column; aligned in its source too, but for columns
    of long texts.
    """
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    limits = [WIDEST] * (len(widths) - 1) + [WIDEST_LAST]
    widths = [3 if width > limit else width for width, limit in zip(widths, limits)]
    lines.insert(1, ["-" * width for width in widths])
    texts = []
    for cells in lines:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths)]
        texts.append(f"| {' | '.join(padded)} |\n")
    return "".join(texts)
