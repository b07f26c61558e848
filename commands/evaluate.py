"""Comparing detectors by their score files: AUC and TPR with intervals, ROC curves, histograms."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from memorization_suite.commands.scored import (
    Scored,
    config_beside,
    files_of,
    model_beside,
    names_of,
    other_prompts,
    other_settings,
    printable,
    source_names,
)
from memorization_suite.commands.settings import split
from memorization_suite.detection.evaluation.roc import CAVEATS, RESAMPLES, RULES, check
from memorization_suite.detection.evaluation.roc_plots import write_plots
from memorization_suite.detection.evaluation.score_files import (
    FORMATS,
    SETS,
    PromptScore,
    read_scores,
)
from memorization_suite.detection.evaluation.summary import (
    RATES,
    figure_text,
    has_no_interval,
    percent,
    scores_of,
    summarize,
    tpr_text,
    warnings_of,
)
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.flags import caption_column
from memorization_suite.prompts.sets import is_hub
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.places import check_writable
from memorization_suite.runs.progress import to_open
from memorization_suite.runs.settings import Settings, flag, frozen_settings, unkeyed
from memorization_suite.runs.spread import RULE
from memorization_suite.runs.text import table_text


@frozen_settings
class EvaluationSettings(Settings):
    """The flags of `detect_memorization.py evaluate`."""

    # What --help says of it.
    about: ClassVar[str] = (
        "AUC and TPR of detectors from their score files; larger scores mean more memorized."
    )

    files: tuple[Path, ...] = flag(
        (), "scores.csv, its folder, or a folder of such folders", metavar="FILE_OR_FOLDER"
    )
    memorized: tuple[Path, ...] = flag(
        (),
        "scores of memorized prompts: a .jsonl of Wen et al., a .pt of SAIL, or a scores.csv; may "
        "be given again, each with its --ordinary",
        metavar="FILE",
    )
    ordinary: tuple[Path, ...] = flag(
        (), "the scores of ordinary prompts to go with it", metavar="FILE"
    )
    rule: str = flag(
        "at_most",
        "how TPR at a false-positive rate is read off (at_most: TPR with at most that rate; "
        "wen_strict: less than that rate; nearest: SAIL's and Ren's; interp)",
        choices=RULES,
    )
    fpr: tuple[float, ...] = flag(RATES, "false-positive rates", metavar="RATE")
    by: str | None = flag(
        None,
        "also a line for each type of memorized prompts; needs --prompts",
        choices=("type",),
    )
    prompts: Path | None = flag(
        None, "the file of the memorized prompts, with a column type", metavar="FILE"
    )
    caption_column: str = caption_column()
    steps: int | None = flag(
        None,
        "use the first so many steps of a .jsonl or .pt (default: all)",
        at_least=1,
        metavar="N",
    )
    field: str = flag("text_noise_norm", "field of a .jsonl", metavar="NAME")
    out: Path | None = flag(
        None,
        "also write evaluation.csv, ROC curves and histograms into this folder",
        metavar="FOLDER",
    )
    seed: int = flag(0, "seed of the bootstrap intervals", at_least=0, metavar="N")
    quiet: bool = unkeyed(False, "no line on what comes next")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.rule, self.fpr)
        if (self.by is None) != (self.prompts is None):
            raise ValueError(
                "--by type and --prompts go together: the types stand in the file of the memorized "
                "prompts"
            )
        if len(self.memorized) != len(self.ordinary):
            raise ValueError(
                "--memorized and --ordinary go together: one of each for every detector"
            )


@dataclass(frozen=True)
class Evaluation:
    """Figures of detectors. str() is the printed table."""

    settings: EvaluationSettings
    # Of evaluation.csv: for each detector all prompts, whose type is empty, then each type.
    rows: list[dict]

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know before believing the figures."""
        warnings = []
        for row in self.rows:
            label = f"{row['detector']}, type {row['type']}" if row["type"] else row["detector"]
            warnings += [f"{label}: {text}" for text in warnings_of(row)]
        return warnings

    @property
    def following(self) -> list[str]:
        """What one would type next: to open the ROC curves, if they were drawn."""
        if self.settings.out is None or not (self.settings.out / "roc.png").exists():
            return []
        return to_open(self.settings.out / "roc.png")

    def __str__(self) -> str:
        rule = self.settings.rule
        caveat = f" ({CAVEATS[rule]})" if rule in CAVEATS else ""
        lines = [
            table_text([shown(row, self.settings.fpr) for row in self.rows]),
            f"TPR by the rule {rule}{caveat}; [95 % interval] from {RESAMPLES} resamples of the "
            "prompts of each set",
        ]
        if any(map(has_no_interval, self.rows)):
            lines.append(RULE)
        return "\n".join(lines)


def evaluate(**typed: Any) -> Evaluation:
    """AUC and TPR of detectors. typed: flags of `detect_memorization.py evaluate` by name.

    Writes into the folder `out`, if there is one; warnings go to stderr. Raises ValueError for what
    the user can mend.
    """
    split(typed, EvaluationSettings)
    settings = EvaluationSettings(**typed)
    detections = read_all(settings)
    column = settings.caption_column
    prompts = read_types(settings.prompts, column) if settings.prompts else None
    rows = [row for scored in detections for row in rows_of(scored, settings, prompts)]
    evaluation = Evaluation(settings, rows)
    if settings.out:
        make_folder(settings.out)
    warnings = [*other_prompts(detections), *other_settings(detections), *evaluation.warnings]
    for warning in warnings:
        print(warning, file=sys.stderr)
    if settings.out:
        write_csv(settings.out / "evaluation.csv", rows)
        sets = {one.name: (scores_of(one.memorized), scores_of(one.ordinary)) for one in detections}
        write_plots(settings.out, sets)
    return evaluation


# --- reading ---


def read_all(settings: EvaluationSettings) -> list[Scored]:
    """Every detector, in the order given. Raises ValueError."""
    files = files_of(settings.files)
    pairs = list(zip(settings.memorized, settings.ordinary))
    for memorized, ordinary in pairs:
        if memorized.resolve() == ordinary.resolve():
            raise ValueError(
                f"--memorized and --ordinary are the same file {memorized}; one that holds both "
                "sets is given without these flags"
            )
    if not files and not pairs:
        raise ValueError(f"give score files: {FORMATS}, or folders with a scores.csv")
    names = names_of([*files, *settings.memorized])
    detections = [read_both(file, name, settings) for file, name in zip(files, names)]
    for (memorized, ordinary), name in zip(pairs, names[len(files) :]):
        detections.append(
            Scored(
                name,
                read_set(memorized, "mem", settings),
                read_set(ordinary, "nonmem", settings),
                sources=(names_of([memorized])[0], names_of([ordinary])[0]),
            )
        )
    return detections


def read_both(file: Path, name: str, settings: EvaluationSettings) -> Scored:
    """Both sets of one file. Raises ValueError."""
    sets = read_scores(file, steps=settings.steps, field=settings.field)
    if "" in sets:
        raise ValueError(
            f"{file} holds one set of prompts: give it with --memorized or --ordinary, and the "
            "other set with the other flag"
        )
    for key, kind in SETS.items():
        if key not in sets:
            raise ValueError(
                f"{file} holds no scores of {kind} prompts (set {key}): AUC and TPR need both "
                "sets; two files that hold a set each are given with --memorized and --ordinary"
            )
    config = config_beside(file)
    sources = source_names(config)
    return Scored(name, sets["mem"], sets["nonmem"], sources, config, model_beside(file))


def read_set(file: Path, key: str, settings: EvaluationSettings) -> list[PromptScore]:
    """One set: the file's own if it holds one alone, else the one that was asked for. Raises
    ValueError.
    """
    sets = read_scores(file, steps=settings.steps, field=settings.field)
    return sets[key] if len(sets) > 1 else next(iter(sets.values()))


# --- types of prompts ---


def read_types(file: Path, column: str = "") -> list[Prompt]:
    """The prompts of a file with types. column: of its captions. Raises ValueError."""
    if is_hub(str(file)):
        raise ValueError(
            f"--prompts {file} has captions alone: --by type needs a prompt file with a column "
            "'type'"
        )
    prompts = read_prompts(file, column)
    if not any(prompt.type for prompt in prompts):
        raise ValueError(f"{file} has no types: --by type needs a column 'type'")
    return prompts


def split_by_type(
    scored: Scored, prompts: Sequence[Prompt], file: Path
) -> dict[str, list[PromptScore]]:
    """Type -> scores of the memorized prompts of that type. prompts: of the file.

    Raises ValueError when the detector saw another prompt in a row than the file has.
    """
    groups: dict[str, list[PromptScore]] = {}
    for score in scored.memorized:
        there = f"none, as the file has {len(prompts)} prompts"
        if score.row < len(prompts):
            prompt = prompts[score.row]
            if not score.prompt or score.prompt.strip() == prompt.caption.strip():
                groups.setdefault(printable(prompt.type) or "none", []).append(score)
                continue
            there = repr(prompt.caption[:60])
        raise ValueError(
            f"--prompts {file} is not what {scored.name} saw: row {score.row} is "
            f"{score.prompt[:60]!r} in the scores, but {there}"
        )
    return dict(sorted(groups.items()))


# --- figures ---


def rows_of(
    scored: Scored, settings: EvaluationSettings, prompts: Sequence[Prompt] | None
) -> list[dict]:
    """Rows of evaluation.csv: all prompts, whose type is empty, then each type.

    prompts: of the file with the types, if lines of types are wanted. Raises ValueError.
    """
    groups = {"": scored.memorized}
    if prompts is not None and settings.prompts is not None:
        groups |= split_by_type(scored, prompts, settings.prompts)
    memorized_source, ordinary_source = scored.sources
    sources = {"memorized_prompts": memorized_source, "ordinary_prompts": ordinary_source}
    ordinary = scores_of(scored.ordinary)
    fprs = list(dict.fromkeys(settings.fpr))
    rows = []
    for kind, scores in groups.items():
        figures = summarize(scores_of(scores), ordinary, settings.rule, fprs, settings.seed)
        rows.append({"detector": scored.name, "type": kind, **sources, **figures})
    return rows


def shown(row: dict, fprs: Sequence[float]) -> dict[str, str]:
    """A line of the printed table."""
    return {
        "detector": row["detector"],
        "type": row["type"],
        "positives": str(row["positives"]),
        "negatives": str(row["negatives"]),
        "resolution": f"{row['resolution']:.4f}" if row["resolution"] else "-",
        "AUC": figure_text(row, "auc"),
        **{percent(fpr): tpr_text(row, fpr) for fpr in fprs},
        "accuracy": figure_text(row, "accuracy"),
        "ordinary prompts": Path(row["ordinary_prompts"]).name,
    }


def make_folder(folder: Path) -> None:
    """Raises ValueError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be used as a folder: {error.strerror}") from error
    check_writable(folder, "--out")
