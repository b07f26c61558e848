"""Captions that are longer than what the model's text encoder reads: said once, and noted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from memorization_suite.prompts.cut import Cut, cut_line
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.marks import names_of, number_of
from memorization_suite.runs.notices import say
from memorization_suite.runs.run_folder import Key
from memorization_suite.runs.text import counted
from memorization_suite.sampling.denoiser import Denoiser, Unusable

READER = "the text encoder"


def cuts(model: Denoiser, captions: Iterable[tuple[str, str]]) -> list[Cut]:
    """Those that are too long. captions: (which one it is, caption).

    None of a model whose tokens are not known.
    """
    found = []
    try:
        for where, caption in captions:
            lost = model.cut_tokens(caption)
            if lost:
                tokens = len(model.token_span(caption)) + lost
                found.append(Cut(where, tokens, lost, model.cut_text(caption)))
    except Unusable:
        return []
    return found


def say_cut(model: Denoiser, prompts: Collection[Prompt], what: str = "caption") -> list[Cut]:
    """Says which captions are cut, and returns them. what: they are called."""
    found = cuts(model, ((f"row {prompt.row}", prompt.caption) for prompt in prompts))
    if found:
        say(cut_line(found, len(prompts), READER, what))
    return found


def say_cut_alternatives(model: Denoiser, prompts: Collection[Prompt]) -> None:
    """The same of the other captions of these prompts."""
    others = []
    for prompt in prompts:
        for number, caption in enumerate(prompt.alternatives, 1):
            others.append((f"alternative {number} of row {prompt.row}", caption))
    found = cuts(model, others)
    if found:
        say(cut_line(found, len(others), READER, "alternative caption"))


def cut_of_sets(model: Denoiser, sets: Mapping[str, Collection[Prompt]]) -> dict[str, Any]:
    """Says which captions of each set are cut, and returns a fact for the manifest: tokens that did
    not fit by set and row.
    """
    noted = {}
    for name, prompts in sets.items():
        what = f"{name} caption" if len(sets) > 1 else "caption"
        found = say_cut(model, prompts, what)
        if found:
            noted[name] = {cut.where.removeprefix("row "): cut.lost for cut in found}
    return {"cut_tokens": noted} if noted else {}


def note_cut(rows: Iterable[dict], model: Denoiser) -> None:
    """Adds to rows of images.csv how many tokens of their caption did not fit."""
    rows = list(rows)
    with suppress(Unusable):
        lost = {caption: model.cut_tokens(caption) for caption in {row["prompt"] for row in rows}}
        for row in rows:
            row["cut_tokens"] = lost[row["prompt"]]


def say_lost(folder: Path, rows: Mapping[Key, Mapping[str, str]]) -> None:
    """Says where a method's own words were cut off, and where it found no room.

    folder: of the run. rows: of its images.csv, of the images that were made.
    """
    run = f"{folder.parent.name}/{folder.name}"
    lost = {key: number_of(row.get("tokens_lost")) or 0 for key, row in rows.items()}
    longer = {key: int(count) for key, count in lost.items() if count}
    if longer:
        say(
            f"{run}: in {of_images(longer, rows)} the caption with what was added is longer "
            f"than {READER} reads, and loses {span(longer.values())} tokens at its end "
            f"(tokens_lost in images.csv): {names_of(longer)}"
        )
    full = [key for key, row in rows.items() if number_of(row.get("padding_tokens")) == 0]
    if full:
        say(
            f"{run}: in {of_images(full, rows)} the caption fills {READER}, so there is no "
            f"padding to change (padding_tokens in images.csv): {names_of(full)}"
        )


def of_images(some: Collection[Key], every: Collection[Key]) -> str:
    """`3 of 8 images`."""
    return f"{len(some)} of {counted(len(every), 'image')}"


def span(numbers: Collection[int]) -> str:
    """`4`, `4 to 9`."""
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
