"""Reading scores of prompts: our scores.csv, and the plain outputs of the official detectors of Wen
et al. and of Jeon et al. (SAIL).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.runs.files import read_text, unmarked
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.tables import delimiter_of

SETS = {"mem": "memorized", "nonmem": "ordinary"}
COLUMNS = ("set", "prompt_index", "prompt", "sample_index", "score")
FORMATS = (
    "a scores.csv (both sets), a .jsonl of Wen et al. or a .pt of SAIL (a set each, or a .pt "
    "with {'mem': ..., 'nonmem': ...})"
)


@dataclass(frozen=True)
class PromptScore:
    """A prompt's score."""

    # Of the prompt in its file.
    row: int
    # Larger is more memorized; nan when one of the prompt's values is.
    score: float
    # Empty if the file does not tell it.
    prompt: str = ""


def read_scores(
    path: Path, *, steps: int | None = None, field: str = "text_noise_norm"
) -> dict[str, list[PromptScore]]:
    """Set (mem, nonmem) -> scores of its prompts; a file that holds one set without saying which
    has it under "".

    steps: use the first so many steps of files that hold a value per step (default: all). field: of
    .jsonl files. Raises ValueError naming the file and what is wrong with it.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        if steps is not None:
            raise ValueError(
                f"{path}: --steps is for files that hold a value per step (.jsonl, .pt); give the "
                "detector its --num_steps instead"
            )
        sets = read_scores_csv(path)
    elif kind == ".jsonl":
        sets = {"": read_jsonl(path, steps, field)}
    elif kind == ".pt":
        sets = read_pt(path, steps)
    else:
        raise ValueError(f"{path} is no score file: it must be {FORMATS}")
    sets = {name: scores for name, scores in sets.items() if scores}
    if not sets:
        raise ValueError(f"{path} holds no scores")
    return sets


# --- scores.csv ---


def read_scores_csv(path: Path) -> dict[str, list[PromptScore]]:
    """Our format: a row an image, with the columns COLUMNS. A prompt's score is the mean over its
    images.
    """
    images = read_images(path)
    sets: dict[str, dict[int, PromptScore]] = {name: {} for name in SETS}
    for (name, row, prompt), values in sorted(images.items()):
        if row in sets[name]:
            raise ValueError(f"{path}: prompt {row} of the set {name} has two texts")
        score = sum(values.values()) / len(values)
        sets[name][row] = PromptScore(row, score, prompt)
    return {name: list(scores.values()) for name, scores in sets.items()}


def read_images(path: Path) -> dict[tuple[str, int, str], dict[int, float]]:
    """(set, prompt row, prompt) -> sample -> score. Raises ValueError."""
    text = read_text(path, "score file")
    between = delimiter_of(text.split("\n", 1)[0])
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    images: dict[tuple[str, int, str], dict[int, float]] = {}
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"{path} has no column {missing[0]!r}; a scores.csv has {', '.join(COLUMNS)}"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            name, prompt, sample, score = checked_row(row, where)
            values = images.setdefault((name, prompt, unmarked(row["prompt"])), {})
            if sample in values:
                raise ValueError(
                    f"{where}: a second score for sample {sample} of prompt {prompt} of the set "
                    f"{name}"
                )
            values[sample] = score
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.reader.line_num}: {error}") from error
    return images


def checked_row(row: dict, where: str) -> tuple[str, int, int, float]:
    """Set, prompt, sample and score of a row. Raises ValueError."""
    if None in row or None in row.values():
        raise ValueError(f"{where}: not as many fields as the header has")
    if row["set"] not in SETS:
        raise ValueError(f"{where}: the set {row['set']!r} is neither {' nor '.join(SETS)}")
    try:
        prompt = int(row["prompt_index"])
        sample = int(row["sample_index"])
        score = float(row["score"])
    except ValueError as error:
        raise ValueError(
            f"{where}: prompt_index, sample_index and score must be numbers ({error})"
        ) from error
    if prompt < 0 or sample < 0:
        raise ValueError(f"{where}: prompt_index and sample_index must be at least 0")
    return row["set"], prompt, sample, score


# --- official outputs ---


def read_jsonl(path: Path, steps: int | None, field: str) -> list[PromptScore]:
    """A set as `detect_mem.py` of Wen et al. writes it: a JSON object a line and prompt, with
    `prompt` and `field`, for each of the prompt's images a list of values, one a step. BE-PRSS adds
    `text_noise_norm_masked`.

    The score is the mean over images and the first `steps` steps, as in `det_mem_viz.ipynb`.
    Assumed: every image of a file has as many steps; the number of images may differ; the n-th line
    is row n of the prompt file (--start was 0).
    """
    scores: list[PromptScore] = []
    for number, line in enumerate(read_text(path, "score file").split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json_of(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
        images = image_values(entry, field, where)
        means = [mean_of(values, steps, where) for values in images]
        prompt = entry.get("prompt")
        text = prompt if isinstance(prompt, str) else ""
        scores.append(PromptScore(len(scores), sum(means) / len(means), text))
    return scores


def image_values(entry, field: str, where: str) -> list[list]:
    """The values of each image of a prompt. Raises ValueError when the entry has no such field."""
    fields = entry if isinstance(entry, dict) else {}
    images = fields.get(field)
    usable = isinstance(images, list) and all(isinstance(values, list) for values in images)
    if not usable or not images:
        lists = [name for name in fields if name != field and isinstance(fields[name], list)]
        others = f"; it has {', '.join(map(repr, lists))} (--field)" if lists else ""
        raise ValueError(
            f"{where}: no field {field!r} with a list of values for each image{others}"
        )
    check_lengths(images, where, "images")
    return images


def read_pt(path: Path, steps: int | None) -> dict[str, list[PromptScore]]:
    """What `detect_mem.py` of Jeon et al. (SAIL) and of its followers saves: a tensor (prompts,
    steps) of one set, bfloat16 as a rule.

    Read with weights_only=True, so that nothing in the file is executed. The score is the mean over
    the first `steps` steps; taken in double precision, where their `detect_eval.py` takes it in
    bfloat16 (the same for one step, their default). Also read, though no official script
    writes it: a list of numbers or of lists of numbers, (prompts,) tensors, and a dict {'mem': ...,
    'nonmem': ...} of these.
    """
    if not path.is_file():
        raise ValueError(f"cannot read {path}: it is not there or no file")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        tables = saved if isinstance(saved, dict) else {"": saved}
        sets = {str(name): plain(value) for name, value in tables.items()}
    except Exception as error:  # the library raises a dozen kinds
        raise ValueError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}): it is broken, or "
            "holds other objects, which are not loaded because that could run code"
        ) from error
    if isinstance(saved, dict) and not set(sets) <= set(SETS):
        shown = ", ".join(repr(name[:40]) for name in list(sets)[:5])
        raise ValueError(
            f"{path} holds a dict with {shown}; its names must be {' and '.join(map(repr, SETS))}"
        )
    scores: dict[str, list[PromptScore]] = {}
    for name, values in sets.items():
        if not isinstance(values, list):
            kind = type(tables[name]).__name__
            raise ValueError(
                f"{path} holds {kind}, not a tensor or list with a row for each prompt"
            )
        check_lengths(values, str(path), "prompts")
        scores[name] = []
        for row, value in enumerate(values):
            mean = row_mean(value, steps, f"{path}, prompt {row}")
            scores[name].append(PromptScore(row, mean))
    return scores


def plain(value):
    """Tensors as nested lists; numbers and lists stay."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


# --- values ---


def check_lengths(rows: list, where: str, what: str) -> None:
    """Raises ValueError unless all rows are numbers, or lists of one length. what: they are of."""
    lengths = {len(row) if isinstance(row, list) else None for row in rows}
    if len(lengths) > 1:
        raise ValueError(f"{where}: the {what} have different numbers of steps")


def row_mean(value, steps: int | None, where: str) -> float:
    """Score of a prompt: a number, or the mean of its first steps."""
    if isinstance(value, list):
        return mean_of(value, steps, where)
    if steps is not None:
        raise ValueError(f"{where}: --steps {steps}, but the file holds one value per prompt")
    return mean_of([value], steps, where)


def mean_of(values: Sequence, steps: int | None, where: str) -> float:
    """Mean of the first `steps` values. Raises ValueError when there are not as many, or something
    is no number.
    """
    if not values:
        raise ValueError(f"{where}: 0 steps")
    if len(values) < (steps or 1):
        raise ValueError(f"{where}: {len(values)} steps, but --steps {steps} asks for more")
    chosen = values[:steps]
    for value in chosen:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where}: {str(value)[:40]!r} is no number")
    try:
        return math.fsum(chosen) / len(chosen) if all(map(math.isfinite, chosen)) else math.nan
    except OverflowError as error:
        raise ValueError(f"{where}: a number is too large") from error
