"""What the studies `spectrum` and `tokens` share: flags, checks, folder, going on after a stop."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tqdm import tqdm

from memorization_suite.commands.settings import (
    Trajectories,
    check_range,
    command_line,
    fill,
    split,
)
from memorization_suite.pipelines import loading
from memorization_suite.pipelines.models import fingerprint, load_preset, resolve_model
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.sets import captions_hash, prompt_sources
from memorization_suite.runs.environment import choose_device
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import (
    again,
    frozen_settings,
    identity_of,
    plain_values,
    unkeyed,
)
from memorization_suite.runs.store import Store
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.sample import noise_of, predictor_of

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
    start: int = unkeyed(0, "first prompt, by row", at_least=0, metavar="ROW")
    end: int | None = unkeyed(None, "row after the last prompt", metavar="ROW")
    output_path: str = unkeyed("detections", "folder of the study's folder", metavar="FOLDER")
    overwrite: bool = unkeyed(False, "start over instead of going on")
    quiet: bool = unkeyed(False, "no progress bar")

    def resolved(self) -> StudySettings:
        """As they are used. Raises ValueError for steps that the sampler does not have."""
        return self


class StudyFolder(Store):
    """Tables and pictures of a study; a prompt is saved whole, so a stopped run goes on with the
    next.
    """

    def save_figure(self, name: str, figure: Figure) -> None:
        """A PNG, whole or not at all. Characters that the font lacks are drawn as boxes."""
        data = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(data, format="png", dpi=120)
        write_bytes(self.path / name, data.getvalue())


@dataclass(frozen=True)
class StudyPlan:
    """A study that was checked as far as is possible without a model."""

    settings: StudySettings
    # All of the file.
    prompts: list[Prompt]
    # What was typed, by name.
    typed: dict[str, Any] = field(repr=False)

    @property
    def wanted(self) -> list[Prompt]:
        """The prompts of --start and --end."""
        return self.prompts[self.settings.start : self.settings.end]

    @property
    def path(self) -> Path:
        """<output_path>/<study>."""
        return Path(self.settings.output_path) / self.settings.study

    @cached_property
    def identity(self) -> dict:
        """Everything that decides the numbers of an image."""
        return {
            "study": self.settings.study,
            **identity_of(self.settings),
            "model_id": fingerprint(self.settings.model_id),
            "device": self.settings.device.split(":")[0],
            "prompts": captions_hash(self.prompts),
        }

    @property
    def config(self) -> dict:
        """All arguments and the command, for people."""
        script = f"detect_memorization.py {self.settings.study}"
        command = command_line(script, self.typed, type(self.settings))
        return {"command": command, **plain_values(self.settings)}


@dataclass(frozen=True)
class Study:
    """A study that was made, or was there already."""

    plan: StudyPlan
    folder: StudyFolder
    # What there is, in lines.
    summary: str

    def __str__(self) -> str:
        return self.summary


def plan_study(kind: type[StudySettings], typed: dict[str, Any]) -> StudyPlan:
    """Checks everything that needs no model. typed: flags by name. Raises ValueError."""
    split(typed, kind)
    asked = kind(**typed)
    resolve_model(asked.model_id)
    _, preset = load_preset("auto", asked.model_id)
    settings = fill(kind, typed, preset.get("generate", {}))
    settings = settings.resolved()
    file, _ = prompt_sources(asked.model_id, asked.prompts, "")
    prompts = read_prompts(Path(file))
    check_range(settings.start, settings.end, len(prompts), file)
    settings = replace(settings, prompts=file, device=choose_device(settings.device))
    return StudyPlan(settings, prompts, typed)


class StudyJob:
    """Makes what a study's folder lacks, a prompt at a time."""

    def __init__(self, plan: StudyPlan, folder: StudyFolder, model: Denoiser):
        self.plan = plan
        self.settings = plan.settings
        self.folder = folder
        self.model = model

    def is_done(self, prompt: Prompt) -> bool:
        """Whether everything that is asked of the prompt is in the tables."""
        raise NotImplementedError

    def make(self, prompt: Prompt) -> None:
        """Looks at the prompt and saves what there is to see."""
        raise NotImplementedError

    def make_all(self) -> int:
        """How many prompts were made now. The tables are written also when it is interrupted."""
        made = 0
        try:
            for prompt in tqdm(self.plan.wanted, unit="prompt", disable=self.settings.quiet):
                if not self.is_done(prompt):
                    self.make(prompt)
                    made += 1
        finally:
            self.folder.publish()
        self.folder.finish()
        return made

    def start(self, prompt: Prompt) -> tuple[Batch, NoisePredictor, torch.Tensor]:
        """The prompt's images, their predictor, and their noise (n, 4, h, w): the same as in other
        runs with this seed.
        """
        settings = self.settings
        batch = Batch.of([prompt], settings.n_samples_per_prompt, settings.seed)
        predictor = predictor_of(self.model, batch, settings.num_inference_steps)
        return batch, predictor, noise_of(self.model, batch, settings.image_length)


def begin(plan: StudyPlan, folder: StudyFolder, load: Callable | None) -> Denoiser:
    """The pipeline, float32, once the folder is found usable; the folder is changed last.

    load: in the place of `load_pipeline`. Raises ValueError for what the user can mend.
    """
    settings = plan.settings
    folder.prepare(plan.identity, overwrite=settings.overwrite)
    model = (load or loading.load_pipeline)(
        settings.model_id, dtype="fp32", device=settings.device, scheduler=settings.scheduler
    )
    torch.backends.cudnn.allow_tf32 = False  # convolutions keep float32's digits
    folder.start(plan.identity, overwrite=settings.overwrite, config=plan.config)
    # What an earlier run left in parts must not be overwritten by other rows of the same prompts.
    folder.publish()
    return model
