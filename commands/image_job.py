"""Making the images that a run folder lacks."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memorization_suite.commands.captions import note_cut
from memorization_suite.commands.generate_plan import Plan
from memorization_suite.commands.screen import Treatment, sample_screened
from memorization_suite.mitigation.registry import build_mitigation
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.background import Background
from memorization_suite.runs.growth import parts_of
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.marks import is_flat
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.run_folder import Key, RunFolder
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.denoiser import Denoiser
from memorization_suite.sampling.noise import official_noise
from memorization_suite.sampling.sample import Sample, noise_of, sample, to_pictures

if TYPE_CHECKING:
    from PIL import Image

# Seconds between two writings of the tables, and how many times as long as one takes.
LEAST_PAUSE = 30.0
SHARE = 50


@dataclass
class MadeBatch:
    """What was made of a batch, entry i of image keys[i]."""

    keys: list[Key]
    pictures: list[Image.Image]
    # Name -> (4, h, w) of each image, if they are asked for.
    latents: list[dict[str, torch.Tensor]] | None
    # Their rows by the table's name.
    tables: dict[str, list[dict]]


class Job:
    """Generates what is missing in a run folder."""

    def __init__(self, plan: Plan, folder: RunFolder, model: Denoiser, state, missing: set[Key]):
        """missing: what the plan has to make."""
        self.plan = plan
        self.folder = folder
        self.model = model
        self.state = state
        # What was sampled by this process, and what it took.
        self.sampled = 0
        self.unet_evals = 0
        # When the tables were written last, and the seconds until they are again.
        self.published = time.monotonic()
        self.pause = LEAST_PAUSE
        # What was made, and the seconds that it took.
        self.made: list[Key] = []
        self.seconds = 0.0
        self.missing = missing
        # Numbers of a prompt's images that are made together: all, unless they became more.
        self.samples = parts_of(folder.manifest() or {}, "n_samples_per_prompt")
        # The piece of this process.
        self.shard = plan.shard.part(1 + state.process_index, state.num_processes)

    def go(self) -> None:
        """Makes what is missing, and closes the folder."""
        start = time.perf_counter()
        with self.progress() as progress, Background() as background:
            self.make_all(progress, background)
        self.state.wait_for_everyone()
        if self.state.is_main_process:
            self.finish(time.perf_counter() - start)

    def progress(self) -> Progress:
        """Of the images that this process has to do with."""
        wanted: list[Key] = []
        for number, prompts in self.plan.batches():
            if self.shard.has(number):
                wanted += self.plan.wanted(prompts)
        there = len(wanted) - len(self.missing.intersection(wanted))
        captions = len({key.prompt for key in wanted})
        settings = self.plan.settings
        where = f"{self.plan.mitigation.name}, {settings.model_id} on {self.model.device}"
        if self.plan.shard:
            where += f", piece {self.plan.shard}"
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

    def make_all(self, progress: Progress, background: Background) -> None:
        """Makes every batch of this process that is not whole yet; the last ones are saved in the
        background while the next is sampled.
        """
        batches = self.plan.batches()
        draws = self.official_draws([len(prompts) for _, prompts in batches])
        for (number, prompts), noise in zip(batches, draws):
            wanted = set(self.plan.wanted(prompts))
            if not self.shard.has(number) or not self.missing.intersection(wanted):
                continue
            for samples in self.samples:
                if self.missing.intersection(wanted, self.plan.keys(prompts, samples)):
                    made = self.make(prompts, samples, noise)
                    background.do(self.save, made, wanted, progress)

    def official_draws(self, prompts_per_batch: list[int]):
        """The official script's draws, or None, for each batch."""
        settings = self.plan.settings
        if settings.rng == "per_image":
            return [None] * len(prompts_per_batch)
        rows = [count * settings.n_samples_per_prompt for count in prompts_per_batch]
        shape = self.model.latent_shape(settings.image_length, settings.image_length)
        device = self.model.device.type
        return official_noise(settings.seed, rows, shape, self.model.dtype, device)

    def make(self, prompts: list[Prompt], samples: range, noise: torch.Tensor | None) -> MadeBatch:
        """One batch: sample and decode. What was not asked for is made and dropped.

        samples: the numbers of the prompts' images.
        """
        settings = self.plan.settings
        keys = self.plan.keys(prompts, samples)
        start = time.perf_counter()
        batch = Batch.of(prompts, samples, settings.seed, rng=settings.rng)
        if noise is None:
            noise = noise_of(self.model, batch, settings.image_length)
        made, traced = self.sample(batch, noise.to(self.model.device, self.model.dtype), keys)
        decoded = self.model.decode(made.final)
        pictures = to_pictures(decoded)
        self.sampled += len(keys)
        self.unet_evals += int(made.unet_evals.sum())
        seeds = batch.seeds if settings.rng == "per_image" else [settings.seed] * len(keys)
        seconds = (time.perf_counter() - start) / len(keys)
        rows = image_rows(keys, batch.prompts, seeds, made, seconds)
        mark(rows, decoded, pictures)
        note_cut(rows, self.model)
        tables = {"images": rows}
        if traced is not None:
            tables["trace"] = traced
        latents = latents_of(made) if settings.save_latents else None
        return MadeBatch(keys, pictures, latents, tables)

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

    def save(self, made: MadeBatch, wanted: set[Key], progress: Progress) -> None:
        """The images of a batch that were asked for, then their rows, which mark it as done."""
        sizes = self.save_images(made, wanted)
        named = {str(key) for key in wanted}
        tables = {
            table: [row for row in rows if row["key"] in named]
            for table, rows in made.tables.items()
        }
        for row in tables["images"]:
            row["file_bytes"] = sizes[row["key"]]
        rows = tables["images"]
        self.folder.add(f"{rows[0]['key']}-{rows[-1]['key']}", **tables)
        progress.update(
            len(self.missing.intersection(wanted, made.keys)),
            NFE=round(self.unet_evals / self.sampled, 1),
        )
        self.publish_now_and_then()

    def save_images(self, made: MadeBatch, wanted: set[Key]) -> dict[str, int]:
        """The pictures that were asked for, and their latents. Returns key -> bytes of a PNG."""
        sizes = {}
        for i, key in enumerate(made.keys):
            if key not in wanted:
                continue
            sizes[str(key)] = self.folder.save_image(key, made.pictures[i])
            if made.latents is not None:
                self.folder.save_latents(key, made.latents[i])
        return sizes

    def publish_now_and_then(self) -> None:
        """Keeps the tables fresh during a long run; rows are safe in the batches' parts."""
        start = time.monotonic()
        if self.state.is_main_process and start - self.published > self.pause:
            self.folder.publish()
            self.published = time.monotonic()
            self.pause = max(LEAST_PAUSE, SHARE * (self.published - start))

    def finish(self, seconds: float) -> None:
        """Closes the folder, and notes what was made."""
        close(self.plan, self.folder)
        self.made = [key for key in self.plan.own() if key in self.missing]
        self.seconds = seconds


def close(plan: Plan, folder: RunFolder) -> bool:
    """Whether the run is closed, of which the plan's images are all made by this process.

    A piece of it closes it only when the others are made too; so does the whole, which another
    command may have started over meanwhile.
    """
    if plan.shard:
        return folder.close_if_whole()
    asked = asdict(plan.asked)
    noted = (folder.manifest() or {}).get("asked", asked)
    if noted != asked and not folder.is_whole(noted):  # another range began meanwhile
        folder.publish()
        return False
    if not folder.is_whole(asked | {"latents": False}):  # which this process has seen or made
        return False
    folder.close(asked)
    return True


def latents_of(sample: Sample) -> list[dict[str, torch.Tensor]]:
    """Of each image its noise, where sampling started and where it ended, float32 on the CPU."""
    names = ("initial", "adjusted", "final")
    all_images = {name: getattr(sample, name).float().cpu() for name in names}
    return [
        {name: values[i] for name, values in all_images.items()} for i in range(len(sample.final))
    ]


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


def mark(rows: list[dict], decoded: torch.Tensor, pictures: list[Image.Image]) -> None:
    """Says in rows of images.csv which images are not finite once decoded, or of one color.

    decoded: (n, 3, H, W), before it has 8 bits a channel. An image whose latents are not finite is
    marked already.
    """
    finite = decoded.isfinite().flatten(1).all(1).tolist()
    for row, is_finite, picture in zip(rows, finite, pictures):
        row["finite"] = int(row["finite"] and is_finite)
        row["flat"] = int(is_flat(picture))


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
