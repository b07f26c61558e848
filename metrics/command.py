"""What all metric scripts share: their flags, the way from a run folder to results.csv, and what
they print.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from memorization_suite.download.assets import hint, named, path_of
from memorization_suite.download.check import sha256_of
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import EMBEDDED, Run, open_run
from memorization_suite.runs.environment import choose_device
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.table import Result, add_results, read_results

GROUND_TRUTH = Path("sdv1_500_mem_groundtruth/gt_images")


@dataclass(frozen=True)
class Script:
    """A metric script. files(args): the files that each of its metrics needs, with a line saying
    how to get one that is missing; scores(args, run, metrics): the scores of each metric that can
    be computed; headlines(results): lines to print first;
    references: whether its metrics compare with the training images, and so take --masks."""

    prog: str
    description: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    files: Callable[[argparse.Namespace], dict[str, dict[Path, str]]]
    scores: Callable[[argparse.Namespace, Run, set[str]], dict[str, list]]
    headlines: Callable[[list[Result]], list[str]]
    references: bool = True


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def build_parser(script: Script) -> Parser:
    """The flags of all scripts and the script's own."""
    parser = Parser(prog=script.prog, description=script.description, allow_abbrev=False)
    parser.add_argument(
        "-f", "--gen_folder", type=Path, required=True, help="run folder with img_PPPP_SS.png"
    )
    parser.add_argument(
        "-p",
        "--prompts",
        type=Path,
        help="prompt file of the run (default: the one that the run names)",
    )
    parser.add_argument(
        "--num_samples",
        type=positive,
        help="score the first so many images of each prompt (default: all)",
    )
    parser.add_argument(
        "--gt_folder",
        type=Path,
        help=f"training images, <folder>/<Index>/*.png (default {GROUND_TRUTH}, or the embedded "
        "model's)",
    )
    if script.references:
        parser.add_argument(
            "--masks",
            type=Path,
            help="<Index>.png, white where a prompt's image was memorized (default: the embedded "
            "model's)",
        )
    parser.add_argument(
        "--incomplete", action="store_true", help="score the images of an unfinished run"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_common_flags(parser)
    script.add_flags(parser)
    return parser


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every script that runs a network."""
    parser.add_argument("--device", default="", help="default: cuda if there is one")
    parser.add_argument(
        "--batch_size", type=positive, default=32, help="images at once through a network"
    )
    parser.add_argument(
        "--require",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="exit with code 2 when one of these cannot be computed",
    )


def checkpoint(
    typed: Path | None, flag: str, asset: str, *, folder: bool = False
) -> tuple[Path, dict[Path, str]]:
    """A typed path, or where download/ puts the asset; and what to say when it is not there. Raises
    ValueError for a typed one that is not.
    """
    path = existing(typed, flag, folder=folder) or path_of(asset)
    return path, {path: hint(asset)}


def existing(typed: Path | None, flag: str, *, folder: bool) -> Path | None:
    """The typed path. Raises ValueError when nothing is there, or a folder in the place of a file
    or a file in that of a folder.
    """
    if typed is not None and not typed.exists():
        raise ValueError(f"{flag} {typed} is not there")
    if typed is not None and typed.is_dir() != folder:
        raise ValueError(f"{flag} {typed} is no {'folder' if folder else 'file'}")
    return typed


def variant_of(name: str, path: Path, asset: str) -> str:
    """`name` for the published checkpoint; with the beginning of its sha256 for another file of
    that architecture.
    """
    if path.resolve() == path_of(asset).resolve():
        return name
    published, digest = named(asset), sha256_of(path)
    return (
        name if digest in (published.sha256, *published.files.values()) else f"{name}@{digest[:8]}"
    )


def available(
    prog: str, needed: dict[str, dict[Path, str]], required: list[str]
) -> tuple[set[str], list[str]]:
    """Metrics whose files are all there, and a line for people for each other one. Raises
    ValueError when a required one lacks a file.
    """
    unknown = sorted(set(required) - set(needed))
    if unknown:
        raise ValueError(f"--require {unknown[0]}: {prog} has {', '.join(needed)}")
    missing = {
        metric: "; ".join(hint for file, hint in files.items() if not file.exists())
        for metric, files in needed.items()
    }
    lacking = {metric: hints for metric, hints in missing.items() if hints}
    for metric in required:
        if metric in lacking:
            raise ValueError(f"{metric} cannot be computed: {lacking[metric]}")
    return set(needed) - set(lacking), [
        f"{metric} is not computed: {hints}" for metric, hints in lacking.items()
    ]


def score(script: Script, args: argparse.Namespace) -> None:
    """Computes, stores and prints. Raises ValueError for what the user can mend."""
    run = open_run(
        args.gen_folder, args.prompts, num_samples=args.num_samples, incomplete=args.incomplete
    )
    read_results(run.folder)  # a broken table is found before the work
    fill_defaults(args, run)
    metrics, left_out = available(script.prog, script.files(args), args.require)
    scores, references = (
        script.scores(args, run, metrics),
        References(args.gt_folder, decode=script.references),
    )
    for line in left_out:  # from here on nothing is wrong with the arguments
        print(line, file=sys.stderr)
    found = compute(run, [one for some in scores.values() for one in some], references, args)
    if (script.references and args.gt_folder.is_dir()) or not (
        run.folder / "references.csv"
    ).exists():  # else nothing was decoded
        write_csv(
            run.folder / "references.csv", (entry.row() for entry in references.coverage.values())
        )
    if script.references and args.gt_folder.is_dir():
        print(
            "\n".join(
                references.report()
                or [f"no prompt of {run.prompts_file} has an Index, so none has training images"]
            ),
            file=sys.stderr,
        )
    for line in script.headlines(found):
        print(line)
    say_empty(metrics, scores, found, args.require)
    from memorization_suite.metrics.summary import summarise, text_of

    print(text_of(summarise(run.folder, {(row.quantity, row.variant) for row in found})))


def compute(
    run: Run, scores: list, references: References, args: argparse.Namespace
) -> list[Result]:
    """All values, stored in results.csv. Older values of the same scores go when all is done; a
    fault on the way keeps what is there.
    """
    from tqdm import tqdm

    from memorization_suite.metrics.scores import run_scores

    found: list[Result] = []
    replaced: set[tuple[str, str]] = set()
    try:
        with tqdm(total=len(run.prompts_scored), unit="prompt", disable=args.quiet) as bar:
            for rows in run_scores(run, scores, references, args.masks):
                found += rows
                bar.update(len(references.coverage) - bar.n)
        replaced = {(one.quantity, one.variant) for one in scores}
    finally:
        if found or replaced:
            add_results(run.folder, found, replaced)
    return found


def say_empty(
    metrics: set[str], scores: dict[str, list], found: list[Result], required: list[str]
) -> None:
    """A line for each metric that gave no value for this run. Raises ValueError when it was
    required.
    """
    present = {(row.quantity, row.variant) for row in found}
    for metric in sorted(metrics):
        if not any((one.quantity, one.variant) in present for one in scores.get(metric, [])):
            if metric in required:
                raise ValueError(f"{metric} has no value for this run")
            print(f"{metric} has no value for this run", file=sys.stderr)


def fill_defaults(args: argparse.Namespace, run: Run) -> None:
    """Folders and device that were not typed. Raises ValueError for typed ones that are not
    there.
    """
    args.gt_folder = existing(args.gt_folder, "--gt_folder", folder=True) or training_images(run)
    args.masks = existing(getattr(args, "masks", None), "--masks", folder=True) or (
        EMBEDDED / "masks" if run.embedded else None
    )
    args.device = choose_device(args.device)


def training_images(run: Run) -> Path:
    """The folder of the training images of a run's prompts, if nobody says another."""
    if run.embedded:
        return EMBEDDED / "gt_images"
    return GROUND_TRUTH if GROUND_TRUTH.is_dir() else path_of("sdv1_500_mem_groundtruth")


def means(titles: dict[str, str]) -> Callable[[list[Result]], list[str]]:
    """The official scripts' lines: title -> quantity whose mean over images and then prompts
    follows it, if it was computed.
    """

    def headlines(results: list[Result]) -> list[str]:
        from memorization_suite.metrics.summary import prompt_means

        values = {
            title: list(prompt_means(row for row in results if row.quantity == quantity).values())
            for title, quantity in titles.items()
        }
        return [f"{title}{statistics.mean(found):.6g}" for title, found in values.items() if found]

    return headlines


def run_script(script: Script, argv: list[str] | None = None) -> int:
    """The command line of a script. Returns its exit code."""
    return guarded(
        script.prog,
        lambda: score(
            script, build_parser(script).parse_args(sys.argv[1:] if argv is None else argv)
        ),
    )


def guarded(prog: str, work: Callable[[], None]) -> int:
    """Runs a command. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running; faults are one message.
    """
    try:
        work()
        return 0
    except ValueError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{prog}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        print(f"{prog}: {str(error).splitlines()[0]} Use a smaller --batch_size.", file=sys.stderr)
    return 1
