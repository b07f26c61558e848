"""Which runs compare image by image, and with which unmitigated one.

Images of another seed, caption or size never do (`runs.unlike`). Those of another model or sampler
(`runs.made_otherwise`) do so only where somebody named the run to compare with: it is not the
method alone that differs. Other differences leave the comparison its meaning. All are said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from memorization_suite.metrics.manifests import told_by
from memorization_suite.metrics.runs import made_otherwise, unlike
from memorization_suite.runs.foreign import (
    UNMITIGATED,
    above,
    is_called_unmitigated,
    is_foreign,
    title_of,
)
from memorization_suite.runs.progress import from_here

# What a run knows of itself -> what people call it. What else changes images.
SAID = {"guidance_scale": "guidance_scale", "dtype": "dtype"}
# What is known by its content, by newer versions.
MODELS = ("model_id", "unet_id")
# Which images there are.
RANGE = {"start": "--start", "end": "--end", "samples": "--n_samples_per_prompt"}


def is_unmitigated(run: Path) -> bool:
    """Whether no method changed its images; of another program's, by the folder's name.

    Raises ValueError for a broken manifest, as all functions here.
    """
    method = told_by(run).identity.get("method")
    return method == UNMITIGATED if method else is_called_unmitigated(run.resolve())


def problem_of(run: Path, reference: Path, *, named: bool) -> str:
    """Why two runs do not compare image by image; empty when they do. named: whether somebody named
    this reference.
    """
    problem = unlike(reference, run)
    otherwise = "" if named else ", ".join(otherwise_of(run, reference))
    if problem or not otherwise:
        return problem
    return (
        f"{from_here(run)} and {from_here(reference)} are not of one model and sampler "
        f"({otherwise}); --reference {from_here(reference)} compares them all the same"
    )


def remark_on(run: Path, reference: Path) -> str:
    """What is to be said of a comparison, in a line; empty for nothing."""
    differing = differences_of(run, reference)
    lines = [unsure_seeds(run, reference)]
    if differing:
        lines.append(
            f"{from_here(run)} differs from {from_here(reference)} beside the method "
            f"({', '.join(differing)})"
        )
    return "; ".join(filter(None, lines))


def unsure_seeds(run: Path, reference: Path) -> str:
    """That it is not known whether the images of two runs are of equal seeds; empty where it is."""
    foreign = [one for one in (reference, run) if is_foreign(one)]
    if not foreign:
        return ""
    return (
        f"{from_here(foreign[0])} has no manifest.json: whether its images and those of "
        f"{from_here(run if foreign[0] == reference else reference)} are of equal seeds is not "
        "known"
    )


def differences_of(run: Path, reference: Path) -> list[str]:
    """`num_inference_steps 20 and 50` for what differs beside the method, where runs compare."""
    return [*settings_apart(run, reference), *images_apart(run, reference)]


def settings_apart(run: Path, reference: Path) -> list[str]:
    """The same of what changes images."""
    ours, theirs = (told_by(folder).identity for folder in (run, reference))
    return [*otherwise_of(run, reference), *unsure_of(run, reference), *apart(ours, theirs, SAID)]


def images_apart(run: Path, reference: Path) -> list[str]:
    """The same of which images there are."""
    ours, theirs = (told_by(folder).asked for folder in (run, reference))
    return apart(ours, theirs, RANGE)


def otherwise_of(run: Path, reference: Path) -> list[str]:
    """The same of model and sampler."""
    both = [told_by(folder) for folder in (run, reference)]
    texts = []
    for name in made_otherwise(run, reference):
        typed = [told.config.get(name) for told in both]
        stored = [told.identity[name] for told in both]
        values = typed if typed[0] != typed[1] else stored
        texts.append(f"{name} {values[0]} and {values[1]}")
    return texts


def unsure_of(run: Path, reference: Path) -> list[str]:
    """The same of models that were typed otherwise, and whose identities do not tell whether they
    are one: a hash, and what was written without one.
    """
    both = [told_by(folder) for folder in (run, reference)]
    ours, theirs = (told.config for told in both)
    stored = [told.identity for told in both]
    otherwise = made_otherwise(run, reference)
    names = {}
    for name in MODELS:
        known = all(name in identity for identity in stored)
        if known and name not in otherwise and stored[0][name] != stored[1][name]:
            names[name] = name
    return [f"{text}, which may be the same" for text in apart(ours, theirs, names)]


def apart(ours: Mapping, theirs: Mapping, names: Mapping[str, str]) -> list[str]:
    """`guidance_scale 3.0 and 7.0` for what both tell. names: what people call it."""
    both = [name for name in names if name in ours and name in theirs]
    return [
        f"{names[name]} {ours[name]} and {theirs[name]}"
        for name in both
        if ours[name] != theirs[name]
    ]


# --- choosing


def closest(run: Path, candidates: Iterable[Path]) -> Path | None:
    """The candidate that a run compares with, and of several the one that differs least, the first
    of equals; None without one.
    """
    possible = [other for other in candidates if not problem_of(run, other, named=False)]
    return min(possible, key=lambda other: len(differences_of(run, other)), default=None)


def references_of(runs: Sequence[Path], named: Path | None = None) -> dict[Path, Path]:
    """Run -> the one that it is compared with; that one itself is not there.

    named: the one of all. Else it is the unmitigated run that is closest, and without any the first
    run. An unmitigated run is compared with the first one.
    """
    unmitigated = [run for run in runs if is_unmitigated(run)]
    chosen: dict[Path, Path] = {}
    for run in runs:
        if named is not None or not unmitigated:
            reference = named or runs[0]
        elif run in unmitigated:
            reference = unmitigated[0]
        else:
            reference = closest(run, unmitigated) or unmitigated[0]
        if reference != run:
            chosen[run] = reference
    return chosen


# --- names


def titles_of(runs: Sequence[Path]) -> dict[Path, str]:
    """`foreign.title_of`, with the folder above where two runs would be called alike."""
    root = Path(os.path.commonpath([above(run) for run in runs]))
    every = [title_of(run) for run in runs]
    titles = {}
    for run, title in zip(runs, every):
        where = f" in {above(run).relative_to(root)}" if every.count(title) > 1 else ""
        titles[run] = title + where
    return titles
