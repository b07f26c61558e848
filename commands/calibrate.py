"""Reference values from ordinary prompts: norms of their trajectories, and thresholds of scores."""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization_suite import tiny
from memorization_suite.commands.captions import say_cut
from memorization_suite.commands.detect_plan import look_at
from memorization_suite.commands.machine import choose_memory, use_machine
from memorization_suite.commands.screened import flags_of_scores, preset_of, untypable
from memorization_suite.commands.settings import (
    QUIET,
    Sampling,
    check_out,
    check_prompts,
    command_words,
    load_model,
    on_device,
    say_preset,
    sized,
)
from memorization_suite.commands.study import asked
from memorization_suite.detection.evaluation.score_files import SETS
from memorization_suite.detection.stability import (
    NORMS,
    NormRecorder,
    instability,
    measure,
    sampler_facts,
)
from memorization_suite.mitigation.registry import build_mitigation
from memorization_suite.pipelines.fingerprints import fingerprint, unet_fingerprint
from memorization_suite.pipelines.models import check_unet
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.flags import FORMATS, HUB_SET
from memorization_suite.prompts.sets import other_column, prompt_file
from memorization_suite.runs.cli import values_after
from memorization_suite.runs.digits import exact_text, just_above
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.settings import again, flag, frozen_settings, unkeyed
from memorization_suite.runs.store import Store
from memorization_suite.runs.tables import Fault, cell, in_line, number, numbered_rows, shown
from memorization_suite.runs.text import counted
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.sample import noise_of, sample

if TYPE_CHECKING:
    from memorization_suite.sampling import Denoiser

# What a run must share with a calibration, in the file's order.
SHARED = (
    "unet_id",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "image_length",
    "dtype",
)


# --- stability ---


@frozen_settings
class Calibration(Sampling):
    """The flags of detect_memorization.py calibrate stability.

    Those of the sampler have generate_images.py's defaults, so that the values are of its runs.
    """

    unet_id: str | None = flag(None, "folder or hub id of another UNet", preset=False)
    prompts: str = again(
        Sampling,
        "prompts",
        default=dataclasses.MISSING,
        text=f"ordinary prompts: {FORMATS}, or {HUB_SET}",
    )
    n_samples_per_prompt: int = again(Sampling, "n_samples_per_prompt", default=1, preset=False)
    batch_size: int = again(Sampling, "batch_size", preset=False)
    seed: int = again(Sampling, "seed", default=0, text="seed of the noises")
    preset: str = unkeyed(
        "auto",
        "values of the sampler for flags that were not typed (auto: the model's own)",
        metavar="{auto,none,FILE}",
    )
    quiet: bool = unkeyed(False, QUIET)
    out: Path = unkeyed(dataclasses.MISSING, "file to write, .json", metavar="FILE")


@hearing
def stability(**typed: Any) -> str:
    """Samples every prompt with plain guidance, and writes the statistics of its norms. Returns
    what the file is of, in a line.

    typed: flags of detect_memorization.py calibrate stability by name. Raises ValueError for what
    the user can mend, OSError. *Source:* Huang et al., KDD 2026.
    """
    check_unet(typed.get("unet_id"))
    preset = typed.get("preset", Calibration.preset)
    settings, source = asked(Calibration, typed, preset)
    settings = sized(settings)
    check_prompts(settings.prompts)
    check_out(settings.out)
    column = settings.caption_column
    file = prompt_file(settings.prompts, settings.out.parent, column)
    prompts = read_prompts(file, column)
    column = other_column(file, column, prompts)
    if len(prompts) * settings.n_samples_per_prompt < 2:
        raise ValueError(
            f"statistics need at least two images: {settings.prompts} has {len(prompts)} prompts, "
            f"--n_samples_per_prompt is {settings.n_samples_per_prompt}"
        )
    settings = on_device(settings)
    say_preset("calibrate stability", source, settings)
    model = load_model(settings, unet_id=settings.unet_id, dtype=settings.dtype)
    say_cut(model, prompts)
    use_machine(model, settings, choose_memory(model, settings, gradients=False), len(prompts))
    norms = record(model, prompts, settings)
    side = settings.image_length
    made_with = {
        "model_id": fingerprint(settings.model_id, settings.tokenizer),
        **{name: getattr(settings, name) for name in SHARED},
        "unet_id": unet_fingerprint(settings.unet_id),
        **sampler_facts(model, model.latent_shape(side, side)),
    }
    made_from = {
        "prompts_sha256": content_hash(file),
        **({"caption_column": column} if column else {}),
        "prompts": len(prompts),
        "n_samples_per_prompt": settings.n_samples_per_prompt,
        "images": len(norms["update"]),
        "seed": settings.seed,
    }
    made = measure(norms, made_with, made_from)
    write_bytes(settings.out, made.as_text().encode())
    scores = instability(made, norms["update"]).tolist()
    return (
        f"{settings.out}: {made.num_steps} steps, {len(scores)} images; their own largest "
        f"deviation of an update's norm: median {statistics.median(scores):.2f}, at most "
        f"{max(scores):.2f} standard deviations"
    )


def use_of_statistics(typed: Mapping[str, Any]) -> list[str]:
    """What one would type after `stability`: the method that reads the file. typed: as there."""
    names = ("model_id", *SHARED, "preset")
    shared = {name: typed[name] for name in names if name in typed}
    method = {"method": "stability_regions", "statistics": typed["out"]}
    return command_words("generate_images.py", {**shared, **method}, Calibration)


def record(
    model: Denoiser, prompts: list[Prompt], settings: Calibration
) -> dict[str, torch.Tensor]:
    """Norms of each image at each step, (images, N), see `detection.stability`."""
    parts = []
    images = len(prompts) * settings.n_samples_per_prompt
    what = f"{images} images of {len(prompts)} prompts: {settings.model_id} on {model.device}"
    with Progress(what, images, unit="image", quiet=settings.quiet) as progress:
        for start in range(0, len(prompts), settings.batch_size):
            group = prompts[start : start + settings.batch_size]
            batch = Batch.of(group, settings.n_samples_per_prompt, settings.seed)
            recorder = NormRecorder()
            made = sample(
                model,
                batch,
                noise_of(model, batch, settings.image_length),
                build_mitigation("no_mitigation"),
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
                on_step=recorder.on_step,
            )
            parts.append(recorder.finish(made.final))
            progress.update(len(batch))
    return {name: torch.cat([part[name] for part in parts]) for name in NORMS}


# --- threshold ---


@dataclass(frozen=True)
class Threshold:
    """A detector's threshold for --screen, and the scores that it is from."""

    value: float
    # The detector's name, if the scores lie in its folder.
    detector: str
    # Scores of images by the kind of their prompts.
    ordinary: list[float]
    memorized: list[float]
    # Largest share of ordinary images above it.
    fpr: float
    # The detector's config.json, if there is one beside the scores.
    config: dict[str, Any] = field(default_factory=dict)
    # How many scores are no numbers, and left out, by the kind of their prompts.
    left_out: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """How much lies above, and the flag."""
        ordinary = self.share("ordinary", self.ordinary)
        if 0 < self.fpr * len(self.ordinary) < 1:
            ordinary += f" (too few to tell {self.fpr:.2%}: it is just above their largest score)"
        shares = [ordinary]
        if self.memorized:
            shares.append(self.share("memorized", self.memorized))
        for kind, count in self.left_out.items():
            if count:
                images = counted(count, f"{kind} image")
                shares.append(f"{images} left out, whose score is no number")
        lines = [f"above {self.value}: {', '.join(shares)}"]
        if self.unlike:
            lines.append(self.unlike)
        return "\n".join([*lines, f"--screen {self.screen}"])

    @property
    def screen(self) -> str:
        """The value of generate_images.py --screen, with all digits."""
        return f"{self.detector}:{self.value}"

    @property
    def unlike(self) -> str:
        """Why --screen would compute other scores than these; empty when it would not."""
        differing = untypable(self.config)
        if not differing:
            return ""
        texts = [f"{name} {there}, not {here}" for name, (there, here) in differing.items()]
        wanted = " and ".join(f"{name} = {there!r}" for name, (there, _) in differing.items())
        return (
            f"these scores are of {self.detector} with {', '.join(texts)} as --screen has it: put "
            f"{wanted} below [{self.detector}] into a file for --preset"
        )

    @property
    def following(self) -> list[str]:
        """What one would type next: images that are mitigated only above the threshold, sampled as
        those of the scores. Nothing where flags do not suffice for that.
        """
        if self.unlike or ("model_id" in self.config and preset_of(self.config) is None):
            return []
        command = str(self.config.get("command", ""))
        model_id = self.config.get("model_id")
        prompts = self.config.get("prompts")
        if prompts == str(tiny.prompts(str(model_id))):
            prompts = None
        typed = {
            "model_id": model_id,
            "prompts": prompts,
            "end": self.config.get("end"),
            **flags_of_scores(self.config, command),
            "method": "per_sample",
            "screen": self.screen,
        }
        plugins = values_after(shlex.split(command), "--plugin")
        words = command_words("generate_images.py", typed, Calibration)
        return words + [word for plugin in plugins for word in ("--plugin", plugin)]

    def share(self, kind: str, scores: list[float]) -> str:
        """How much of some scores lies above."""
        above = sum(score > self.value for score in scores)
        return f"{above / len(scores):.1%} of {len(scores)} {kind} images"


def threshold(scores: Path | str, *, fpr: float = 0.01) -> Threshold:
    """A number that few ordinary images' scores exceed, for generate_images.py --screen. It keeps
    the share when it is typed.

    scores: a detector's folder or its scores.csv, made by detect_memorization.py with
    --nonmem_prompts. fpr: largest share of ordinary images above it. Raises ValueError.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"--fpr {exact_text(fpr)} is no share: it must be at least 0 and below 1")
    path = Path(scores)
    if path.is_dir():
        look_at(path)
        path = path / "scores.csv"
    scores_of = scores_in(path)
    ordinary, memorized = scores_of["nonmem"], scores_of["mem"]
    if not ordinary:
        raise ValueError(
            f"{path} has no scores of ordinary prompts: give detect_memorization.py "
            "--nonmem_prompts"
        )
    kept = {"ordinary": numbers(ordinary), "memorized": numbers(memorized)}
    folder = Store(path.resolve().parent)
    highest = limit(ordinary, fpr)
    larger = [score for scores in kept.values() for score in scores if score > highest]
    return Threshold(
        just_above(highest, min(filter(math.isfinite, larger), default=None)),
        folder.path.name,
        **kept,
        fpr=fpr,
        config=folder.config(),
        left_out={
            "ordinary": len(ordinary) - len(kept["ordinary"]),
            "memorized": len(memorized) - len(kept["memorized"]),
        },
    )


def scores_in(path: Path) -> dict[str, list[float]]:
    """Set (mem, nonmem) -> scores of its images, of a scores.csv. Raises ValueError."""
    found: dict[str, list[float]] = {name: [] for name in SETS}
    try:
        for line, row in numbered_rows(path):
            with in_line(line):
                name = cell(row, "set")
                if name not in SETS:
                    raise Fault(f"the set {shown(name)} is neither {' nor '.join(SETS)}")
                found[name].append(number(cell(row, "score"), "score"))
        if not any(found.values()):
            raise Fault("it has no rows" if path.exists() else "it is not there")
    except Fault as fault:
        raise ValueError(
            f"{path} is no scores.csv of a detector ({fault}): detect_memorization.py makes one"
        ) from fault
    return found


def numbers(scores: list[float]) -> list[float]:
    """Those that are numbers, also infinite ones: --screen flags what is above."""
    return [score for score in scores if not math.isnan(score)]


def limit(scores: list[float], fpr: float) -> float:
    """The smallest finite one of the scores that at most a share `fpr` of them exceeds.

    What is no number does not count. Raises ValueError without finite scores, and when too many are
    infinite.
    """
    ordered = sorted(numbers(scores))
    finite = [score for score in ordered if math.isfinite(score)]
    if not finite:
        raise ValueError("there is no finite score of an ordinary image")
    above = math.floor(fpr * len(ordered) + 1e-9)  # 0.29 of 100 is 29, not 28.999...
    found = max(ordered[len(ordered) - 1 - above], finite[0])
    if found == math.inf:
        raise ValueError(
            f"{ordered.count(math.inf)} of {len(ordered)} scores of ordinary images are infinite: "
            f"no threshold has at most {fpr:.2%} of them above it"
        )
    return found
