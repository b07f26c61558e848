"""Making the images that a run folder lacks."""

from __future__ import annotations

import time
from typing import Any

from memorization_suite.commands.generate_plan import Plan
from memorization_suite.commands.screen import Treatment, sample_screened
from memorization_suite.mitigation.registry import build_mitigation
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.denoiser import Denoiser
from memorization_suite.sampling.noise import official_noise
from memorization_suite.sampling.sample import Sample, noise_of, sample, to_pictures


class Job:
    """Generates what is missing in a run folder."""

    def __init__(self, plan: Plan, folder: RunFolder, model: Denoiser, state):
        self.plan = plan
        self.folder = folder
        self.model = model
        self.state = state
        # What was sampled by this process, and what it took.
        self.sampled = 0
        self.unet_evals = 0
        self.published = time.monotonic()
        # What was made, and the seconds that it took.
        self.made: list[Key] = []
        self.seconds = 0.0
        # What this command has to make.
        self.missing = plan.missing()

    def is_mine(self, batch_number: int) -> bool:
        """Whether this process makes the batch."""
        return batch_number % self.state.num_processes == self.state.process_index

    def go(self) -> None:
        """Makes what is missing, and closes the folder."""
        start = time.perf_counter()
        with self.progress() as progress:
            self.make_all(progress)
        self.state.wait_for_everyone()
        if self.state.is_main_process:
            self.finish(time.perf_counter() - start)

    def progress(self) -> Progress:
        """Of the images that this process has to do with."""
        wanted: list[Key] = []
        for number, prompts in self.plan.batches():
            if self.is_mine(number):
                wanted += self.plan.wanted(prompts)
        there = len(wanted) - len(self.missing.intersection(wanted))
        captions = len({key.prompt for key in wanted})
        settings = self.plan.settings
        where = f"{self.plan.mitigation.name}, {settings.model_id} on {self.model.device}"
        if self.state.num_processes > 1:
            where += f", in each of {self.state.num_processes} processes"
        return Progress(
            f"{len(wanted)} images of {captions} prompts: {where}",
            len(wanted),
            unit="image",
            there=there,
            place=self.folder.path,
            quiet=settings.quiet or not self.state.is_main_process,
        )

    def make_all(self, progress: Progress) -> None:
        """Makes every batch of this process that is not whole yet."""
        batches = self.plan.batches()
        draws = self.official_draws([len(prompts) for _, prompts in batches])
        for (number, prompts), noise in zip(batches, draws):
            wanted = self.plan.wanted(prompts)
            if not wanted or not self.is_mine(number):
                continue
            missing = self.missing.intersection(wanted)
            if missing:
                self.make(prompts, noise)
                progress.update(len(missing), NFE=round(self.unet_evals / self.sampled, 1))
                self.publish_now_and_then()

    def official_draws(self, prompts_per_batch: list[int]):
        """The official script's draws, or None, for each batch."""
        settings = self.plan.settings
        if settings.rng == "per_image":
            return [None] * len(prompts_per_batch)
        rows = [count * settings.n_samples_per_prompt for count in prompts_per_batch]
        shape = self.model.latent_shape(settings.image_length, settings.image_length)
        device = self.model.device.type
        return official_noise(settings.seed, rows, shape, self.model.dtype, device)

    def make(self, prompts: list[Prompt], noise: torch.Tensor | None) -> None:
        """One batch: sample, decode, save. What was not asked for is made and dropped."""
        settings = self.plan.settings
        keys = self.plan.keys(prompts)
        start = time.perf_counter()
        batch = Batch.of(prompts, settings.n_samples_per_prompt, settings.seed)
        if noise is None:
            noise = noise_of(self.model, batch, settings.image_length)
        made, traced = self.sample(batch, noise.to(self.model.device, self.model.dtype), keys)
        pictures = to_pictures(self.model.decode(made.final))
        self.sampled += len(keys)
        self.unet_evals += int(made.unet_evals.sum())
        seeds = batch.seeds if settings.rng == "per_image" else [settings.seed] * len(keys)
        seconds = (time.perf_counter() - start) / len(keys)
        rows = image_rows(keys, batch.prompts, seeds, made, seconds)
        wanted = set(self.plan.wanted(prompts))
        self.save_images(wanted, keys, pictures, made)
        self.save_rows(wanted, rows, traced)

    def sample(self, batch: Batch, noise: torch.Tensor, keys: list[Key]):
        """(Sample, rows of trace.csv or None)."""
        settings = self.plan.settings
        options: dict[str, Any] = {
            "num_inference_steps": settings.num_inference_steps,
            "guidance_scale": settings.guidance_scale,
        }
        trace = Trace(keys)
        watch = trace if settings.trace else None
        if self.plan.screen is None:
            method = self.plan.mitigation
            made = sample(self.model, batch, noise, method, on_step=watch, **options)
            return made, trace.rows() if settings.trace else None
        plain_trace = Trace(keys)
        plain = build_mitigation("no_mitigation")
        treatments = {
            True: Treatment(self.plan.mitigation, watch),
            False: Treatment(plain, plain_trace if settings.trace else None),
        }
        screen = self.plan.screen
        made, flagged = sample_screened(screen, self.model, batch, noise, treatments, options)
        if not settings.trace:
            return made, None
        kinds = {str(key): flag for key, flag in zip(keys, flagged.tolist())}
        rows = [row for row in trace.rows() if kinds[row["key"]]]
        return made, rows + [row for row in plain_trace.rows() if not kinds[row["key"]]]

    def save_images(self, wanted: set[Key], keys: list[Key], pictures, sample: Sample) -> None:
        """The pictures that were asked for, and their latents."""
        for i, key in enumerate(keys):
            if key not in wanted:
                continue
            self.folder.save_image(key, pictures[i])
            if self.plan.settings.save_latents:
                latents = {
                    name: getattr(sample, name)[i] for name in ("initial", "adjusted", "final")
                }
                latents = {name: values.float().cpu() for name, values in latents.items()}
                self.folder.save_latents(key, latents)

    def save_rows(self, wanted: set[Key], rows: list[dict], traced: list[dict] | None) -> None:
        """Their rows, which mark the batch as done."""
        names = {str(key) for key in wanted}
        tables = {"images": [row for row in rows if row["key"] in names]}
        if traced is not None:
            tables["trace"] = [row for row in traced if row["key"] in names]
        self.folder.add(tables["images"][0]["key"], **tables)

    def publish_now_and_then(self, seconds: float = 30.0) -> None:
        """Keeps the tables fresh during a long run; rows are safe in the batches' parts."""
        if self.state.is_main_process and time.monotonic() - self.published > seconds:
            self.folder.publish()
            self.published = time.monotonic()

    def finish(self, seconds: float) -> None:
        """Closes the folder, and notes what was made."""
        there = self.folder.done("images")
        self.folder.finish(images=len(there), of=len(self.plan.keys(self.plan.prompts)))
        wanted = self.plan.wanted(self.plan.prompts)
        self.made = [key for key in wanted if key in self.missing]
        self.seconds = seconds


def image_rows(keys, captions, seeds, sample: Sample, seconds: float) -> list[dict]:
    """A row of images.csv for each image."""
    rows = []
    for i, key in enumerate(keys):
        numbers = {
            name: float(f"{float(values[i]):.6g}")
            for name, values in sample.numbers.items()
            if not values[i].isnan()
        }
        rows.append(
            {
                **key.columns,
                "prompt": captions[i],
                "seed": seeds[i],
                "unet_evals": int(sample.unet_evals[i]),
                "seconds": round(seconds, 4),
                "finite": int(sample.final[i].isfinite().all()),
                **numbers,
            }
        )
    return rows


class Trace:
    """Collects, at every step and for every image, magnitude (epsilon units) and guidance scale."""

    def __init__(self, keys: list[Key]):
        self.keys = keys
        self.steps: list[tuple] = []

    def __call__(self, step, prediction) -> None:
        applied = torch.as_tensor(step.applied, dtype=torch.float32)
        scale = applied.expand(len(self.keys)).tolist()
        self.steps.append((step.index, float(step.t), prediction.magnitude().tolist(), scale))

    def rows(self) -> list[dict]:
        """Rows of trace.csv, image by image."""
        rows = []
        for i, key in enumerate(self.keys):
            for index, t, magnitude, scale in self.steps:
                values = {
                    "step": index,
                    "timestep": t,
                    "magnitude": float(f"{magnitude[i]:.6g}"),
                    "guidance_scale": scale[i],
                }
                rows.append({**key.columns, **values})
        return rows
