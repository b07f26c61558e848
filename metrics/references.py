"""Training images of prompts, `<gt_folder>/<Index>/`; which are missing or broken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memorization_suite.metrics.listing import images_of, place_of
from memorization_suite.metrics.pictures import Picture, Unreadable
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.nobodys import owned
from memorization_suite.runs.tables import Damaged, Fault, cell, in_line, numbered_rows, whole
from memorization_suite.runs.text import first_of

# What no name of a folder has: it would lead elsewhere.
NO_NAME = frozenset("/\\:")


@dataclass(frozen=True)
class Coverage:
    """What is there for one prompt."""

    prompt: Prompt
    # Hashes of its readable files, in order.
    sha256: tuple[str, ...]
    # Empty when all is well.
    problem: str
    # Hash of its mask; empty without one.
    mask: str = ""

    def row(self) -> dict:
        """A line of references.csv."""
        return {
            "prompt_index": self.prompt.row,
            "caption": self.prompt.caption,
            "index": self.prompt.index,
            "type": self.prompt.type,
            "references": len(self.sha256),
            "sha256": " ".join(self.sha256),
            "mask_sha256": self.mask,
            "problem": self.problem,
        }


def is_folder_name(index: str) -> bool:
    """Whether an index may become part of a path; it comes from a file of strangers."""
    is_text = index.isprintable() and index == index.strip()
    return bool(index) and is_text and index[0] != "." and NO_NAME.isdisjoint(index)


def stored_rows(folder: Path) -> dict[int, dict[str, str]]:
    """Row of a prompt -> what references.csv of a run folder says of it, which an earlier scoring
    wrote; nothing without one. Raises Damaged.
    """
    file = folder / "references.csv"
    found = {}
    try:
        for line, row in numbered_rows(file):
            with in_line(line):
                cell(row, "sha256")
                found[whole(row, "prompt_index")] = row
    except Fault as fault:
        raise Damaged(
            f"{file} is no table of training images ({fault}): mend it or move it away; "
            "scoring writes it anew"
        ) from fault
    return found


class References:
    """Finds and decodes training images.

    Files of the same content are one picture. What is known of its pixels is forgotten with the
    chunk of prompts, so that a chunk's values do not depend on the chunks before it. decode:
    whether the pictures are wanted, or only which ones they are. coverage: prompt row -> what is
    there, of the prompts that were asked for.
    """

    def __init__(self, folder: Path, *, decode: bool = True):
        self.folder = folder
        self.decode = decode
        self.pictures: dict[str, Picture] = {}
        # Index -> its files, so that a folder is listed once.
        self.listed: dict[str, list[Path]] = {}
        # Index -> why its folder cannot be listed.
        self.faults: dict[str, str] = {}
        self.coverage: dict[int, Coverage] = {}

    def of(self, prompt: Prompt, mask: Path | None = None) -> list[Picture]:
        """The readable references of a prompt. mask: where its image was memorized.

        What is missing is noted in `coverage`; a prompt without `Index` has none by intent.
        """
        pictures: dict[str, Picture] = {}
        problems = []
        for path in self.files(prompt.index):
            try:
                digest, picture = self.picture(path)
                pictures[digest] = picture
            except (OSError, Unreadable) as error:
                problems.append(str(error))
        if prompt.index and not pictures and not problems:
            problems.append(self.nothing_in(prompt.index))
        self.coverage[prompt.row] = Coverage(
            prompt,
            tuple(pictures),
            "; ".join(problems),
            mask=content_hash(mask) if mask else "",
        )
        return list(pictures.values())

    def nothing_in(self, index: str) -> str:
        """Why there is no image of an index."""
        if not is_folder_name(index):
            return (
                f"its Index {index!r} is no name of a folder: it may not begin with a dot, or have "
                "/ \\ : in it"
            )
        folder = place_of(self.folder, index)
        if index in self.faults:
            return f"{folder} cannot be listed ({self.faults[index]})"
        if not folder.is_dir():
            return f"no image in {folder}: there is no such folder"
        names = owned(sorted(path.name for path in folder.glob("*")))
        if not names:
            return f"no image in {folder}: it is empty"
        return (
            f"no image in {folder} that Pillow reads: it holds {first_of(names)}; PNG, JPEG and "
            "the like are read"
        )

    def files(self, index: str) -> list[Path]:
        """Image files of an index, by name.

        An index that is no plain folder name has none. Where a folder cannot be listed, `faults`
        has the reason.
        """
        if index not in self.listed:
            self.listed[index] = []
            if is_folder_name(index):
                try:
                    self.listed[index] = images_of(place_of(self.folder, index))
                except OSError as error:
                    self.faults[index] = str(error.strerror)
        return self.listed[index]

    def picture(self, path: Path) -> tuple[str, Picture]:
        """Content hash and decoded picture. Raises Unreadable or OSError."""
        digest = content_hash(path)
        picture = self.pictures.get(digest) or Picture(path)
        if self.decode and not picture.features:
            picture.image  # noqa: B018  a broken file is found here, not in a network's batch
        self.pictures[digest] = picture
        return digest, picture

    def report(self, most: int = 20) -> list[str]:
        """Lines for people: how many prompts have references, and what is wrong with the others.

        most: so many problems are told one by one.
        """
        wanted = [entry for entry in self.coverage.values() if entry.prompt.index]
        if not wanted:
            return []
        covered = sum(bool(entry.sha256) for entry in wanted)
        lines = [
            f"references: {covered} of {len(wanted)} prompts have one or more in {self.folder}"
        ]
        return lines + self.problems(most)

    def problems(self, most: int = 20) -> list[str]:
        """What is wrong with training images of prompts. most: as of `report`."""
        problems = [entry for entry in self.coverage.values() if entry.problem]
        lines = []
        for entry in problems[:most]:
            prompt = entry.prompt
            lines.append(f"  prompt {prompt.row} ({prompt.index}): {entry.problem}")
        if len(problems) > most:
            lines.append(f"  and {len(problems) - most} more: see references.csv")
        return lines
