"""The work of a scoring: values chunk by chunk, and how a run's folder keeps them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress

from memorization_suite.metrics.base import Job, Metric
from memorization_suite.metrics.listing import masks_of
from memorization_suite.metrics.outdated import drop_outdated
from memorization_suite.metrics.pieces import Found, Pieces, contents_of
from memorization_suite.metrics.references import References
from memorization_suite.metrics.remarks import flat_in
from memorization_suite.metrics.runs import Group, Run
from memorization_suite.metrics.scores import Score
from memorization_suite.runs import RunFolder
from memorization_suite.runs.claims import Claim, TakenAway, alone
from memorization_suite.runs.files import write_csv
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.shards import WHOLE, Shard
from memorization_suite.runs.table import RESULTS, Result, add_results, put_results, read_results


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
    job: Job,
    metrics: Sequence[Metric],
    scores: list[Score],
    references: References,
    shard: Shard,
) -> tuple[list[Result], list[Shard]]:
    """(the values of a piece, the pieces that are missing). They are kept until all pieces are
    there; who brings the last one stores all, and gets the values of all.

    found: gets this piece's.
    """
    pieces = pieces_of(job, metrics, scores, references)  # of the images that are scored now
    find(found, job, scores, references, shard)
    with alone(job.run.folder, RESULTS, closing=True) as claim:
        pieces.keep(shard, found)
        missing = pieces.missing(shard)
        whole = found
        if not missing:
            whole = pieces.read(shard)
            references.coverage = {entry.prompt.row: entry for entry in whole.every_coverage()}
            computed = set(map(kind, scores))
            put_results(job.run.folder, whole.every_result(), computed, claim)
            found.outdated = put_coverage(job, references, computed, claim)
            pieces.remove()
    return whole.every_result(), missing


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
