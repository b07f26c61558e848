"""When guidance starts late on an embedded model: how many images are still copies, and when each
image escapes for good.

python -m experiments.late_guidance --model_id tiny

Captions of group B of the test split, with guidance from step 0, 2, ..., 20 on. Writes
tiny/evaluation/<model>_late_guidance.json. Interrupted runs resume: rerun the command.
"""

from __future__ import annotations

import argparse
import itertools
import statistics

from memorization_suite import tiny
from memorization_suite.experiments.common import model_parser
from memorization_suite.experiments.evaluate_tiny import is_copied
from memorization_suite.experiments.evidence.escape import first_free_start
from memorization_suite.experiments.result_tables import SAMPLES
from memorization_suite.experiments.scored_run import ScoredRun, is_kind, mean, scored_run
from memorization_suite.metrics.embedded import Caption, read_captions
from memorization_suite.runs.files import write_json

STARTS = range(0, 21, 2)  # first guided step
# How much the step of escape varies with the noise is told of a few captions.
SPREAD_CAPTIONS = 3
SPREAD_NOISES = 50


def transitions(args: argparse.Namespace) -> dict:
    """Group B with guidance started at step 0, 2, ..., 20: share of copies, subject shown, and when
    each image escapes for good.
    """
    captions = group_b(args.model_id)
    runs = late_guidance(args, captions, args.samples)
    copies = {}
    shown = {}
    for start, run in runs.items():
        copies[start] = round(run.copies(), 3)
        shown[start] = round(run.average("subject_shown"), 3)
    by_prompt = escapes(runs)
    steps = list(itertools.chain.from_iterable(by_prompt.values()))
    return {
        "share of copies": copies,
        "subject shown": shown,
        "images by step of escape": {str(step): steps.count(step) for step in [*STARTS, None]},
        "prompts whose noises escape at different steps": round(
            mean(len({*of_prompt}) > 1 for of_prompt in by_prompt.values()), 3
        ),
    }


def spreads(args: argparse.Namespace) -> list[dict]:
    """Of the first captions of group B: how the step of escape differs over many noises.

    A noise that never escapes counts as the step after the last start.
    """
    captions = group_b(args.model_id)[:SPREAD_CAPTIONS]
    by_prompt = escapes(late_guidance(args, captions, SPREAD_NOISES))
    lines = []
    for caption in captions:
        steps = [STARTS.stop if step is None else step for step in by_prompt[caption.row]]
        line = {"caption": caption.text, "noises": len(steps), "never": steps.count(STARTS.stop)}
        line |= {"mean step": statistics.mean(steps), "deviation": statistics.stdev(steps)}
        lines.append(line)
    return lines


def group_b(model_id: str) -> list[Caption]:
    """Its captions of the test split."""
    return [*filter(is_kind("VM B"), read_captions(tiny.prompts(model_id, "memorized_test")))]


def late_guidance(
    args: argparse.Namespace, captions: list[Caption], samples: int
) -> dict[int, ScoredRun]:
    """First guided step -> the images of these captions."""
    rows = {caption.row for caption in captions}
    runs = {}
    for start in STARTS:
        run = scored_run(
            args,
            "memorized_test",
            n_samples_per_prompt=samples,
            method="static_transition",
            cfg_step=start - 1,
            start=min(rows),
            end=max(rows) + 1,
            quiet=True,
        )
        runs[start] = run.only(lambda caption: caption.row in rows)
    return runs


def escapes(runs: dict[int, ScoredRun]) -> dict[int, list[int | None]]:
    """Prompt -> the step of escape of each of its images."""
    by_prompt = {}
    for key in runs[0].rows:
        step = first_escape([is_copied(run, key) for run in runs.values()])
        by_prompt.setdefault(key.prompt, []).append(step)
    return by_prompt


def first_escape(copy_by_start: list[bool]) -> int | None:
    """First start of guidance from which on the image is never a copy again.

    None if it is one at the last.
    """
    return first_free_start(dict(zip(STARTS, copy_by_start)))


def main() -> None:
    """The command line."""
    parser = model_parser(__doc__, samples=SAMPLES["late_guidance"], out="build/evaluation")
    args = parser.parse_args()
    figures = {**transitions(args), "spread": spreads(args)}
    args.figures.mkdir(parents=True, exist_ok=True)
    path = args.figures / f"{args.model_id}_late_guidance.json"
    write_json(path, figures)
    print(path.read_text())


if __name__ == "__main__":
    main()
