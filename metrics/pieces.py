"""What each process found of a scoring that several share, until all of it is there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memorization_suite.metrics.references import Coverage
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.shards import Shard
from memorization_suite.runs.table import Result, index
from memorization_suite.runs.tables import Damaged, numbered_rows, whole
from memorization_suite.runs.text import said_by


@dataclass
class Found:
    """Of some chunks of prompts, by their numbers."""

    results: dict[int, list[Result]] = field(default_factory=dict)
    # What there is of training images.
    coverage: dict[int, list[Coverage]] = field(default_factory=dict)
    # What is to be said of older values that go.
    outdated: str = ""
    # Of this process alone: how many images it looked at, values that it left out since they are
    # not finite, and images of one color.
    images: int = 0
    left_out: list[Result] = field(default_factory=list)
    flat: list[Key] = field(default_factory=list)

    def every_result(self) -> list[Result]:
        """In the order of the chunks, as one process finds them."""
        return [result for number in sorted(self.results) for result in self.results[number]]

    def every_coverage(self) -> list[Coverage]:
        """In the same order."""
        return [entry for number in sorted(self.coverage) for entry in self.coverage[number]]


@dataclass(frozen=True)
class Pieces:
    """The part files of one scoring, in `.parts/` of its run folder.

    `scores_NAME_1of3.csv` marks a piece as done; `references_NAME_1of3.csv` is written before it.
    NAME is two hashes: of the scores, and of all that decides their values.
    """

    folder: Path
    # The same for all scorings that give the same scores, such as an earlier one.
    scores: str
    # The same for all that share this scoring.
    state: str
    # The file's prompts.
    prompts: list[Prompt]

    @classmethod
    def of(cls, folder: Path, prompts: list[Prompt], *, scores: object, state: object) -> Pieces:
        """scores, state: what is scored and what decides it, as JSON; a path as it resolves."""
        return cls(folder, digest(scores), digest(state), prompts)

    def file(self, what: str, shard: Shard) -> Path:
        """The part file of a piece. what: scores or references."""
        return self.folder / ".parts" / f"{self.stem(what, shard)}.csv"

    def stem(self, what: str, shard: Shard) -> str:
        """Its name without an ending."""
        return f"{what}_{self.scores}_{self.state}_{shard.number}of{shard.count}"

    def keep(self, shard: Shard, found: Found) -> None:
        """Writes a piece, in the place of an earlier one. Raises OSError."""
        store = RunFolder(self.folder)
        store.add_part(self.stem("references", shard), list(coverage_rows(found)))
        store.add_part(self.stem("scores", shard), list(result_rows(found)))

    def missing(self, shard: Shard) -> list[Shard]:
        """The pieces that are not there yet, of as many as this one is of."""
        present = set(self.listed())
        return [each for each in shard.siblings() if self.file("scores", each).name not in present]

    def read(self, shard: Shard) -> Found:
        """All pieces, of which none is missing, as one process would find them."""
        found = Found()
        for each in shard.siblings():
            for row, entry in self.rows("references", each, self.covered):
                found.coverage.setdefault(whole(row, "chunk"), []).append(entry)
            for row, result in self.rows("scores", each, result_of):
                found.results.setdefault(whole(row, "chunk"), []).append(result)
        return found

    def rows(self, what: str, shard: Shard, read: Callable[[dict[str, str]], Any]) -> list[tuple]:
        """(row, what it says) of a part. Raises Damaged."""
        file = self.file(what, shard)
        try:
            rows = [row for _, row in numbered_rows(file)]
            return [(row, read(row)) for row in rows if whole(row, "chunk") >= 0]
        except (ValueError, KeyError, IndexError) as error:
            raise Damaged(
                f"{file} is no part of a scoring ({said_by(error)}): remove it, and score piece "
                f"{shard} again"
            ) from error

    def covered(self, row: dict[str, str]) -> Coverage:
        """What a row of a part says of a prompt's training images."""
        prompt = self.prompts[int(row["prompt_index"])]
        hashes = tuple(row["sha256"].split())
        return Coverage(prompt, hashes, row["problem"], mask=row.get("mask_sha256", ""))

    def remove(self) -> None:
        """Removes all parts of these scores, of an earlier scoring and in other pieces, too; and
        the folder where nothing else is in it.
        """
        for name in self.listed():
            if name.startswith((f"scores_{self.scores}_", f"references_{self.scores}_")):
                (self.folder / ".parts" / name).unlink(missing_ok=True)
        with suppress(OSError):  # there may be more in it
            (self.folder / ".parts").rmdir()

    def listed(self) -> list[str]:
        """Names of the files in the folder."""
        try:
            return os.listdir(self.folder / ".parts")
        except FileNotFoundError:
            return []


def digest(about: object) -> str:
    """A short name for what can be written as JSON."""
    text = json.dumps(about, sort_keys=True, default=resolved)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def resolved(path: Path) -> str:
    """A path as it is from everywhere."""
    return str(path.resolve())


def contents_of(files: Iterable[Path]) -> list[tuple[str, str]]:
    """(name with its folder's, sha256) of each file that can be read: the same on every machine."""
    contents = []
    for file in files:
        with suppress(OSError):
            contents.append((f"{file.parent.name}/{file.name}", content_hash(file)))
    return contents


def result_rows(found: Found) -> Iterator[dict[str, object]]:
    """Rows of a part with scores."""
    for number, results in found.results.items():
        for result in results:
            yield {"chunk": number, **result._asdict()}


def coverage_rows(found: Found) -> Iterator[dict[str, object]]:
    """Rows of a part with training images."""
    for number, coverage in found.coverage.items():
        for entry in coverage:
            yield {"chunk": number, **entry.row()}


def result_of(row: dict[str, str]) -> Result:
    """The value that a row of a part has."""
    return Result(
        run=row["run"],
        method=row["method"],
        prompt_index=index(row["prompt_index"]),
        sample_index=index(row["sample_index"]),
        quantity=row["quantity"],
        variant=row["variant"],
        value=float(row["value"]),
    )
