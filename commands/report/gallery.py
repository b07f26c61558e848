"""The gallery: a line a prompt, its training image, then each run's images on equal seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from memorization_suite.commands.report.details import MEANINGS
from memorization_suite.commands.report.figures import score_text, tidy
from memorization_suite.commands.report.gather import (
    Limits,
    Reported,
    first_quantity,
    of_alignment,
    of_copies,
)
from memorization_suite.commands.report.names import short_names
from memorization_suite.commands.report.pictures import Picture, Pictures
from memorization_suite.metrics.base import Quantity, quantity_named
from memorization_suite.metrics.intervals import is_copy
from memorization_suite.metrics.references import References
from memorization_suite.runs import Key
from memorization_suite.runs.marks import FLAT, NOT_FINITE
from memorization_suite.runs.progress import Progress

WIDE = 400  # caption characters shown in the table
SHOWN_REFERENCES = 3  # training images of a prompt that open beside its images
MANY = 200  # pictures that take a while to read


class Gallery:
    """A line a prompt of the first run, with copy score and alignment below each image."""

    def __init__(self, equal: list[Reported], references: References, limits: Limits):
        self.equal = equal
        self.runs = equal[: limits.runs]
        self.references = references
        # As many as a run has; files are of no more than the limit.
        samples = [key.sample for run in self.runs for key in run.run.files]
        self.samples = 1 + max(samples, default=0)
        # The quantities below a picture, and their values by image for each run.
        self.copy = first_quantity(of_copies(), self.runs)
        self.aligned = first_quantity(of_alignment(), self.runs)
        self.copies = self.values(self.copy)
        self.alignments = self.values(self.aligned)

    def values(self, quantity: Quantity | None) -> list[dict[Key, float]]:
        """For each run the values of its images."""
        name = quantity.name if quantity else ""
        return [reported.scores.get(name, {}) for reported in self.runs]

    @property
    def total(self) -> int:
        """How many pictures there are, about: with a training image a prompt."""
        return len(self.runs[0].rows) + sum(len(reported.run.files) for reported in self.runs)

    def content(self, pictures: Pictures, *, quiet: bool = False) -> dict[str, Any]:
        """What the template needs."""
        rows = self.runs[0].rows
        lines = []
        quiet = quiet or self.total < MANY
        with Progress(f"{self.total} pictures", len(rows), unit="prompt", quiet=quiet) as progress:
            for row in rows:
                lines.append(self.line(row, pictures))
                progress.update(1)
        return {
            "runs": self.runs,
            "names": short_names(self.runs),
            "lines": lines,
            "kinds": sorted({line["kind"] for line in lines} - {""}),
            "of": self.runs[0].prompts,
            "copy_score": self.copy,
            "aligned": self.aligned,
            "samples": self.samples,
            "of_runs": len(self.equal),
        }

    def line(self, row: int, pictures: Pictures) -> dict[str, Any]:
        """One prompt."""
        prompt = self.runs[0].run.prompts[row]
        files = self.references.files(prompt.index)
        training = [
            pictures.add(file, f"training/{row:04d}_{k:02d}")
            for k, file in enumerate(files[:SHOWN_REFERENCES])
        ]
        keys = [Key(row, sample) for sample in range(self.samples)]
        runs = range(len(self.runs))
        return {
            "row": row,
            "kind": prompt.type,
            "caption": prompt.caption[:WIDE] + ("…" if len(prompt.caption) > WIDE else ""),
            "whole": prompt.caption,
            "training": training,
            "references": len(files),
            "cells": [[self.image(i, key, pictures) for key in keys] for i in runs],
        }

    def image(self, i: int, key: Key, pictures: Pictures) -> dict[str, Any]:
        """An image of the run at position i. state: of its frame: copy, free, or unknown without a
        score.
        """
        state = "unknown"
        note = ""
        score = self.copies[i].get(key)
        if self.copy and score is not None:
            note = "nan"
            if not math.isnan(score):
                note = score_text(score, self.copy.thresholds[-1:])
                state = "copy" if is_copy(score, self.copy.thresholds[-1]) else "free"
        note += self.mark(self.alignments[i].get(key))
        marks = self.runs[i].marks
        if key in marks.not_finite:
            note = NOT_FINITE
        elif key in marks.flat:
            note = f"{note} · {FLAT}" if note else FLAT
        picture = pictures.add(self.runs[i].run.files.get(key), f"run{i}/img_{key}")
        return {
            "at": f"{i}.{key.prompt}.{key.sample}",
            "key": key,
            "state": state,
            "note": note,
            "picture": picture,
        }

    def mark(self, alignment: float | None) -> str:
        """The end of the text below a picture."""
        if self.aligned is None or alignment is None:
            return ""
        if self.aligned.yes:
            return " ✓" if alignment else ""
        return f" · {score_text(alignment)}"


def gallery_data(gallery: Mapping[str, Any]) -> dict[str, Any]:
    """What the script of the gallery needs. gallery: as of `Gallery.content`."""
    copy = gallery["copy_score"].name if gallery["copy_score"] else ""
    scores = {}
    for reported, image in images_of(gallery):
        score = reported.scores.get(copy, {}).get(image["key"])
        if score is not None and not math.isnan(score):
            scores[image["at"]] = shortened(score)
    return {
        "runs": [
            {"name": name, "title": reported.title, "settings": settings_of(reported)}
            for reported, name in zip(gallery["runs"], gallery["names"])
        ],
        "captions": {line["row"]: line["whole"] for line in gallery["lines"]},
        "training": {line["row"]: others for line in gallery["lines"] if (others := larger(line))},
        "scores": scores,
        "meanings": MEANINGS,
    }


def viewer_data(gallery: Mapping[str, Any]) -> dict[str, Any]:
    """What opens beside each picture: much, so that it is read when the first one opens."""
    return {
        image["at"]: details_of(reported, image["key"], image["picture"])
        for reported, image in images_of(gallery)
    }


def images_of(gallery: Mapping[str, Any]) -> Iterator[tuple[Reported, dict[str, Any]]]:
    """Every image that there is, with its run."""
    for line in gallery["lines"]:
        for reported, cell in zip(gallery["runs"], line["cells"]):
            for image in cell:
                if image["picture"].url:
                    yield reported, image


def shortened(value: float) -> float:
    """Four digits of it."""
    return float(f"{value:.4g}")


def larger(line: Mapping[str, Any]) -> list[str]:
    """Addresses of a prompt's training images as they open, where the table does not have all."""
    pictures = [picture for picture in line["training"] if picture.url]
    if len(pictures) > 1 or any(picture.large for picture in pictures):
        return [picture.large or picture.url for picture in pictures]
    return []


def details_of(reported: Reported, key: Key, picture: Picture) -> dict[str, Any]:
    """Of one image: its scores, what it took, its curve, its file."""
    scores = {}
    for name, values in reported.scores.items():
        if key in values and not math.isnan(values[key]):
            quantity = quantity_named(name)
            scores[name] = score_text(values[key], quantity.thresholds if quantity else ())
    details: dict[str, Any] = {"scores": scores, "file": reported.run.files[key].name}
    facts = reported.details.facts.get(key)
    curve = reported.details.curves.get(key)
    if facts:
        details["facts"] = {name: tidy(text) for name, text in facts.items()}
    if curve:
        details["curve"] = " ".join(map(str, curve))
    if picture.large:
        details["large"] = picture.large
    return details


def settings_of(reported: Reported) -> dict[str, str]:
    """Settings for people: those that say how images were made."""
    hidden = (
        "command",
        "prompts",
        "output_path",
        "quiet",
        "caption_column",
        "preset",
        "derivatives",
    )
    return {
        name: tidy(str(value))
        for name, value in reported.config.items()
        if name not in hidden and value is not None and value is not False and value != ""
    }
