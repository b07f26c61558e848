"""Prompt sets: a local file, or a sample of a data set by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from memorization_suite import tiny
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.runs.files import csv_text, write_bytes
from memorization_suite.runs.lazy import np
from memorization_suite.runs.notices import trial

# Folder of data sets by name, beside the runs that read them.
FOLDER = "prompt_sets"
HUB = re.compile(r"hub:(?P<name>[^:]+):(?P<column>[^:]+)(:(?P<split>[^:]+))?")


def prompt_sources(model_id: str, prompts: str, nonmem_prompts: str) -> tuple[str, str]:
    """The two prompt sets; an embedded model has its own. Raises ValueError when there is none."""
    if prompts:
        return prompts, nonmem_prompts
    if model_id not in tiny.MODELS:
        raise ValueError(
            "give the prompts to be looked at with --prompts (and ordinary ones to compare "
            "with --nonmem_prompts), or use the embedded model with --model_id tiny"
        )
    ordinary = nonmem_prompts or str(tiny.prompts(model_id, "ordinary_test"))
    return str(tiny.prompts(model_id)), ordinary


def read_local(
    flag: str, source: str, column: str = "", *, needed: bool = True
) -> list[Prompt] | None:
    """Prompts of a file; None for a data set by name, hub:NAME:COLUMN[:SPLIT].

    Raises ValueError when the source is neither. flag: where it was given. column, needed: as of
    `read_prompts`.
    """
    if not is_hub(source):
        return read_prompts(Path(source), column, needed=needed)
    check_hub(flag, source)
    if column and needed:
        raise ValueError(
            f"--{flag} {source} names its column: --caption_column is for prompt files"
        )
    return None


def read_again(path: Path, column: str = "") -> list[Prompt]:
    """As `read_prompts`; a file that many runs read, such as those of a sweep, is read once while
    it stays the same.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return read_prompts(path, column)
    return list(read_version(path, column, (status.st_mtime_ns, status.st_size, status.st_ino)))


@lru_cache(maxsize=8)
def read_version(path: Path, column: str, version: tuple[int, ...]) -> tuple[Prompt, ...]:
    """The prompts of a file of this version. Raises ValueError."""
    return tuple(read_prompts(path, column))


def is_hub(source: str) -> bool:
    """Whether a data set by name is meant, and no file."""
    return source.startswith("hub:")


def check_hub(flag: str, source: str) -> None:
    """Raises ValueError for what is no name of a data set. flag: where it was given."""
    if not HUB.fullmatch(source):
        raise ValueError(
            f"--{flag} {source!r}: a data set is written hub:NAME:COLUMN or hub:NAME:COLUMN:SPLIT"
        )


def prompt_file(source: str, folder: Path, column: str = "") -> Path:
    """The prompt file that is meant. All texts of a data set by name are written into
    folder/prompt_sets; later runs read that file.

    column: of the captions, as typed. Raises ValueError, also for a data set that cannot be read.
    """
    if not is_hub(source):
        return Path(source)
    read_local("prompts", source, column)
    name = re.sub("[^A-Za-z0-9]+", "-", source)
    unlike = hashlib.sha256(source.encode()).hexdigest()[:8]
    path = folder / FOLDER / f"{name}_{unlike}.csv"
    if not path.exists():
        captions = read_hub(source)
        write_set(path, [{"Caption": captions[i], "Index": i} for i in range(len(captions))])
    return path


def other_column(file: Path, column: str, prompts: Sequence[Prompt]) -> str:
    """The column of the captions as it belongs to the identity of a run: empty where the file gives
    the same prompts without its name. prompts: of that column.
    """
    if not column:
        return ""
    try:
        with trial():
            return column if read_again(file) != list(prompts) else ""
    except ValueError:
        return column


def read_sample(source: str, folder: Path, count: int, seed: int) -> list[Prompt]:
    """`count` rows of a data set, drawn with a seed and written into `folder`; later runs read that
    file.

    Raises ValueError for a data set that cannot be read.
    """
    path = folder / f"{re.sub('[^A-Za-z0-9]+', '-', source)}_{count}_seed{seed}.csv"
    if not path.exists():
        captions = read_hub(source)
        drawn = np.random.default_rng(seed).permutation(len(captions))[:count]
        rows = [{"Caption": captions[i], "Index": i} for i in np.sort(drawn).tolist()]
        write_set(path, rows)
    return read_prompts(path)


def write_set(path: Path, rows: Sequence[dict]) -> None:
    """A prompt file, whose texts are as they are. Raises ValueError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, csv_text(rows).encode())
    except OSError as error:
        raise ValueError(f"cannot write the prompts of a data set to {path}: {error}") from error


def read_hub(source: str) -> list[str]:
    """All texts of a column that are not empty, each once. Raises ValueError with one message,
    whatever the library raises.
    """
    import datasets

    parts = HUB.fullmatch(source)
    assert parts is not None  # read_local was asked
    name = parts["name"]
    column = parts["column"]
    split = parts["split"] or "train"
    try:
        table = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises a dozen kinds
        raise ValueError(
            f"cannot load the data set {name!r} (split {split}): it is not on this machine and the "
            "hub cannot be reached, or has no such data set or split "
            f"({type(error).__name__}). A prompt file works too."
        ) from error
    if column not in table.column_names:
        raise ValueError(
            f"the data set {name} has no column {column!r}; it has {', '.join(table.column_names)}"
        )
    texts: dict[str, None] = {}
    for text in table[column][:]:
        if isinstance(text, str) and text.strip():
            texts[" ".join(text.split())] = None
    if not texts:
        raise ValueError(f"the column {column!r} of {name} holds no text")
    return list(texts)


def captions_hash(prompts: Sequence[Prompt]) -> str:
    """A hash over the captions of a set."""
    captions = "\0".join(prompt.caption for prompt in prompts)
    return hashlib.sha256(captions.encode()).hexdigest()[:16]


def hashes_of_first(prompts: Sequence[Prompt]) -> Iterator[str]:
    """`captions_hash` of the first prompt, of the first two, and so on."""
    so_far = hashlib.sha256()
    for i, prompt in enumerate(prompts):
        so_far.update(f"{chr(0) if i else ''}{prompt.caption}".encode())
        yield so_far.hexdigest()[:16]
