"""Flags of every command that takes --prompts, and the words for what it takes."""

from __future__ import annotations

from typing import Any

from memorization_suite.runs.settings import unkeyed

FORMATS = ".csv, .tsv, .parquet, .jsonl, .txt"
HUB_SET = "hub:NAME:COLUMN[:SPLIT]"


def caption_column() -> Any:
    """The flag that names the column of the captions."""
    return unkeyed("", "column of the captions (default: caption, prompt, ...)", metavar="COL")
