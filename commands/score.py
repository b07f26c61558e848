"""Scores of a run: computed, stored in its results.csv and summed up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from memorization_suite.commands.score_job import (
    are_compared,
    kind,
    store_piece,
    stored_results,
    waiting,
    were_scored,
)
from memorization_suite.commands.settings import check_prompts, split
from memorization_suite.metrics.base import METRICS, Job, Metric, Scoring, is_against
from memorization_suite.metrics.checkpoints import check_required, existing
from memorization_suite.metrics.comparison import settings_apart, unsure_of, unsure_seeds
from memorization_suite.metrics.intervals import by_prompt
from memorization_suite.metrics.pieces import Found
from memorization_suite.metrics.references import References, stored_rows
from memorization_suite.metrics.remarks import check_finite, images_left_out, remarks
from memorization_suite.metrics.runs import (
    Run,
    check_equal,
    made_otherwise,
    open_run,
)
from memorization_suite.metrics.scores import Score
from memorization_suite.metrics.scripts import COPIES, PREFERENCE
from memorization_suite.metrics.summary import Line, cells, summarize, text_of, values_of
from memorization_suite.metrics.text_reader import cut_lines
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.notebook import table_html
from memorization_suite.runs.places import check_writable
from memorization_suite.runs.settings import flag_owners, flags, unknown_name
from memorization_suite.runs.shards import Shard, parse_shard
from memorization_suite.runs.table import (
    Result,
    read_results,
)

if TYPE_CHECKING:
    import pandas

Say = Callable[[str], None]


@dataclass(repr=False)
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
    # Of --shard: pieces that have to come before there is a summary.
    missing: list[Shard] = field(default_factory=list)

    def __repr__(self) -> str:
        return text_of(self.lines)

    def _repr_html_(self) -> str:
        return table_html([cells(line) for line in self.lines])

    def frame(self) -> pandas.DataFrame:
        """Every value as a table of pandas, with the columns of results.csv."""
        import pandas

        return pandas.DataFrame(self.results, columns=list(Result._fields))

    def check(self, required: Collection[str]) -> None:
        """Raises ValueError when a required metric has no value."""
        for metric in sorted(required):
            if metric in self.left_out:
                raise ValueError(f"{metric} has no value for this run")


# --- the function ---


def score(run: Any, metrics: Sequence[str] | None = None, **typed: Any) -> Table:
    """The scores of a run's images. They are also stored in its folder.

    run: what `generate` returns, or the path of a run folder. metrics: names, default all that need
    no flag; one whose files are not there is left out. typed: flags of the compute_*.py scripts by
    name. Raises ValueError that says what to mend.
    """
    general, special = split(typed, Scoring, more=flag_owners(METRICS))
    general["gen_folder"] = getattr(run, "path", run)
    settings = Scoring(**general)
    if metrics is None:
        metrics = usual_metrics(settings, special)
    names = list(dict.fromkeys([*metrics, *settings.require]))
    notes: list[str] = []
    table = compute(names, settings, special, say=notes.append)
    table.notes = notes
    table.check(settings.require)
    return table


def usual_metrics(settings: Scoring, typed: Mapping[str, Any]) -> list[str]:
    """Those of the official scripts, then all others for which every flag is there."""
    names = dict.fromkeys([*COPIES.metrics, *PREFERENCE.metrics, *METRICS])
    return [name for name in names if not lacking(name, settings, typed)]


def lacking(name: str, settings: Scoring, typed: Mapping[str, Any]) -> list[str]:
    """Flags that the metric needs and that were not typed."""
    own = [option.name for option in flags(METRICS[name]) if option.default is MISSING]
    names = [name for name in own if name not in typed]
    if METRICS[name].against == "unmitigated" and settings.unmitigated is None:
        names.append("unmitigated")
    return names


# --- the work ---


@hearing
def compute(
    names: Sequence[str],
    settings: Scoring,
    typed: Mapping[str, Any],
    *,
    say: Say,
    script: str = "",
) -> Table:
    """The scores of these metrics, stored in the run folder.

    typed: the metrics' own flags. say: takes the notes, one by one. Raises ValueError for what the
    user can mend; a wrong argument is found before anything is said.
    """
    shard = parse_shard(settings.shard)
    job = begin(names, settings, typed)
    metrics = [job.metric(METRICS[name]) for name in names]
    missing = {metric.name: metric.missing(job) for metric in metrics}
    check_required(script, missing, settings.require)
    possible = [metric for metric in metrics if not missing[metric.name]]
    table = Table()
    for metric in possible:
        table.left_out |= metric.partly(job)
    table.left_out |= {name: why for name, why in missing.items() if why}
    # Those that need no download come first.
    possible.sort(key=lambda metric: bool(metric.checkpoints(job)))
    scores = {metric.name: metric.scores(job) for metric in possible}
    for name, why in table.left_out.items():
        say(f"{name} is not computed: {why}")
    for line in images_left_out(job):
        say(line)
    if job.unmitigated:
        say_otherwise(job.run, job.unmitigated, say)

    every_score = list(chain.from_iterable(scores.values()))
    with_references = any(metric.against == "references" for metric in metrics)
    with_references |= any(is_against(score.quantity, "references") for score in every_score)
    references = References(job.gt_folder, decode=with_references)
    for line in captions_cut(job, every_score):
        say(line)
    found = Found()
    if shard:
        table.results, table.missing = store_piece(
            found, job, possible, every_score, references, shard
        )
    else:
        table.results = stored_results(found, job, every_score, references)
    for line in remarks(job, found):
        say(line)
    if found.outdated:
        say(found.outdated)
    if table.missing:
        say(waiting(shard, table.missing, were_scored(job, every_score)))
        return table
    for line in said_of(job, references):
        say(line)
    computed = set(map(kind, table.results))
    for name in sorted(scores):
        if computed.isdisjoint(map(kind, scores[name])):
            table.left_out[name] = "it has no value for this run"
            if name not in settings.require:
                say(f"{name} has no value for this run")
    table.lines = summarize(
        job.run.folder,
        computed,
        of_images=job.run.of_images,
        not_finite=job.run.not_finite,
    )
    table.headlines = headlines(metrics, table.results)
    return table


def captions_cut(job: Job, scores: Sequence[Score]) -> list[str]:
    """What is said of captions that are longer than the scores read."""
    scored = job.run.prompts_scored
    prompts = [prompt for prompt in job.run.prompts if prompt.row in scored]
    return cut_lines((score.reader for score in scores), prompts)


def say_otherwise(run: Run, unmitigated: Run, say: Say) -> None:
    """Says what differs beside the method from the run to compare with."""
    unsure_of_seeds = unsure_seeds(run.folder, unmitigated.folder)
    if unsure_of_seeds:
        say(f"--unmitigated: {unsure_of_seeds}")
    differing = settings_apart(run.folder, unmitigated.folder)
    unsure = unsure_of(run.folder, unmitigated.folder)
    if unsure and differing == unsure:
        say(
            f"--unmitigated {unmitigated.folder} may be of another model "
            f"({', '.join(differing)}): if it is not, the change is not the method's alone"
        )
    elif differing:
        hashed = made_otherwise(run.folder, unmitigated.folder)
        variant = ", and the variant of its scores ends in @ and a hash" if hashed else ""
        say(
            f"--unmitigated {unmitigated.folder} was not made as this run "
            f"({', '.join(differing)}): the change is not the method's alone{variant}"
        )


def begin(names: Sequence[str], settings: Scoring, typed: Mapping[str, Any]) -> Job:
    """What is scored. Raises ValueError for an unknown metric, and for flags, folders and files
    that are not there or cannot be used.
    """
    for name in names:
        if name not in METRICS:
            raise no_metric(name)
        for flag in lacking(name, settings, typed):
            raise ValueError(f"the following arguments are required: --{flag}")
    if settings.prompts:
        check_prompts(settings.prompts)
    opened = partial(
        open_run,
        column=settings.caption_column,
        num_samples=settings.num_samples,
        incomplete=settings.incomplete,
    )
    run = opened(settings.gen_folder, settings.prompts)
    check_finite(run)
    read_results(run.folder)  # broken tables are found before the work
    stored_rows(run.folder)
    check_writable(run.folder, "--gen_folder", "the run folder, where scores are kept,")
    gt_folder = existing(settings.gt_folder, "--gt_folder", folder=True) or run.gt_folder
    masks = existing(settings.masks, "--masks", folder=True) or run.masks
    unmitigated = None
    if settings.unmitigated and any(METRICS[name].against == "unmitigated" for name in names):
        prompts = settings.prompts or run.prompts_file
        unmitigated = opened(settings.unmitigated, prompts, flag="--unmitigated")
        check_equal(run, unmitigated)
        check_finite(unmitigated, "--unmitigated")
    return Job(settings, typed, run, gt_folder, masks, unmitigated)


def no_metric(name: str) -> ValueError:
    """The error for a name that no metric has; a number of one is told whose it is."""
    for metric in METRICS.values():
        if any(quantity.name == name for quantity in metric.quantities):
            return ValueError(f"{name} is a number of the metric {metric.name}: name that one")
    return unknown_name("metric", name, METRICS)


def said_of(job: Job, references: References) -> list[str]:
    """What is to be said of the training images."""
    if not are_compared(job, references):
        return []
    nothing = f"no prompt of {job.run.prompts_file} has an Index, so none has training images"
    return references.report() or [nothing]


def headlines(metrics: Sequence[Metric], results: Sequence[Result]) -> list[str]:
    """Lines to print first: what the official scripts say of the quantities of these metrics."""
    lines = []
    for metric in metrics:
        for quantity in metric.quantities:
            rows = [row for row in results if row.quantity == quantity.name]
            if quantity.title and rows:
                values = list(by_prompt(values_of(rows)).values())
                lines.append(f"{quantity.title}{metric.figure(values)}")
    return lines
