"""Comparing detectors by their score files: `python detect_memorization.py evaluate FILE_OR_FOLDER
...`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.prompts.files import read_prompts
from memorization_suite.runs.files import write_csv
from memorization_suite.screening.command import Parser
from memorization_suite.screening.roc import RESAMPLES, RULES, check
from memorization_suite.screening.score_files import FORMATS, SETS, PromptScore, read_scores
from memorization_suite.screening.summary import (
    RATES,
    figure_text,
    percent,
    report_line,
    scores_of,
    summarise,
    table_text,
    tpr_name,
    warnings_of,
)

__all__ = ["main", "report_line", "summarise"]
PROG = "detect_memorization.py evaluate"


@dataclass(frozen=True)
class Scored:
    """A detector's scores of both sets. sources: where the memorized and the ordinary prompts came
    from, empty if that is not known.
    """

    name: str
    memorized: list[PromptScore]
    ordinary: list[PromptScore]
    sources: tuple[str, str]


def build_parser() -> Parser:
    """All flags."""
    parser = Parser(
        prog=PROG,
        description="AUC and TPR of detectors from their score files; larger scores mean more "
        "memorized.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="scores.csv, its folder, or a folder of such folders",
    )
    parser.add_argument(
        "--memorized",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="scores of memorized prompts: a .jsonl of Wen et al., a .pt of SAIL, or a scores.csv; "
        "may be given again, each with its "
        "--ordinary",
    )
    parser.add_argument(
        "--ordinary",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the scores of ordinary prompts to go with it",
    )
    parser.add_argument(
        "--rule",
        choices=RULES,
        default="at_most",
        help="how TPR at a false-positive rate is read off (default at_most: TPR with at "
        "most that rate; wen_strict: less than that rate; nearest: SAIL's and Ren's; interp)",
    )
    parser.add_argument(
        "--fpr",
        type=float,
        nargs="+",
        default=list(RATES),
        metavar="RATE",
        help="false-positive rates (default 0.01 0.03)",
    )
    parser.add_argument(
        "--by",
        choices=("type",),
        help="also a line for each type of memorized prompts; needs --prompts",
    )
    parser.add_argument(
        "--prompts", type=Path, help="the file of the memorized prompts, with a column type"
    )
    parser.add_argument(
        "--steps", type=int, help="use the first so many steps of a .jsonl or .pt (default: all)"
    )
    parser.add_argument(
        "--field", default="text_noise_norm", help="field of a .jsonl (default text_noise_norm)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="also write evaluation.csv, ROC curves and histograms into this folder",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the bootstrap intervals (default 0)"
    )
    return parser


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Score files of the files and folders given, each once; a folder without one is told on
    stderr. Raises ValueError for a missing path.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} is not there")
        inside = (
            [path / "scores.csv", *sorted(path.glob("*/scores.csv"))] if path.is_dir() else [path]
        )
        inside = inside[:1] if inside[0].exists() else inside[1:]
        if not inside:
            print(f"{path} holds no scores.csv: left out", file=sys.stderr)
        found += inside
    return list({path.resolve(): path for path in found}.values())


def names_of(files: Sequence[Path]) -> list[str]:
    """Folder name of a scores.csv, else the file's own name; with as many folders before it as tell
    the files apart, or a number.
    """
    parts = [
        path.resolve().with_suffix("").parts
        if path.name != "scores.csv"
        else path.resolve().parent.parts
        for path in files
    ]
    depth = [1] * len(files)
    for _ in range(max(map(len, parts), default=0)):
        names = ["/".join(part[-size:]) for part, size in zip(parts, depth)]
        depth = [size + (names.count(name) > 1) for name, size in zip(names, depth)]
    names = [printable("/".join(part[-size:])) for part, size in zip(parts, depth)]
    return [
        name + (f" ({names[:i].count(name) + 1})" if name in names[:i] else "")
        for i, name in enumerate(names)
    ]


def printable(text: object) -> str:
    """One line of text that a terminal and a UTF-8 file can take."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def source_names(file: Path) -> tuple[str, str]:
    """Prompt sources as the detector's config.json beside the scores has them; empty where there is
    none.
    """
    try:
        config = (
            json.loads((file.parent / "config.json").read_text(encoding="utf-8"))
            if file.name == "scores.csv"
            else {}
        )
        first, second = (config.get(name, "") for name in ("prompts", "nonmem_prompts"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return "", ""
    return printable(first), printable(second)


def read_both(file: Path, name: str, args: argparse.Namespace) -> Scored:
    """Both sets of one file. Raises ValueError."""
    sets = read_scores(file, steps=args.steps, field=args.field)
    if "" in sets:
        raise ValueError(
            f"{file} holds one set of prompts: give it with --memorized or --ordinary, and the "
            "other set with the other flag"
        )
    for key, kind in SETS.items():
        if key not in sets:
            raise ValueError(
                f"{file} holds no scores of {kind} prompts (set {key}): AUC and TPR need both "
                "sets; two files that hold a set each are "
                "given with --memorized and --ordinary"
            )
    return Scored(name, sets["mem"], sets["nonmem"], source_names(file))


def read_set(file: Path, key: str, args: argparse.Namespace) -> list[PromptScore]:
    """One set: the file's own if it holds one alone, else the one that was asked for. Raises
    ValueError.
    """
    sets = read_scores(file, steps=args.steps, field=args.field)
    return sets[key] if len(sets) > 1 else next(iter(sets.values()))


def read_all(args: argparse.Namespace) -> list[Scored]:
    """Every detector, in the order given. Raises ValueError."""
    if len(args.memorized) != len(args.ordinary):
        raise ValueError("--memorized and --ordinary go together: one of each for every detector")
    files, pairs = files_of(args.files), list(zip(args.memorized, args.ordinary))
    for first, second in pairs:
        if first.resolve() == second.resolve():
            raise ValueError(
                f"--memorized and --ordinary are the same file {first}; one that holds both sets "
                "is given without these flags"
            )
    if not files and not pairs:
        raise ValueError(f"give score files: {FORMATS}, or folders with a scores.csv")
    names = names_of([*files, *args.memorized])
    return [
        *(read_both(file, name, args) for file, name in zip(files, names)),
        *(
            Scored(
                name,
                read_set(first, "mem", args),
                read_set(second, "nonmem", args),
                (names_of([first])[0], names_of([second])[0]),
            )
            for (first, second), name in zip(pairs, names[len(files) :])
        ),
    ]


def split_by_type(one: Scored, file: Path) -> dict[str, list[PromptScore]]:
    """Type -> scores of the memorized prompts of that type. Raises ValueError when the prompt file
    is another one than the detector saw.
    """
    prompts = read_prompts(file)
    if not any(prompt.type for prompt in prompts):
        raise ValueError(f"{file} has no types: --by type needs a column 'type'")
    found: dict[str, list[PromptScore]] = {}
    for score in one.memorized:
        if score.row >= len(prompts) or (
            score.prompt and score.prompt.strip() != prompts[score.row].caption.strip()
        ):
            seen = (
                repr(prompts[score.row].caption[:60])
                if score.row < len(prompts)
                else f"none, as the file has {len(prompts)} prompts"
            )
            raise ValueError(
                f"--prompts {file} is not what {one.name} saw: row {score.row} is "
                f"{score.prompt[:60]!r} in the scores, but {seen}"
            )
        found.setdefault(printable(prompts[score.row].type) or "none", []).append(score)
    return dict(sorted(found.items()))


def tell_other_prompts(detections: Sequence[Scored]) -> None:
    """Says on stderr which detectors were not scored on the prompts of the first, as far as the
    files tell.
    """
    first = detections[0]
    for other in detections[1:]:
        for ours, theirs in ((first.memorized, other.memorized), (first.ordinary, other.ordinary)):
            known = all(score.prompt for score in [*ours, *theirs])
            if len(ours) != len(theirs) or (
                known
                and sorted(score.prompt for score in ours)
                != sorted(score.prompt for score in theirs)
            ):
                print(
                    f"{other.name} was not scored on the same prompts as {first.name}: their "
                    "figures are not comparable",
                    file=sys.stderr,
                )
                break


def evaluate(args: argparse.Namespace) -> None:
    """Reads, computes, prints, writes. Raises ValueError for what the user can mend."""
    check(args.rule, args.fpr)
    if args.seed < 0 or (args.steps is not None and args.steps < 1):
        raise ValueError(
            "--seed must be at least 0"
            if args.seed < 0
            else f"--steps {args.steps} must be at least 1"
        )
    if (args.by is None) != (args.prompts is None):
        raise ValueError(
            "--by type and --prompts go together: the types stand in the file of the memorized "
            "prompts"
        )
    detections, fprs = read_all(args), list(dict.fromkeys(args.fpr))
    rows = [row for one in detections for row in rows_of(one, args, fprs)]
    if args.out:
        make_folder(args.out)
    tell_other_prompts(detections)
    for row in rows:
        for warning in warnings_of(row):
            print(f"{label_of(row)}: {warning}", file=sys.stderr)
    print(table_text([shown(row, fprs) for row in rows]))
    print(
        f"TPR by the rule {args.rule}; [95 % interval] from {RESAMPLES} resamples of the prompts "
        "of each set"
    )
    if args.out:
        from memorization_suite.screening.roc_plots import write_plots

        write_csv(args.out / "evaluation.csv", rows)
        write_plots(
            args.out,
            {one.name: (scores_of(one.memorized), scores_of(one.ordinary)) for one in detections},
        )


def rows_of(one: Scored, args: argparse.Namespace, fprs: list[float]) -> list[dict]:
    """Rows of evaluation.csv: all prompts, whose type is empty, then each type. Raises
    ValueError.
    """
    groups = {"": one.memorized, **(split_by_type(one, args.prompts) if args.by else {})}
    ordinary, sources = scores_of(one.ordinary), one.sources
    return [
        {
            "detector": one.name,
            "type": kind,
            "memorized_prompts": sources[0],
            "ordinary_prompts": sources[1],
            **summarise(scores_of(scores), ordinary, args.rule, fprs, args.seed),
        }
        for kind, scores in groups.items()
    ]


def label_of(row: dict) -> str:
    """Detector, and the type if it is not all of them."""
    return f"{row['detector']}, type {row['type']}" if row["type"] else row["detector"]


def shown(row: dict, fprs: Sequence[float]) -> dict[str, str]:
    """A line of the printed table."""
    return {
        "detector": row["detector"],
        "type": row["type"],
        "positives": str(row["positives"]),
        "negatives": str(row["negatives"]),
        "resolution": f"{row['resolution']:.4f}" if row["resolution"] else "-",
        "AUC": figure_text(row, "auc"),
        **{percent(fpr): figure_text(row, tpr_name(fpr)) for fpr in fprs},
        "accuracy": figure_text(row, "accuracy"),
        "ordinary prompts": Path(row["ordinary_prompts"]).name,
    }


def make_folder(folder: Path) -> None:
    """Raises ValueError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be used as a folder: {error.strerror}") from error


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running.
    """
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        evaluate(args)
    except ValueError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except (OSError, KeyboardInterrupt) as error:
        print(f"{PROG}: {str(error) or 'interrupted'}", file=sys.stderr)
        return 1
    return 0
