"""Prompt sets: a local file, or a sample of a data set by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.runs.files import write_csv

HUB = re.compile(r"hub:(?P<name>[^:]+):(?P<column>[^:]+)(:(?P<split>[^:]+))?")


def check_source(flag: str, source: str) -> None:
    """Raises ValueError when a prompt set is neither a readable file nor written as
    hub:NAME:COLUMN[:SPLIT].
    """
    if not source.startswith("hub:"):
        read_prompts(Path(source))
    elif not HUB.fullmatch(source):
        raise ValueError(
            f"--{flag} {source!r}: a data set is written hub:NAME:COLUMN or hub:NAME:COLUMN:SPLIT"
        )


def read_source(source: str, folder: Path, count: int, seed: int) -> list[Prompt]:
    """Prompts of a file, or `count` rows of a data set, drawn with a seed and written into `folder`
    first; later runs read that file.

    Raises ValueError for a source that cannot be read.
    """
    if not source.startswith("hub:"):
        return read_prompts(Path(source))
    path = folder / f"{re.sub('[^A-Za-z0-9]+', '-', source)}_{count}_seed{seed}.csv"
    if not path.exists():
        captions = read_hub(source)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(captions))[:count]).tolist()
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(path, ({"Caption": captions[i], "Index": i} for i in chosen))
    return read_prompts(path)


def read_hub(source: str) -> list[str]:
    """All texts of a column that are not empty, each once. Raises ValueError with one message,
    whatever the library raises.
    """
    import datasets

    parts = HUB.fullmatch(source)
    assert parts is not None  # check_source was asked
    name, column, split = parts["name"], parts["column"], parts["split"] or "train"
    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises a dozen kinds
        raise ValueError(
            f"cannot load the data set {name!r} (split {split}): it is not on this machine and the "
            "hub cannot be reached, or has no "
            f"such data set or split ({type(error).__name__}). A prompt file works too."
        ) from error
    if column not in table.column_names:
        raise ValueError(
            f"the data set {name} has no column {column!r}; it has {', '.join(table.column_names)}"
        )
    texts = dict.fromkeys(
        " ".join(text.split())
        for text in table[column][:]
        if isinstance(text, str) and text.strip()
    )
    if not texts:
        raise ValueError(f"the column {column!r} of {name} holds no text")
    return list(texts)
