"""Generating what is missing in a run folder."""

from __future__ import annotations

import time

from memorization_suite.generation.plan import Plan
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs import Key, RunFolder


class Run:
    """Generates what is missing in a run folder. Processes started by `accelerate launch` share the
    batches.
    """

    def __init__(self, plan: Plan, pipe, folder: RunFolder, state):
        self.plan, self.pipe, self.folder, self.state = plan, pipe, folder, state
        self.unet_evals = 0
        self.published = time.monotonic()
        self.done = self.folder.complete(latents=plan.save_latents, trace=plan.trace)

    def is_mine(self, batch_number: int) -> bool:
        return batch_number % self.state.num_processes == self.state.process_index

    def mine(self) -> list[Key]:
        """Images that this process has to care for."""
        return [
            key
            for number, prompts in self.plan.batches()
            if self.is_mine(number)
            for key in self.plan.wanted(prompts)
        ]

    def go(self, bar) -> None:
        """Makes every batch of this process that is not whole yet."""
        batches = self.plan.batches()
        for (number, prompts), official in zip(
            batches, self.official_noise([len(prompts) for _, prompts in batches])
        ):
            wanted = self.plan.wanted(prompts)
            if not wanted or not self.is_mine(number):
                continue
            if not self.done.issuperset(wanted):
                self.make(prompts, official)
                self.publish_now_and_then()
            bar.set_postfix(
                method=self.plan.mitigation.name, unet_rows=self.unet_evals, refresh=False
            )
            bar.update(len(wanted))

    def publish_now_and_then(self, seconds: float = 30.0) -> None:
        """Keeps the tables fresh during a long run; the rows themselves are safe in the batches'
        parts.
        """
        if self.state.is_main_process and time.monotonic() - self.published > seconds:
            self.folder.publish(self.tables())
            self.published = time.monotonic()

    def finish(self, seconds: float) -> str:
        """Closes the folder; returns the summary over all processes."""
        self.folder.publish(self.tables())
        rows = {
            Key(int(row["prompt_index"]), int(row["sample_index"])): row
            for row in self.folder.rows("images")
        }
        self.folder.finish(images=len(rows), of=len(self.plan.keys(self.plan.prompts)))
        wanted = self.plan.wanted(self.plan.prompts)
        made = [rows[key] for key in wanted if key not in self.done]
        text = f"{len(wanted)} images in {self.folder.path} "
        if not made:
            return text + "(nothing to make)"
        evals = sum(int(row["unet_evals"]) for row in made) / len(made)
        return (
            text
            + f"({len(made)} images made, {evals:.4g} UNet rows and {seconds / len(made):.2f} s "
            f"each{warnings(made)})"
        )

    def tables(self) -> tuple[str, ...]:
        return ("images", "trace") if self.plan.trace else ("images",)

    def latent_shape(self) -> tuple[int, int, int]:
        side = self.plan.settings.image_length // self.pipe.vae_scale_factor
        return self.pipe.unet.config.in_channels, side, side

    def official_noise(self, prompts_per_batch: list[int]):
        """The official script's draws, or None for each batch."""
        from memorization_suite.sampling.noise import official_noise

        settings = self.plan.settings
        if settings.rng == "per_image":
            return [None] * len(prompts_per_batch)
        rows = [count * settings.n_samples_per_prompt for count in prompts_per_batch]
        return official_noise(
            settings.seed, rows, self.latent_shape(), self.pipe.unet.dtype, self.pipe.device.type
        )

    def make(self, prompts: list[Prompt], noise) -> None:
        """One batch: sample, decode, save. The whole batch is made, what was not asked for is
        dropped.
        """
        import torch

        from memorization_suite.sampling.noise import image_seed, initial_noise, prompt_seed

        settings, keys, start = self.plan.settings, self.plan.keys(prompts), time.perf_counter()
        seeds = [image_seed(settings.seed, key.prompt, key.sample) for key in keys]
        noise = initial_noise(seeds, self.latent_shape()) if noise is None else noise
        per_image = [prompt for prompt in prompts for _ in range(settings.n_samples_per_prompt)]
        captions = [prompt.caption for prompt in per_image]
        shared = {
            "prompt_seeds": [prompt_seed(settings.seed, prompt.row) for prompt in per_image],
            "alternatives": [prompt.alternatives for prompt in per_image],
        }
        sample, traced = self.sample(
            captions,
            noise.to(self.pipe.device, self.pipe.unet.dtype),
            keys,
            seeds=seeds,
            **shared,
            generator=[
                torch.Generator().manual_seed(seed ^ 1) for seed in seeds
            ],  # not the initial noise's
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
        )
        pictures, _ = self.pipe.decode(sample.final)
        self.unet_evals += int(sample.unet_evals.sum())
        used = seeds if settings.rng == "per_image" else [settings.seed] * len(keys)
        rows = image_rows(keys, captions, used, sample, (time.perf_counter() - start) / len(keys))
        self.save(set(self.plan.wanted(prompts)), keys, pictures, sample, rows, traced)

    def sample(self, captions: list[str], noise, keys: list[Key], **settings):
        """(Sample, rows of trace.csv or None)."""
        traces = [Trace(keys) if self.plan.trace else None for _ in range(2)]
        if self.plan.screen is None:
            made = self.pipe.sample(
                captions, noise, self.plan.mitigation, on_step=traces[0], **settings
            )
            return made, traces[0] and traces[0].rows()
        from memorization_suite.generation.screen import sample_screened
        from memorization_suite.mitigation.registry import build_mitigation
        from memorization_suite.sampling import Batch

        batch = Batch(
            captions,
            settings["seeds"],
            settings["prompt_seeds"],
            settings["alternatives"],
            self.pipe,
        )
        made, flagged = sample_screened(
            self.plan.screen,
            self.pipe,
            batch,
            noise,
            self.plan.mitigation,
            build_mitigation("no_mitigation"),
            traces,
            **settings,
        )
        if not self.plan.trace:
            return made, None
        mitigated = {str(key) for key, flag in zip(keys, flagged.tolist()) if flag}
        return made, [
            row
            for trace, own in zip(traces, (True, False))
            for row in trace.rows()
            if (row["key"] in mitigated) == own
        ]

    def save(self, wanted: set[Key], keys: list[Key], pictures, sample, rows, traced) -> None:
        for i, key in enumerate(keys):
            if key in wanted:
                self.folder.save_image(key, pictures[i])
                if self.plan.save_latents:
                    self.folder.save_latents(
                        key,
                        {
                            name: getattr(sample, name)[i].float().cpu()
                            for name in ("initial", "adjusted", "final")
                        },
                    )
        names = {str(key) for key in wanted}
        if traced is not None:
            self.folder.save_rows("trace", [row for row in traced if row["key"] in names])
        self.folder.save_rows("images", [row for row in rows if row["key"] in names])


def warnings(rows: list[dict[str, str]]) -> str:
    """What is not as it should be in some rows of images.csv, as the end of a sentence."""
    faults = {
        "missed the target": ("reached", 0.0),
        "kept their noise after a non-finite magnitude": ("failed", 1.0),
        "are not finite": ("finite", 0.0),
    }
    counts = {
        text: sum(row.get(column) not in (None, "") and float(row[column]) == bad for row in rows)
        for text, (column, bad) in faults.items()
    }
    return "".join(f"; {count} {text}" for text, count in counts.items() if count)


def image_rows(keys, captions, seeds, sample, seconds: float) -> list[dict]:
    """A row of images.csv for each image."""
    rows = []
    for i, key in enumerate(keys):
        own = {
            name: float(f"{float(values[i]):.6g}")
            for name, values in sample.numbers.items()
            if not values[i].isnan()
        }
        rows.append(
            {
                "key": str(key),
                "prompt_index": key.prompt,
                "sample_index": key.sample,
                "prompt": captions[i],
                "seed": seeds[i],
                "unet_evals": int(sample.unet_evals[i]),
                "seconds": round(seconds, 4),
                "finite": int(sample.final[i].isfinite().all()),
                **own,
            }
        )
    return rows


class Trace:
    """Collects, at every step and for every image, the magnitude (epsilon units) and the guidance
    scale.
    """

    def __init__(self, keys: list[Key]):
        self.keys, self.steps = keys, []

    def __call__(self, step, prediction) -> None:
        import torch

        scale = torch.as_tensor(step.applied, dtype=torch.float32).expand(len(self.keys)).tolist()
        self.steps.append((step.index, float(step.t), prediction.magnitude().tolist(), scale))

    def rows(self) -> list[dict]:
        return [
            {
                "key": str(key),
                "prompt_index": key.prompt,
                "sample_index": key.sample,
                "step": index,
                "timestep": t,
                "magnitude": float(f"{magnitude[i]:.6g}"),
                "guidance_scale": scale[i],
            }
            for i, key in enumerate(self.keys)
            for index, t, magnitude, scale in self.steps
        ]
