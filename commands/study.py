"""What the studies `spectrum` and `tokens` share: flags, checks, folder, going on after a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from memorization_suite.commands.captions import cut_of_sets
from memorization_suite.commands.detect_plan import Detection
from memorization_suite.commands.machine import choose_memory, limits_of
from memorization_suite.commands.settings import (
    QUIET,
    Trajectories,
    at_work,
    check_model,
    check_range,
    command_line,
    fill,
    load_model,
    prompt_sets,
    say_preset,
    sized,
    split,
)
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.pipelines.models import load_preset
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.sets import captions_hash, prompt_file
from memorization_suite.runs.environment import choose_device
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.identity import Content
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.plots import drawn
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.settings import (
    Settings,
    again,
    frozen_settings,
    identity_of,
    plain_values,
    unkeyed,
)
from memorization_suite.runs.store import Store, beginning, publishing
from memorization_suite.runs.text import counted
from memorization_suite.runs.whole import ends_fault, faults_of, say_damaged
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.sample import noise_of, predictor_of, same_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from memorization_suite.sampling import Denoiser, NoisePredictor


@frozen_settings
class StudySettings(Trajectories):
    """The flags of all studies."""

    # Name of the subcommand, and of its folder.
    study: ClassVar[str]
    # What --help says of it.
    about: ClassVar[str]

    guidance_scale: float = again(
        Trajectories, "guidance_scale", default=7.5, preset=False, text="guidance of the trajectory"
    )
    seed: int = again(Trajectories, "seed", default=0)
    # In the identity only where it is official: see `Study.run`.
    rng: str = again(Detection, "rng", changes_result=False)
    start: int = unkeyed(0, "first prompt, by row", at_least=0, metavar="ROW")
    end: int | None = unkeyed(None, "row after the last prompt", metavar="ROW")
    output_path: str = unkeyed("detections", "folder of the study's folder", metavar="FOLDER")
    overwrite: bool = unkeyed(False, "start over instead of going on")
    quiet: bool = unkeyed(False, QUIET)

    def resolved(self) -> StudySettings:
        """As they are used. Raises ValueError for steps that the sampler does not have."""
        return self


class Study(Store):
    """A study's folder, <output_path>/<study>: tables and pictures of a prompt file's images. As a
    text it is what there is, in lines.

    A prompt is saved whole, so a stopped study goes on with the next.
    """

    kind: ClassVar[type[StudySettings]]
    settings: Any
    model: Denoiser
    # How many prompts were made now.
    made = 0
    # What had all its rows before.
    complete: set

    def __init__(self, **typed: Any):
        """Checks everything that needs no model. typed: flags by name. Raises ValueError."""
        settings, self.preset = asked(self.kind, typed)
        settings = settings.resolved()
        file, _ = prompt_sets(settings.model_id, settings.prompts)
        column = settings.caption_column
        file = str(prompt_file(file, Path(settings.output_path), column))
        # All of the file, and those of --start and --end.
        self.prompts = read_prompts(Path(file), column)
        check_range(settings.start, settings.end, len(self.prompts), file)
        self.wanted = self.prompts[settings.start : settings.end]
        settings = sized(replace(settings, prompts=file))
        self.settings = replace(settings, device=choose_device(settings.device))
        self.command = command_line(f"detect_memorization.py {settings.study}", typed, self.kind)
        # The last table tells what is done.
        *_, self.table = self.tables
        super().__init__(Path(settings.output_path) / settings.study)

    def __str__(self) -> str:
        table = self.path / f"{self.table}.csv"
        return f"{table}: {len(self.wanted)} prompts, {self.made} made now"

    @hearing
    def run(self, load: Callable | None = None) -> Self:
        """Makes what the folder lacks, and returns itself.

        load: in the place of `load_pipeline`. Raises ValueError for what the user can mend, before
        the folder is changed.
        """
        settings = self.settings
        identity = {
            "study": settings.study,
            **identity_of(settings),
            "model_id": fingerprint(settings.model_id, settings.tokenizer),
            "device": settings.device.split(":")[0],
            **({"tf32": True} if settings.tf32 else {}),
            **({"rng": settings.rng} if settings.rng != "per_image" else {}),
            "prompts": Content(captions_hash(self.prompts), settings.prompts, flag="prompts"),
        }
        with beginning([self]):
            self.begin(identity, load)
        # What an earlier run left in parts must not be overwritten by other rows of these prompts.
        self.publish()
        with at_work():
            self.make_all()
        return self

    def begin(self, identity: dict, load: Callable | None) -> None:
        """The model, then the folder, which is changed last. Raises ValueError."""
        settings = self.settings
        self.prepare(identity, overwrite=settings.overwrite)
        if not settings.overwrite:
            self.check_tables()
        say_preset(f"study {settings.study}", self.preset, settings)
        self.model = load_model(settings, load, dtype="fp32")
        going_on = [] if settings.overwrite else [self]
        memory = choose_memory(self.model, settings, gradients=True, stores=going_on)
        self.model.limits = limits_of(memory)
        config = {"command": self.command, **plain_values(settings)}
        cut = cut_of_sets(self.model, {"prompts": self.wanted})
        self.start(identity, overwrite=settings.overwrite, config=config, memory=memory, **cut)

    def make_all(self) -> None:
        """Makes what is missing. The tables are written also when it is interrupted."""
        missing = self.missing()
        with publishing([self]), self.progress(len(self.wanted) - len(missing)) as progress:
            for prompt in missing:
                self.make(prompt)
                self.made += 1
                progress.update(1)
        self.finish()

    def missing(self) -> list[Prompt]:
        """The prompts of which rows or pictures are missing; says which pictures are damaged."""
        missing = []
        damaged: dict[Path, str] = {}
        self.complete = self.whole_rows()
        for prompt in self.wanted:
            files = [(self.path / name, ends_fault) for name in self.pictures(prompt)]
            faults = faults_of(files)
            damaged |= faults
            if faults or not self.has_rows(prompt):
                missing.append(prompt)
        say_damaged(damaged, self.path)
        return missing

    def whole_rows(self) -> set:
        """What has all its rows: keys of the last table."""
        return self.done(self.table)

    def has_rows(self, prompt: Prompt) -> bool:
        """Whether the tables had all of a prompt when they were looked at."""
        return self.complete.issuperset(self.keys(prompt))

    def progress(self, there: int) -> Progress:
        """Of the prompts. there: how many are made already."""
        settings = self.settings
        images = settings.n_samples_per_prompt
        return Progress(
            f"{len(self.wanted)} prompts, {counted(images, 'image')} each: "
            f"{settings.study}, {settings.model_id} on {self.model.device}",
            len(self.wanted),
            unit="prompt",
            there=there,
            place=self.path,
            quiet=settings.quiet,
        )

    def keys(self, prompt: Prompt) -> Iterable:
        """What must be in the last table when everything that is asked of the prompt is done."""
        raise NotImplementedError

    def pictures(self, prompt: Prompt) -> list[str]:
        """Names of the prompt's pictures."""
        raise NotImplementedError

    def make(self, prompt: Prompt) -> None:
        """Looks at the prompt and saves what there is to see."""
        raise NotImplementedError

    def images_of(self, prompt: Prompt) -> tuple[Batch, NoisePredictor, torch.Tensor]:
        """The prompt's images, their predictor, and their noise (n, 4, h, w): the same as in other
        runs with this seed.
        """
        settings = self.settings
        images = settings.n_samples_per_prompt
        batch = Batch.of([prompt], images, settings.seed)
        predictor = predictor_of(self.model, batch, settings.num_inference_steps)
        if settings.rng == "per_image":
            return batch, predictor, noise_of(self.model, batch, settings.image_length)
        noise = same_noise(self.model, settings.seed, images, settings.image_length)
        return batch, predictor, noise

    def save_figure(self, name: str, draw: Callable[[], Figure]) -> None:
        """A PNG, whole or not at all. Characters that the font lacks are drawn as boxes."""
        write_bytes(self.path / name, drawn(draw), self.check_begun)


def asked(kind: type[Settings], typed: dict[str, Any], preset: str = "auto") -> tuple[Any, str]:
    """(the settings with what was typed, else the preset's values; where that is from), of a model
    that is there.

    Raises ValueError.
    """
    split(typed, kind)
    settings: Any = kind(**typed)
    check_model(settings.model_id, settings.tokenizer)
    unet_id = getattr(settings, "unet_id", None)
    source, tables = load_preset(preset, settings.model_id, unet_id)
    return fill(kind, typed, tables.get("generate", {})), source
