"""The main job: images for the prompts of a file, with one mitigation or none."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from memorization_suite.commands.captions import say_cut, say_cut_alternatives, say_lost
from memorization_suite.commands.generate_plan import Plan
from memorization_suite.commands.image_job import Job, close
from memorization_suite.commands.machine import (
    choose_memory,
    derivatives,
    limits_of,
    memory_facts,
    say_derivatives,
    say_hints,
    use_machine,
)
from memorization_suite.commands.room import check_room_of_images
from memorization_suite.commands.settings import at_work, load_model
from memorization_suite.runs.files import write_json
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.marks import Marks, number_of
from memorization_suite.runs.notebook import picture_html, text_html
from memorization_suite.runs.processes import of_main, processes
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.runs.store import beginning
from memorization_suite.runs.text import counted
from memorization_suite.runs.whole import say_changed, say_damaged
from memorization_suite.sampling.denoiser import Denoiser

# How images.csv writes numbers that are infinite, and the columns that hold no number.
INFINITE = ("inf", "-inf")
TEXTS = ("key", "prompt")


@dataclass(repr=False)
class Run:
    """A run that was made, or was there already."""

    plan: Plan
    folder: RunFolder
    # Keys of the images that were made now, and the seconds that they took.
    made: list[Key] = field(default_factory=list)
    seconds: float = 0.0
    # Of the processes of `accelerate launch` one speaks for all.
    is_main: bool = True
    # Whether all images are there; of a piece, those of the other pieces too.
    closed: bool = True

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def following(self) -> list[str]:
        """What one would type next: the scores of the images, when all are there and one or more
        is finite.
        """
        own = self.plan.own()
        if not self.closed or len(Marks.of(self.folder.costs(), own).not_finite) == len(own):
            return []
        script = "metrics/compute_sscd_orig_clip_score.py"
        return ["python", script, "--gen_folder", str(self.path)]

    @property
    def summary(self) -> str:
        """What there is and what it cost, in a line."""
        of_piece = f" of piece {self.plan.shard}" if self.plan.shard else ""
        text = f"{counted(len(self.plan.own()), 'image')}{of_piece} in {self.path} "
        if not self.closed:
            text += f"(other {'pieces' if self.plan.shard else 'images'} are not made yet) "
        rows = self.folder.costs()
        if not self.made:
            decoded = ", all are whole" if self.plan.settings.verify else ""
            return text + f"(nothing to make{decoded}{marked(rows, self.plan.own())})"
        made = [rows[key] for key in self.made]
        evals = sum(int(row["unet_evals"]) for row in made) / len(made)
        each = f"{evals:.4g} NFE and {self.seconds / len(made):.2f} s each"
        faults = warnings(made) + marked(rows, self.plan.own())
        return text + f"({counted(len(made), 'image')} made, {each}{faults})"

    def sheet(self, prompts: int = 8, samples: int = 4):
        """The first prompts' training image and images, a row each, as a PIL image."""
        from memorization_suite.commands.sheet import run_sheet

        return run_sheet(self.path, prompts=prompts, samples=samples)

    def __repr__(self) -> str:
        return self.summary

    def _repr_html_(self) -> str:
        shown = "training images, and what was made of their captions"
        return text_html(self.summary) + picture_html(self.sheet(), shown)


@hearing
def generate(planned: Plan, *, load: Callable | None = None) -> Run:
    """Makes the images that a run lacks; a finished one loads no model.

    load: in the place of `load_pipeline`, for several runs of one model. Processes started by
    `accelerate launch` share the batches. Raises ValueError for what the user can mend, before the
    folder is changed.
    """
    state = processes(cpu=planned.settings.device == "cpu")
    run = Run(planned, RunFolder(planned.folder), is_main=state.is_main_process)
    with beginning([run.folder]):
        job = job_of(run, state, load)
    if job is None:
        if run.is_main:
            write_json(run.path / "config.json", planned.config)  # files may have moved
            run.closed = run.folder.is_finished() or close(planned, run.folder)
    else:
        with at_work():
            job.go()
        run.made = job.made
        run.seconds = job.seconds
        if run.is_main:
            rows = run.folder.costs()
            say_lost(run.path, {key: rows[key] for key in job.made})
            run.closed = run.folder.is_finished()
            asked = {key.prompt for key in planned.own()}
            say_hints(planned.settings, planned.parts(), len(asked), job.model.limits, run.seconds)
    if state.num_processes > 1:
        state.destroy_process_group()
    return run


def job_of(run: Run, state, load: Callable | None) -> Job | None:
    """What the run lacks, with its model; None where it is whole. Raises ValueError."""
    planned = run.plan
    if run.is_main:
        run.folder.prepare(planned.identity, overwrite=planned.settings.overwrite)
        describe(planned)
    missing = of_main(state, missing_of(run) if run.is_main else None)
    if not missing:
        return None
    if run.is_main:
        check_room_of_images(planned, missing)
    return begin(run, state, load, missing)


def missing_of(run: Run) -> set[Key]:
    """The images that are to be made; says on stderr which files are damaged."""
    planned = run.plan
    own = set(planned.own())
    if planned.settings.overwrite or run.folder.manifest() is None:  # what lies there goes
        return own
    there = planned.there()
    say_damaged(there.damaged, run.path)
    say_changed(there.changed, run.path)
    return own - there.complete


def describe(planned: Plan) -> None:
    """Says on stderr what is used, so that a preset's values are seen."""
    used = {**planned.general(), **planned.mitigation.named_values()}
    shown = " ".join(f"{name}={value}" for name, value in used.items() if value not in (None, ""))
    print(f"method {planned.mitigation.name}, preset {planned.preset}: {shown}", file=sys.stderr)
    say_derivatives(planned.parts(), planned.settings.dtype)


def say_captions(planned: Plan, model: Denoiser) -> None:
    """Says which captions of the run are too long for the model's text encoder."""
    rows = {key.prompt for key in planned.own()}
    prompts = [prompt for prompt in planned.prompts if prompt.row in rows]
    say_cut(model, prompts)
    if any(getattr(part, "reads_alternatives", False) for part in planned.parts()):
        say_cut_alternatives(model, prompts)


def begin(run: Run, state, load: Callable | None, missing: set[Key]) -> Job:
    """The model, then the folder, which is changed last. Raises ValueError.

    missing: what is to be made.
    """
    settings = run.plan.settings
    device = str(state.device) if state.num_processes > 1 else settings.device
    own = {"unet_id": settings.unet_id, "dtype": settings.dtype, "device": device}
    model = load_model(settings, load, **own)
    plan = run.plan
    prompts = len(plan.prompts)
    if run.is_main:
        memory = choose_memory(
            model,
            settings,
            gradients=bool(derivatives(plan.parts(), settings.dtype)),
            stores=[] if settings.overwrite else [run.folder],
        )
        use_machine(model, settings, memory, prompts)
        run.folder.start(
            plan.identity,
            overwrite=settings.overwrite,
            config=plan.config,
            asked=asdict(plan.asked),
            scheduler=scheduler_of(model, settings.scheduler),
            **memory_facts(settings, memory),
        )
        say_captions(plan, model)
    state.wait_for_everyone()
    noted = (run.folder.manifest() or {})["memory"]
    if run.is_main:
        model.limits = limits_of(noted)  # another piece may have begun first
    else:
        use_machine(model, settings, noted, prompts)
    return Job(plan, run.folder, model, state, missing)


def scheduler_of(model: Denoiser, typed: str) -> str:
    """The --scheduler that names a run's sampler: some models keep one that has a name."""
    return model.scheduler_choice if typed == "keep" else typed


def warnings(rows: list[dict[str, str]]) -> str:
    """What is not as it should be in some rows of images.csv, as the end of a sentence."""
    faults = {
        "missed the target": ("reached", 0.0),
        "kept their noise after a non-finite magnitude": ("failed", 1.0),
    }
    text = ""
    for what, (column, bad) in faults.items():
        count = sum(number_of(row.get(column)) == bad for row in rows)
        if count:
            text += f"; {count} {what}"
    unscreened = sum(bool(row.get("mitigated")) and not row.get("screen_score") for row in rows)
    if unscreened:
        text += f"; {unscreened} without the mitigation, since their screen_score is not finite"
    return text + infinite(rows)


def infinite(rows: list[dict[str, str]]) -> str:
    """Which numbers of the method are infinite in some rows of images.csv, in the same form."""
    counts: Counter[str] = Counter()
    for row in rows:
        for column, value in row.items():
            if column not in TEXTS and value in INFINITE:
                counts[column] += 1
    return "".join(f"; {count} with an infinite {column}" for column, count in counts.items())


def marked(rows: Mapping[Key, dict[str, str]], wanted: Sequence[Key]) -> str:
    """Which images are not finite, or of one color, in the same form. rows: of images.csv."""
    return "".join(f"; {line}" for line in Marks.of(rows, wanted).texts)
