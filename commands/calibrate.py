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
from memorization_suite.runs.cli import values_after
from memorization_suite.runs.files import read_csv, write_bytes
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.settings import again, flag, frozen_settings, unkeyed
from memorization_suite.runs.store import Store
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
        text="ordinary prompts: .csv, .txt or .jsonl",
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
    prompts = read_prompts(Path(settings.prompts))
    check_out(settings.out)
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
        "model_id": fingerprint(settings.model_id),
        **{name: getattr(settings, name) for name in SHARED},
        "unet_id": unet_fingerprint(settings.unet_id),
        **sampler_facts(model, model.latent_shape(side, side)),
    }
    made_from = {
        "prompts_sha256": content_hash(Path(settings.prompts)),
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
    # How many scores are not finite, and left out, by the kind of their prompts.
    left_out: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """How much lies above, and the flag."""
        ordinary = self.share("ordinary", self.ordinary)
        if 0 < self.fpr * len(self.ordinary) < 1:
            ordinary += f" (too few to tell {self.fpr:.2%}: it is their largest score)"
        shares = [ordinary]
        if self.memorized:
            shares.append(self.share("memorized", self.memorized))
        for kind, count in self.left_out.items():
            if count:
                images = counted(count, f"{kind} image")
                shares.append(f"{images} left out, whose score is not finite")
        return f"above {self.value:.6g}: {', '.join(shares)}\n--screen {self.screen}"

    @property
    def screen(self) -> str:
        """The value of generate_images.py --screen."""
        return f"{self.detector}:{self.value:.6g}"

    @property
    def following(self) -> list[str]:
        """What one would type next: images that are mitigated only above the threshold."""
        model_id = self.config.get("model_id")
        prompts = self.config.get("prompts")
        if prompts == str(tiny.prompts(str(model_id))):
            prompts = None
        typed = {
            "model_id": model_id,
            "prompts": prompts,
            "end": self.config.get("end"),
            "method": "per_sample",
            "screen": self.screen,
        }
        plugins = values_after(shlex.split(self.config.get("command", "")), "--plugin")
        words = command_words("generate_images.py", typed, Calibration)
        return words + [word for plugin in plugins for word in ("--plugin", plugin)]

    def share(self, kind: str, scores: list[float]) -> str:
        """How much of some scores lies above."""
        above = sum(score > self.value for score in scores)
        return f"{above / len(scores):.1%} of {len(scores)} {kind} images"


def threshold(scores: Path | str, *, fpr: float = 0.01) -> Threshold:
    """The score that few ordinary images exceed, for generate_images.py --screen.

    scores: a detector's folder or its scores.csv, made by detect_memorization.py with
    --nonmem_prompts. fpr: largest share of ordinary images above it. Raises ValueError.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"--fpr {fpr:g} is no share: it must be at least 0 and below 1")
    path = Path(scores)
    if path.is_dir():
        look_at(path)
        path = path / "scores.csv"
    rows = read_csv(path)
    if not rows or not {"set", "score"} <= set(rows[0]):
        raise ValueError(f"{path} is no scores.csv of a detector: detect_memorization.py makes one")
    ordinary = [float(row["score"]) for row in rows if row["set"] == "nonmem"]
    memorized = [float(row["score"]) for row in rows if row["set"] == "mem"]
    if not ordinary:
        raise ValueError(
            f"{path} has no scores of ordinary prompts: give detect_memorization.py "
            "--nonmem_prompts"
        )
    kept = {"ordinary": finite(ordinary), "memorized": finite(memorized)}
    folder = Store(path.resolve().parent)
    return Threshold(
        limit(ordinary, fpr),
        folder.path.name,
        **kept,
        fpr=fpr,
        config=folder.config(),
        left_out={
            "ordinary": len(ordinary) - len(kept["ordinary"]),
            "memorized": len(memorized) - len(kept["memorized"]),
        },
    )


def finite(scores: list[float]) -> list[float]:
    """Those that are finite numbers."""
    return [score for score in scores if math.isfinite(score)]


def limit(scores: list[float], fpr: float) -> float:
    """The smallest of the scores that at most a share `fpr` of them exceeds.

    Raises ValueError without finite scores.
    """
    ordered = sorted(finite(scores))
    if not ordered:
        raise ValueError("there is no finite score of an ordinary image")
    return ordered[len(ordered) - 1 - math.floor(fpr * len(ordered))]
