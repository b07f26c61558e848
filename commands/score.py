"""Scores of a run: computed, stored in its results.csv and summed up."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from memorization_suite.commands.settings import check_prompts, split
from memorization_suite.metrics.base import METRICS, Job, Metric, Scoring, is_against
from memorization_suite.metrics.checkpoints import check_required, existing
from memorization_suite.metrics.comparison import settings_apart, unsure_of, unsure_seeds
from memorization_suite.metrics.intervals import by_prompt
from memorization_suite.metrics.listing import masks_of
from memorization_suite.metrics.outdated import drop_outdated
from memorization_suite.metrics.pieces import Found, Pieces, contents_of
from memorization_suite.metrics.references import References, stored_rows
from memorization_suite.metrics.remarks import check_finite, flat_in, images_left_out, remarks
from memorization_suite.metrics.runs import (
    Group,
    Run,
    check_equal,
    made_otherwise,
    open_run,
)
from memorization_suite.metrics.scores import Score
from memorization_suite.metrics.scripts import COPIES, PREFERENCE
from memorization_suite.metrics.summary import Line, summarize, text_of, values_of
from memorization_suite.metrics.text_reader import cut_lines
from memorization_suite.runs import RunFolder
from memorization_suite.runs.claims import Claim, TakenAway, alone
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.places import check_writable
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.settings import flag_owners, flags, unknown_name
from memorization_suite.runs.shards import WHOLE, Shard, parse_shard
from memorization_suite.runs.table import (
    RESULTS,
    Result,
    add_results,
    put_results,
    read_results,
)

if TYPE_CHECKING:
    import pandas

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
    # Of --shard: pieces that have to come before there is a summary.
    missing: list[Shard] = field(default_factory=list)

    def __str__(self) -> str:
        return text_of(self.lines)

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
        store_piece(found, table, job, possible, every_score, references, shard)
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


def kind(row: Result | Score) -> tuple[str, str]:
    """What it is a value of."""
    return row.quantity, row.variant


def stored_results(
    found: Found,
    job: Job,
    scores: list[Score],
    references: References,
) -> list[Result]:
    """All values, which are put into `found` and stored in results.csv, and what there is of
    training images.

    Older values of the same scores go when all is done, and pieces of them; a fault on the way
    keeps what is there.
    """
    run = job.run
    try:
        find(found, job, scores, references)
    except BaseException:
        if found.every_result():
            add_results(run.folder, found.every_result())
        raise
    results = found.every_result()
    computed = set(map(kind, scores))
    pieces = Pieces.of(run.folder, run.prompts, scores=sorted(computed), state=None)
    while True:  # who lost the claim meanwhile waits for another turn
        with suppress(TakenAway), alone(run.folder, RESULTS, closing=True) as claim:
            put_results(run.folder, results, computed, claim)
            found.outdated = put_coverage(job, references, computed, claim)
            pieces.remove()
            return results


def store_piece(
    found: Found,
    table: Table,
    job: Job,
    metrics: Sequence[Metric],
    scores: list[Score],
    references: References,
    shard: Shard,
) -> None:
    """The values of a piece, kept until all pieces are there; who brings the last one stores all.

    found: gets this piece's. The table gets the values, and the pieces that are missing.
    """
    pieces = pieces_of(job, metrics, scores, references)  # of the images that are scored now
    find(found, job, scores, references, shard)
    with alone(job.run.folder, RESULTS, closing=True) as claim:
        pieces.keep(shard, found)
        table.missing = pieces.missing(shard)
        whole = found
        if not table.missing:
            whole = pieces.read(shard)
            references.coverage = {entry.prompt.row: entry for entry in whole.every_coverage()}
            computed = set(map(kind, scores))
            put_results(job.run.folder, whole.every_result(), computed, claim)
            found.outdated = put_coverage(job, references, computed, claim)
            pieces.remove()
    table.results = whole.every_result()


def pieces_of(
    job: Job, metrics: Sequence[Metric], scores: list[Score], references: References
) -> Pieces:
    """The part files of this scoring. Where anything that decides it changes, names change."""
    run = job.run
    compared = [file for prompt in run.prompts for file in references.files(prompt.index)]
    folders = [run.folder, *([job.unmitigated.folder] if job.unmitigated else [])]
    loaded = [each for metric in metrics for each in metric.checkpoints(job) if not each.missing]
    state = {
        "images": sorted(map(str, run.files)),
        "not_finite": sorted(map(str, run.not_finite)),
        "prompts": content_hash(run.prompts_file),
        "finished": [(RunFolder(folder).manifest() or {}).get("finished") for folder in folders],
        "folders": [job.gt_folder, job.masks, *folders[1:]],
        "flags": dict(job.typed),
        "checkpoints": [each.hashes() for each in loaded],
        "references": contents_of(compared),
        "masks": contents_of(sorted(masks_of(job.masks).values())) if job.masks else [],
    }
    return Pieces.of(run.folder, run.prompts, scores=sorted(set(map(kind, scores))), state=state)


def were_scored(job: Job, scores: list[Score]) -> bool:
    """Whether results.csv has values of these scores, of an earlier scoring."""
    return not set(map(kind, scores)).isdisjoint(map(kind, read_results(job.run.folder)))


def waiting(shard: Shard, missing: list[Shard], before: bool) -> str:
    """Why there is no new table yet. before: whether there is one of an earlier scoring."""
    pieces = ", ".join(map(str, missing))
    if before:
        return (
            f"piece {shard} is scored anew; results.csv keeps the earlier scores until the others "
            f"are, too ({pieces}), or the command without --shard scores all"
        )
    return f"piece {shard} is scored; the table comes with the last of those missing: {pieces}"


def find(
    found: Found,
    job: Job,
    scores: list[Score],
    references: References,
    shard: Shard = WHOLE,
) -> None:
    """Fills in the finite values of every chunk of prompts, and its training images."""
    run = job.run
    chunks = [chunk for number, chunk in enumerate(run.chunks()) if shard.has(number)]
    prompts = sum(map(len, chunks))
    images = sum(len(keys) for chunk in chunks for keys in chunk)
    found.images = images
    quantities = dict.fromkeys(score.quantity for score in scores)
    piece = f", piece {shard}" if shard else ""
    progress = Progress(
        f"{', '.join(quantities)} of {images} images of {prompts} prompts{piece}",
        prompts,
        unit="prompt",
        # A piece is kept when all of it is there.
        place=None if shard else run.folder / "results.csv",
        then="Rerun the command for the scores of all.",
        quiet=job.settings.quiet,
    )
    with progress:
        for number, groups in run.groups(references, job.masks, job.unmitigated, shard=shard):
            pictured = [group for group in groups if group.pictures]
            results = results_of(run, scores, pictured)
            found.results[number] = [row for row in results if math.isfinite(row.value)]
            found.left_out += [row for row in results if not math.isfinite(row.value)]
            found.flat += flat_in(pictured)
            rows = [group.prompt.row for group in groups]
            found.coverage[number] = [references.coverage[row] for row in rows]
            progress.update(len(groups))


def results_of(run: Run, scores: Sequence[Score], groups: Sequence[Group]) -> list[Result]:
    """The values of all scores for a few prompts that have images."""
    results = []
    for score in scores:
        score.prepare(groups)
        for group in groups:
            for sample, value in score.values(group).items():
                about = (run.name, run.method, group.prompt.row, sample)
                results.append(Result(*about, score.quantity, score.variant, value))
    return results


def are_compared(job: Job, references: References) -> bool:
    """Whether images are compared with training images that are there."""
    return references.decode and job.gt_folder.is_dir()


def put_coverage(
    job: Job, references: References, computed: Collection[tuple[str, str]], claim: Claim
) -> str:
    """Writes references.csv, of one who is alone; older values that were of other training images
    go. Returns what is to be said of that. Where nothing was decoded, or no training image is
    there, as in a wrong folder, more may be known, and all stays.

    computed: quantity and variant of what is of these images.
    """
    file = job.run.folder / "references.csv"
    found_any = any(entry.sha256 for entry in references.coverage.values())
    if file.exists() and not (found_any and are_compared(job, references)):
        return ""
    said = drop_outdated(job.run.folder, references.coverage, computed, claim)
    write_csv(file, (entry.row() for entry in references.coverage.values()))
    return said


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
