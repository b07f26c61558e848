"""Texts for people that several commands print."""

from __future__ import annotations


def table_text(rows: list[dict[str, str]]) -> str:
    """Columns of equal width under their names; an empty column is left out."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    lines = []
    for row in [{name: name for name in columns}, *rows]:
        cells = [row[name].ljust(widths[name]) for name in columns]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(rows: list[dict[str, str]]) -> str:
    """The same for a Markdown file, with every column."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
