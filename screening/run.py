"""Scores for what is missing in the detectors' folders."""

from __future__ import annotations

import io
import time

import numpy as np
import torch

from memorization_suite.detection import Detector
from memorization_suite.detection.trajectory import Watched, detect
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.files import write_bytes
from memorization_suite.sampling import Batch, NoisePredictor, image_seed, initial_noise
from memorization_suite.sampling.noise import prompt_seed
from memorization_suite.screening.folder import score_rows
from memorization_suite.screening.overlay import overlay
from memorization_suite.screening.plan import Plan


class Detection:
    """All batches of all sets; detectors that still miss a batch share its trajectory."""

    def __init__(self, plan: Plan, pipe):
        self.plan, self.pipe = plan, pipe
        self.folders = {detector.name: plan.folder(detector) for detector in plan.detectors}
        self.done = {name: folder.done() for name, folder in self.folders.items()}

    def batches(self) -> list[tuple[str, list[Prompt]]]:
        """(set, prompts) of every batch."""
        size = self.plan.settings.batch_size
        return [
            (name, prompts[i : i + size])
            for name, prompts in self.plan.sets.items()
            for i in range(0, len(prompts), size)
        ]

    def go(self, bar) -> None:
        """Makes what is missing; the tables are written at the end, also when the run is
        interrupted.
        """
        try:
            for name, prompts in self.batches():
                missing = [
                    detector
                    for detector in self.plan.detectors
                    if not self.done[detector.name].issuperset(
                        (name, prompt.row) for prompt in prompts
                    )
                ]
                if missing:
                    self.make(missing, name, prompts)
                bar.update(len(prompts))
        finally:
            for folder in self.folders.values():
                folder.publish_scores()

    def noise(self, prompts: list[Prompt], seeds: list[int]) -> torch.Tensor:
        """Unit-variance noise of a batch. `official`: the same draws for every prompt, as if the
        generator were seeded anew for each.
        """
        settings, side = (
            self.plan.settings,
            self.plan.settings.image_length // self.pipe.vae_scale_factor,
        )
        shape = (self.pipe.unet.config.in_channels, side, side)
        if settings.rng == "per_image":
            return initial_noise(seeds, shape).to(self.pipe.device, self.pipe.unet.dtype)
        generator = torch.Generator(self.pipe.device).manual_seed(settings.seed)
        drawn = torch.randn(
            (settings.n_samples_per_prompt, *shape),
            generator=generator,
            dtype=self.pipe.unet.dtype,
            device=self.pipe.device,
        )
        return drawn.repeat(len(prompts), 1, 1, 1)

    def make(self, detectors: list[Detector], name: str, prompts: list[Prompt]) -> None:
        """One batch: watch, score, save."""
        start, settings, samples = (
            time.perf_counter(),
            self.plan.settings,
            self.plan.settings.n_samples_per_prompt,
        )
        seeds = [
            image_seed(settings.seed, prompt.row, k) for prompt in prompts for k in range(samples)
        ]
        captions = [prompt.caption for prompt in prompts for _ in range(samples)]
        batch = Batch(
            captions,
            seeds,
            [prompt_seed(settings.seed, prompt.row) for prompt in prompts for _ in range(samples)],
            [()] * len(captions),
            self.pipe,
        )
        self.pipe.scheduler.set_timesteps(settings.num_inference_steps, device=self.pipe.device)
        predictor = NoisePredictor(
            self.pipe.unet,
            self.pipe.scheduler,
            self.pipe.encode(captions),
            self.pipe.encode([""] * len(captions)),
        )
        want_images = self.plan.save_masks and any(detector.spatial for detector in detectors)
        seen = detect(
            detectors,
            self.pipe.scheduler,
            predictor,
            self.noise(prompts, seeds),
            settings.guidance_scale,
            batch,
            lambda latents: self.pipe.decode(latents, "pt")[0],
            want_images=want_images,
        )
        seconds = time.perf_counter() - start
        for detector, watched in zip(detectors, seen.found):
            self.save(detector, name, prompts, watched, seen.images, predictor.unet_evals, seconds)

    def save(
        self,
        detector: Detector,
        name: str,
        prompts: list[Prompt],
        watched: Watched,
        images,
        pass_rows: torch.Tensor,
        seconds: float,
    ) -> None:
        folder, samples = self.folders[detector.name], self.plan.settings.n_samples_per_prompt
        if self.plan.save_masks and watched.masks is not None:
            self.save_masks(detector, name, prompts, watched.masks, images)
        alone, shared = (
            rows.reshape(len(prompts), samples).sum(1).tolist()
            for rows in (watched.rows, pass_rows)
        )
        cost = [
            {
                "set": name,
                "prompt_index": prompt.row,
                "unet_rows": alone[i],
                "pass_unet_rows": shared[i],
                "pass_seconds": f"{seconds / len(prompts):.4g}",
            }
            for i, prompt in enumerate(prompts)
        ]
        folder.save_batch(
            (name, prompts[0].row),
            score_rows(name, prompts, samples, watched.scores.tolist()),
            cost,
        )

    def save_masks(
        self, detector: Detector, name: str, prompts: list[Prompt], masks: torch.Tensor, images
    ) -> None:
        """masks/<set>_PPPP_SS.npy, float32 as the detector made it, and
        overlays/<set>_PPPP_SS.png.
        """
        folder, samples = self.folders[detector.name].path, self.plan.settings.n_samples_per_prompt
        for kind in ("masks", "overlays"):
            (folder / kind).mkdir(exist_ok=True)
        for i, mask in enumerate(masks.float().cpu().numpy()):
            stem = f"{name}_{prompts[i // samples].row:04d}_{i % samples:02d}"
            data = io.BytesIO()
            np.save(data, mask, allow_pickle=False)
            write_bytes(folder / "masks" / f"{stem}.npy", data.getvalue())
            write_bytes(
                folder / "overlays" / f"{stem}.png",
                overlay(images[i].float().permute(1, 2, 0).cpu().numpy(), mask),
            )
