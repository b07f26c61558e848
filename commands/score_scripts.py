"""The command lines of the scripts that score a run."""

from __future__ import annotations

import sys

from memorization_suite.commands.score import compute, no_metric
from memorization_suite.commands.settings import split
from memorization_suite.metrics.base import METRICS, Scoring
from memorization_suite.metrics.comparison import closest
from memorization_suite.metrics.scripts import Script
from memorization_suite.runs.cli import Parser, add_flag, add_flags, command, examples
from memorization_suite.runs.foreign import UNMITIGATED, above, is_foreign, is_named_alone
from memorization_suite.runs.progress import next_step
from memorization_suite.runs.settings import flag_owners, flags

# Of --help -> general flags below it.
HEADINGS = {
    "run": (
        "gen_folder",
        "prompts",
        "caption_column",
        "num_samples",
        "incomplete",
        "gt_folder",
        "masks",
        "unmitigated",
    ),
    "work": ("device", "batch_size", "shard", "require", "quiet"),
}
# What metrics compare with -> the general flag that only they read.
FLAGS_OF = {"references": "masks", "unmitigated": "unmitigated"}


def build_parser(script: Script, argv: list[str]) -> Parser:
    """The general flags, and those of the metrics that are asked for."""
    early = Parser(script.name, argv=argv, add_help=False)
    add_choice(early, script)
    names = early.parse_known_args(argv)[0].metrics
    for name in names:
        if name not in METRICS:
            early.exit(2, f"{script.name}: {no_metric(name)}\n")
    door = f"metrics/{script.name}"
    epilog = examples(
        *(f"{door} {flags}" for flags in script.examples),
        more=f"RUN: a folder that generate_images.py made. Metrics: {', '.join(METRICS)}.",
    )
    usage = f"{script.name} --gen_folder RUN [flags]"
    parser = Parser(script.name, script.description, usage=usage, epilog=epilog)
    against = {METRICS[name].against for name in names}
    unread = [flag for what, flag in FLAGS_OF.items() if what not in against]
    add_choice(parser, script)
    add_flags(parser, Scoring, without=unread, headings=HEADINGS)
    with_used = dict.fromkeys(each for name in names for each in (*METRICS[name].uses, name))
    known: set[str] = set()
    for name in with_used:
        options = [option for option in flags(METRICS[name]) if option.name not in known]
        group = parser.add_argument_group(f"flags of {name}") if options else parser
        for option in options:
            add_flag(group, option)
        known.update(option.name for option in options)
    return parser


def add_choice(parser: Parser, script: Script) -> None:
    """The flag that chooses metrics."""
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=script.metrics,
        metavar="METRIC",
        help=f"what to compute (default {' '.join(script.metrics)})",
    )


def run_script(script: Script, argv: list[str] | None = None) -> int:
    """The command line of a script. Returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    typed = build_parser(script, argv).typed(argv)
    names = list(dict.fromkeys(typed.pop("metrics")))
    general, special = split(typed, Scoring, more=flag_owners(METRICS))

    def work() -> None:
        settings = Scoring(**general)
        table = compute(names, settings, special, say=say, script=script.name)
        if table.missing:
            return
        for line in table.headlines:
            print(line)
        table.check(settings.require)
        print(table)
        next_step(following(settings), settings.quiet)

    return command(script.name, work)


def following(settings: Scoring) -> list[str]:
    """What one would type next: a page of the run, after the unmitigated one that goes with it."""
    run = settings.gen_folder.resolve()
    pattern = f"{UNMITIGATED}*" if is_named_alone(run) else f"{UNMITIGATED}/*"
    scored = [file.parent for file in above(run).glob(f"{pattern}/results.csv")]
    plain = closest(run, sorted(scored))
    runs = dict.fromkeys([*filter(None, [plain]), run])
    typed = ["--gt_folder", str(settings.gt_folder)] if settings.gt_folder else []
    if settings.prompts and is_foreign(run):
        typed += ["--prompts", str(settings.prompts)]
    return ["python", "make_report.py", *map(str, runs), *typed]


def say(line: str) -> None:
    """A note for people."""
    print(line, file=sys.stderr)
