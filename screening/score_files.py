"""Reading scores of prompts: our scores.csv, and the plain outputs of the official detectors of Wen
et al. and of Jeon et al. (SAIL).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SETS = {"mem": "memorized", "nonmem": "ordinary"}
COLUMNS = ("set", "prompt_index", "prompt", "sample_index", "score")
FORMATS = (
    "a scores.csv (both sets), a .jsonl of Wen et al. or a .pt of SAIL (a set each, or a .pt "
    "with {'mem': ..., 'nonmem': ...})"
)


@dataclass(frozen=True)
class PromptScore:
    """row: of the prompt in its file. score: larger is more memorized; nan when one of the prompt's
    values is. prompt: empty if the file
    does not tell it."""

    row: int
    score: float
    prompt: str = ""


def read_scores(
    path: Path, *, steps: int | None = None, field: str = "text_noise_norm"
) -> dict[str, list[PromptScore]]:
    """Set (mem, nonmem) -> scores of its prompts; a file that holds one set without saying which
    has it under "".

    steps: use the first so many steps of files that hold a value per step (default: all). field: of
    .jsonl files. Raises ValueError naming the file and what is wrong with it.
    """
    readers = {
        ".csv": lambda: read_csv(path),
        ".jsonl": lambda: {"": read_jsonl(path, steps, field)},
        ".pt": lambda: read_pt(path, steps),
    }
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} is no score file: it must be {FORMATS}")
    if path.suffix.lower() == ".csv" and steps is not None:
        raise ValueError(
            f"{path}: --steps is for files that hold a value per step (.jsonl, .pt); give the "
            "detector its --num_steps instead"
        )
    found = {name: scores for name, scores in readers[path.suffix.lower()]().items() if scores}
    if not found:
        raise ValueError(f"{path} holds no scores")
    return found


def read_csv(path: Path) -> dict[str, list[PromptScore]]:
    """Our format: a row an image, with the columns COLUMNS. A prompt's score is the mean over its
    images.
    """
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""), strict=True)
    images: dict[tuple[str, int, str], dict[int, float]] = {}
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"{path} has no column {missing[0]!r}; a scores.csv has {', '.join(COLUMNS)}"
            )
        for row in reader:
            name, prompt, sample, score = checked_row(row, f"{path}, line {reader.line_num}")
            values = images.setdefault((name, prompt, row["prompt"]), {})
            if sample in values:
                raise ValueError(
                    f"{path}, line {reader.line_num}: a second score for sample {sample} of prompt "
                    f"{prompt} of the set {name}"
                )
            values[sample] = score
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    found: dict[str, dict[int, PromptScore]] = {name: {} for name in SETS}
    for (name, row_number, prompt_text), values in sorted(images.items()):
        if row_number in found[name]:
            raise ValueError(f"{path}: prompt {row_number} of the set {name} has two texts")
        found[name][row_number] = PromptScore(
            row_number, sum(values.values()) / len(values), prompt_text
        )
    return {name: list(scores.values()) for name, scores in found.items()}


def checked_row(row: dict, where: str) -> tuple[str, int, int, float]:
    """Set, prompt, sample and score of a row. Raises ValueError."""
    if None in row or None in row.values():
        raise ValueError(f"{where}: not as many fields as the header has")
    if row["set"] not in SETS:
        raise ValueError(f"{where}: the set {row['set']!r} is neither {' nor '.join(SETS)}")
    try:
        prompt, sample, score = (
            int(row["prompt_index"]),
            int(row["sample_index"]),
            float(row["score"]),
        )
    except ValueError as error:
        raise ValueError(
            f"{where}: prompt_index, sample_index and score must be numbers ({error})"
        ) from error
    if prompt < 0 or sample < 0:
        raise ValueError(f"{where}: prompt_index and sample_index must be at least 0")
    return row["set"], prompt, sample, score


def read_jsonl(path: Path, steps: int | None, field: str) -> list[PromptScore]:
    """A set as `detect_mem.py` of Wen et al. writes it: a JSON object a line and prompt, with
    `prompt` and `field`, for each of the prompt's images a list of values, one a step. BE-PRSS adds
    `text_noise_norm_masked`.

    The score is the mean over images and the first `steps` steps, as in `det_mem_viz.ipynb`.
    Assumed: every image of a file has as many steps; the number of images may differ; the n-th line
    is row n of the prompt file (--start was 0).
    """
    found: list[PromptScore] = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
        values = entry.get(field) if isinstance(entry, dict) else None
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(image, list) for image in values)
        ):
            raise ValueError(
                f"{where}: no field {field!r} with a list of values for each image"
                + others(entry, field)
            )
        if len({len(image) for image in values}) > 1:
            raise ValueError(f"{where}: the images have different numbers of steps")
        means = [mean_of(image, steps, where) for image in values]
        prompt = entry.get("prompt")
        found.append(
            PromptScore(
                len(found), sum(means) / len(means), prompt if isinstance(prompt, str) else ""
            )
        )
    return found


def others(entry, field: str) -> str:
    """What to type when the object has other lists than the one that was asked for."""
    lists = (
        [name for name, value in entry.items() if isinstance(value, list) and name != field]
        if isinstance(entry, dict)
        else []
    )
    return f"; it has {', '.join(map(repr, lists))} (--field)" if lists else ""


def read_pt(path: Path, steps: int | None) -> dict[str, list[PromptScore]]:
    """What `detect_mem.py` of Jeon et al. (SAIL) and of its followers saves: a tensor (prompts,
    steps) of one set, bfloat16 as a rule.

    Read with weights_only=True, so that nothing in the file is executed. The score is the mean over
    the first `steps` steps; taken in double precision, where their `detect_eval.py` takes it in
    bfloat16 (the same for one step, their default). Also read, though no official script
    writes it: a list of numbers or of lists of numbers, (prompts,) tensors, and a dict {'mem': ...,
    'nonmem': ...} of these.
    """
    import torch

    if not path.is_file():
        raise ValueError(f"cannot read {path}: it is not there or no file")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        sets = {
            str(name): plain(value)
            for name, value in (saved if isinstance(saved, dict) else {"": saved}).items()
        }
    except Exception as error:  # the library raises a dozen kinds
        raise ValueError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}): it is broken, or "
            "holds other objects, which are not "
            "loaded because that could run code"
        ) from error
    if isinstance(saved, dict) and not set(sets) <= set(SETS):
        shown = ", ".join(repr(name[:40]) for name in list(sets)[:5])
        raise ValueError(
            f"{path} holds a dict with {shown}; its names must be {' and '.join(map(repr, SETS))}"
        )
    found = {}
    for name, values in sets.items():
        if not isinstance(values, list):
            raise ValueError(
                f"{path} holds {type(saved[name] if name else saved).__name__}, not a tensor or "
                "list with a row for each prompt"
            )
        if len({len(value) if isinstance(value, list) else None for value in values}) > 1:
            raise ValueError(f"{path}: the prompts have different numbers of steps")
        found[name] = [
            PromptScore(row, row_mean(value, steps, f"{path}, prompt {row}"))
            for row, value in enumerate(values)
        ]
    return found


def plain(value):
    """Tensors as nested lists; numbers and lists stay."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def row_mean(value, steps: int | None, where: str) -> float:
    """Score of a prompt: a number, or the mean of its first steps."""
    if not isinstance(value, list) and steps is not None:
        raise ValueError(f"{where}: --steps {steps}, but the file holds one value per prompt")
    return mean_of(value if isinstance(value, list) else [value], steps, where)


def mean_of(values: Sequence, steps: int | None, where: str) -> float:
    """Mean of the first `steps` values. Raises ValueError when there are not as many, or something
    is no number.
    """
    if not values or len(values) < (steps or 1):
        raise ValueError(
            f"{where}: {len(values)} steps"
            + (f", but --steps {steps} asks for more" if values else "")
        )
    chosen = values[:steps]
    for value in chosen:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where}: {str(value)[:40]!r} is no number")
    try:
        return math.fsum(chosen) / len(chosen) if all(map(math.isfinite, chosen)) else float("nan")
    except OverflowError as error:
        raise ValueError(f"{where}: a number is too large") from error


def text_of(path: Path) -> str:
    """The file's text. Raises ValueError when it is missing, a folder, or not UTF-8 text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if "\0" in text:
        raise ValueError(f"{path} is a binary file")
    return text
