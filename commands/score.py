"""Scores of a run: computed, stored in its results.csv and summed up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tqdm import tqdm

from memorization_suite.commands.settings import split
from memorization_suite.metrics.checkpoints import available, existing
from memorization_suite.metrics.copies import Copies
from memorization_suite.metrics.preference import Preference
from memorization_suite.metrics.references import References
from memorization_suite.metrics.runs import open_run
from memorization_suite.metrics.scores import Score, run_scores
from memorization_suite.metrics.scripts import Job, Scoring, Script
from memorization_suite.metrics.summary import Line, summarize, text_of
from memorization_suite.runs.cli import Parser, add_flags, command
from memorization_suite.runs.environment import choose_device
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.settings import flag_names, unknown_name
from memorization_suite.runs.table import Result, add_results, read_results

SCRIPTS: tuple[type[Script], ...] = (Copies, Preference)  # whose metrics `score` computes
Say = Callable[[str], None]


@dataclass
class Table:
    """The scores of a run. As a text it is the table that the scripts print."""

    # Every value that was computed, as it is stored in results.csv.
    results: list[Result] = field(default_factory=list)
    # Their summary.
    lines: list[Line] = field(default_factory=list)
    # Metric -> why it is not there.
    left_out: dict[str, str] = field(default_factory=dict)
    # The official scripts' lines.
    headlines: list[str] = field(default_factory=list)
    # What the scripts say on stderr: what is left out, how many training images are there.
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return text_of(self.lines)

    def add(self, other: Table) -> None:
        """Takes in the scores of another script."""
        self.results += other.results
        self.lines += other.lines
        self.left_out |= other.left_out
        self.headlines += other.headlines

    def check(self, required: Collection[str]) -> None:
        """Raises ValueError when a required metric has no value."""
        for metric in sorted(required):
            if metric in self.left_out:
                raise ValueError(f"{metric} has no value for this run")


# --- the function ---


def score(run: Any, metrics: Sequence[str] | None = None, **typed: Any) -> Table:
    """The scores of a run's images. They are also stored in its folder.

    run: what `generate` returns, or the path of a run folder. metrics: names, default all; one
    whose files are not there is left out. typed: flags of compute_sscd_orig_clip_score.py and
    compute_lpips_imagereward.py by name. Raises ValueError that says what to mend.
    """
    names = [metric for script in SCRIPTS for metric in script.metrics]
    wanted = names if metrics is None else metrics
    general, special = split(typed, Scoring, more=special_flags(SCRIPTS))
    general["gen_folder"] = getattr(run, "path", run)
    settings = Scoring(**general)
    for metric in [*wanted, *settings.require]:
        if metric not in names:
            raise unknown_name("metric", metric, names)
    table = Table()
    for script in SCRIPTS:
        required = tuple(metric for metric in settings.require if metric in script.metrics)
        chosen = [metric for metric in script.metrics if metric in (*wanted, *required)]
        if chosen:
            part = Scoring(**general | {"require": required})
            flags = settings_of(script, special)
            table.add(score_with(script, part, flags, metrics=chosen, say=table.notes.append))
    table.check(settings.require)
    return table


def special_flags(scripts: Sequence[type[Script]]) -> list[str]:
    """Names of the flags that not all scripts have."""
    return [name for script in scripts for name in flag_names(script.flags)]


def settings_of(script: type[Script], typed: Mapping[str, Any]) -> Any:
    """The script's own settings, of those that were typed. Raises ValueError."""
    names = flag_names(script.flags)
    return script.flags(**{name: value for name, value in typed.items() if name in names})


# --- one script's metrics ---


def score_with(
    script: type[Script],
    settings: Scoring,
    flags: Any,
    *,
    metrics: Collection[str],
    say: Say,
) -> Table:
    """The scores of a script's metrics, stored in the run folder.

    flags: the script's own settings. say: takes the notes, one by one. Raises ValueError for what
    the user can mend; a wrong argument is found before anything is said.
    """
    job = begin(settings)
    made = script(flags, job)
    needs = {metric: files for metric, files in made.needs().items() if metric in metrics}
    possible, missing = available(script.name, needs, settings.require)
    options = {"device": choose_device(settings.device), "batch_size": settings.batch_size}
    scores = made.scores(possible, options)
    references = References(job.gt_folder, decode=script.references)
    left_out = made.partly(possible) | missing
    for name, why in left_out.items():
        say(f"{name} is not computed: {why}")
    results = compute(job, list(chain.from_iterable(scores.values())), references)
    for line in store_coverage(job, references, script):
        say(line)
    computed = set(map(kind, results))
    for metric in sorted(possible):
        if computed.isdisjoint(map(kind, scores.get(metric, []))):
            left_out[metric] = "it has no value for this run"
            if metric not in settings.require:
                say(f"{metric} has no value for this run")
    lines = summarize(job.run.folder, computed)
    return Table(results, lines, left_out, script.headlines(results))


def kind(row: Result | Score) -> tuple[str, str]:
    """What it is a value of."""
    return row.quantity, row.variant


def begin(settings: Scoring) -> Job:
    """What is scored. Raises ValueError for folders that are not there, or cannot be used."""
    run = open_run(
        settings.gen_folder,
        settings.prompts,
        num_samples=settings.num_samples,
        incomplete=settings.incomplete,
    )
    read_results(run.folder)  # a broken table is found before the work
    gt_folder = existing(settings.gt_folder, "--gt_folder", folder=True) or run.gt_folder
    masks = existing(settings.masks, "--masks", folder=True) or run.masks
    return Job(settings, run, gt_folder, masks)


def compute(job: Job, scores: list[Score], references: References) -> list[Result]:
    """All values, stored in results.csv.

    Older values of the same scores go when all is done; a fault on the way keeps what is there.
    """
    results: list[Result] = []
    replaced: set[tuple[str, str]] = set()
    total = len(job.run.prompts_scored)
    try:
        with tqdm(total=total, unit="prompt", disable=job.settings.quiet) as bar:
            for rows in run_scores(job.run, scores, references, job.masks):
                results += rows
                bar.update(len(references.coverage) - bar.n)
        replaced = set(map(kind, scores))
    finally:
        if results or replaced:
            add_results(job.run.folder, results, replaced)
    return results


def store_coverage(job: Job, references: References, script: type[Script]) -> list[str]:
    """Writes references.csv. Returns what is to be said of the training images."""
    compared = script.references and job.gt_folder.is_dir()
    file = job.run.folder / "references.csv"
    if compared or not file.exists():  # else nothing was decoded, and more may be known
        write_csv(file, (entry.row() for entry in references.coverage.values()))
    if not compared:
        return []
    nothing = f"no prompt of {job.run.prompts_file} has an Index, so none has training images"
    return references.report() or [nothing]


# --- the command line ---


def build_parser(script: type[Script]) -> Parser:
    """The flags of all scripts and the script's own."""
    parser = Parser(script.name, script.description)
    add_flags(parser, Scoring, without=() if script.references else ("masks",))
    add_flags(parser, script.flags)
    return parser


def run_script(script: type[Script], argv: list[str] | None = None) -> int:
    """The command line of a script. Returns its exit code."""
    typed = build_parser(script).typed(argv)
    general, special = split(typed, Scoring, more=special_flags([script]))

    def work() -> None:
        settings = Scoring(**general)
        flags = settings_of(script, special)
        table = score_with(script, settings, flags, metrics=script.metrics, say=say)
        for line in table.headlines:
            print(line)
        table.check(settings.require)
        print(table)

    return command(script.name, work)


def say(line: str) -> None:
    """A note for people."""
    print(line, file=sys.stderr)
