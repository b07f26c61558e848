"""Scores for what is missing in the detectors' folders."""

from __future__ import annotations

import itertools
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.commands.detect_plan import DetectionPlan, ScoreFolder, prompt_of
from memorization_suite.detection import Detector, trajectory
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.growth import parts_of
from memorization_suite.runs.lazy import np
from memorization_suite.runs.marks import NOT_FINITE
from memorization_suite.runs.progress import Progress
from memorization_suite.runs.store import publishing
from memorization_suite.runs.tables import whole
from memorization_suite.runs.text import counted, first_of
from memorization_suite.runs.whole import There, faults_of, say_damaged
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.sample import noise_of, predictor_of, same_noise

if TYPE_CHECKING:
    import torch

    from memorization_suite.detection.trajectory import DetectorResult
    from memorization_suite.sampling import Denoiser, NoisePredictor


# Rows by prompt, as of `prompt_of`.
Rows = dict[tuple[str, int], list[dict]]
# Columns of cost.csv that add up over a prompt's images, as `pass_seconds` does.
COUNTS = ("unet_rows", "pass_unet_rows")
# Columns with the rows in a pass that memory did not suffice for.
PASSES = ("forward_rows", "grad_rows")


def by_prompt(rows: list[dict]) -> Rows:
    """The rows of each prompt."""
    found: Rows = {}
    for row in rows:
        found.setdefault(prompt_of(row), []).append(row)
    return found


def added(before: dict, now: dict) -> dict:
    """A prompt's row of cost.csv with what more images of it took.

    `images` is that of now. Of the rows in a pass, where both have them, the least counts.
    """
    row = {**before, **now}
    for column in COUNTS:
        row[column] = int(before[column]) + int(now[column])
    row["pass_seconds"] = f"{float(before['pass_seconds']) + float(now['pass_seconds']):.4g}"
    for kind in PASSES:
        least = [int(each[kind]) for each in (before, now) if each.get(kind)]
        if least:
            row[kind] = min(least)
    return row


def images_of(cost: dict, there: int) -> int:
    """How many of a prompt's images, from the first, a row of cost.csv counts.

    there: images that have scores; a row of an earlier version, which does not say it, counts them.
    """
    return whole(cost, "images") if cost.get("images") else there


class Job:
    """All batches of all sets; detectors that still miss a batch share its trajectory."""

    def __init__(self, plan: DetectionPlan, folders: dict[str, ScoreFolder], model: Denoiser):
        self.plan = plan
        self.folders = folders
        self.model = model
        # Names of masks that are not finite, or whose image is not.
        self.not_finite: dict[str, None] = {}
        self.there = {each.name: self.look(each) for each in plan.detectors}
        # By the detector's name: numbers of a prompt's images that are looked at together, and the
        # rows that its prompts have so far.
        self.samples: dict[str, list[range]] = {}
        self.rows: dict[str, dict[str, Rows]] = {}
        for name, folder in folders.items():
            self.samples[name] = parts_of(folder.manifest() or {}, "n_samples_per_prompt")
            if len(self.samples[name]) > 1:
                folder.publish()
            self.rows[name] = {table: folder.merged(table)[0] for table in folder.tables}

    def look(self, detector: Detector) -> There:
        """The prompts of a detector that are whole."""
        settings = self.plan.settings
        return self.folders[detector.name].look(
            settings.n_samples_per_prompt, masks=settings.save_masks and detector.spatial
        )

    def go(self) -> None:
        """Makes what is missing; the tables are written also when it is interrupted."""
        for name, there in self.there.items():
            say_damaged(there.damaged, self.folders[name].path)
        try:
            with publishing(self.folders.values()), self.progress() as progress:
                self.make_all(progress)
        finally:
            self.say_not_finite()
        for folder in self.folders.values():
            if self.plan.shard:
                folder.close_if_whole()
            else:
                folder.finish()

    def say_not_finite(self) -> None:
        """Says which masks that were made now are not finite, or lie over such an image."""
        if self.not_finite:
            masks = counted(len(self.not_finite), "mask")
            are = "is" if len(self.not_finite) == 1 else "are"
            names = first_of(list(self.not_finite))
            print(f"{masks}, or the image below, {are} {NOT_FINITE}: {names}", file=sys.stderr)

    def progress(self) -> Progress:
        """Of the prompts of all sets."""
        settings = self.plan.settings
        batches = self.plan.batches()
        total = sum(len(prompts) for _, prompts in batches)
        to_make = sum(len(prompts) for name, prompts in batches if self.lacking(name, prompts))
        names = ", ".join(detector.name for detector in self.plan.detectors)
        images = settings.n_samples_per_prompt
        piece = f", piece {self.plan.shard}" if self.plan.shard else ""
        return Progress(
            f"{total} prompts, {counted(images, 'image')} each: {names}, "
            f"{settings.model_id} on {self.model.device}{piece}",
            total,
            unit="prompt",
            there=total - to_make,
            place=Path(settings.output_path),
            quiet=settings.quiet,
        )

    def lacking(self, name: str, prompts: list[Prompt]) -> dict[range, list[Detector]]:
        """Numbers of these prompts' images -> the detectors that have no scores of them yet."""
        wanted = {(name, prompt.row) for prompt in prompts}
        lacking: dict[range, list[Detector]] = {}
        for detector in self.plan.detectors:
            if self.there[detector.name].complete.issuperset(wanted):
                continue
            least = min(self.images_there(detector, *prompt) for prompt in wanted)
            for samples in self.samples[detector.name]:
                if samples.stop > least:
                    lacking.setdefault(samples, []).append(detector)
        return dict(sorted(lacking.items(), key=lambda entry: entry[0].start))

    def images_there(self, detector: Detector, name: str, row: int) -> int:
        """How many images of a prompt of a set have all that a detector is to make of them; none
        where something of it is damaged or gone.
        """
        settings = self.plan.settings
        rows = self.rows[detector.name]
        numbers = {int(score["sample_index"]) for score in rows["scores"].get((name, row), [])}
        there = next(k for k in itertools.count() if k not in numbers)
        if not self.there[detector.name].complete.isdisjoint({(name, row)}):
            return there
        if there >= settings.n_samples_per_prompt or (name, row) not in rows["cost"]:
            return 0
        if settings.save_masks and detector.spatial:
            folder = self.folders[detector.name]
            files = [file for k in range(there) for file in folder.mask_files(name, row, k)]
            return 0 if faults_of(files) else there
        return there

    def make_all(self, progress: Progress) -> None:
        """Makes every batch that a detector still misses."""
        for name, prompts in self.plan.batches():
            lacking = self.lacking(name, prompts)
            for samples, detectors in lacking.items():
                self.make(detectors, name, prompts, samples)
            if lacking:
                progress.update(len(prompts))

    def make(
        self, missing: list[Detector], name: str, prompts: list[Prompt], samples: range
    ) -> None:
        """One batch: watch, score, save. samples: numbers of the prompts' images."""
        start = time.perf_counter()
        settings = self.plan.settings
        batch = Batch.of(prompts, samples, settings.seed)
        predictor = predictor_of(self.model, batch, settings.num_inference_steps)
        made = trajectory.detect(
            missing,
            predictor,
            self.noise(batch, len(prompts)),
            batch=batch,
            guidance_scale=settings.guidance_scale,
            want_images=settings.save_masks and any(detector.spatial for detector in missing),
        )
        seconds = (time.perf_counter() - start) / len(prompts)
        for detector, result in zip(missing, made.results):
            folder = self.folders[detector.name]
            keys = [(prompt, k) for prompt in prompts for k in samples]
            if settings.save_masks and result.masks is not None:
                self.save_masks(folder, name, keys, result.masks, made.images)
            cost = self.cost_rows(name, prompts, samples, result.rows, predictor, seconds)
            scores = self.score_rows(name, keys, result)
            cost, scores = self.beside_others(detector, samples, cost, scores)
            rows = f"{prompts[0].row:06d}-{prompts[-1].row:06d}"
            folder.add(f"{name}_{rows}", cost=cost, scores=scores)
            for table, made_rows in (("cost", cost), ("scores", scores)):
                self.rows[detector.name][table] |= by_prompt(made_rows)

    def noise(self, batch: Batch, prompts: int) -> torch.Tensor:
        """Unit-variance noise (n, 4, h, w). `official`: the same draws for every prompt, as if the
        generator were seeded anew for each.
        """
        settings = self.plan.settings
        if settings.rng == "per_image":
            return noise_of(self.model, batch, settings.image_length)
        images = settings.n_samples_per_prompt
        drawn = same_noise(self.model, settings.seed, images, settings.image_length)
        return drawn.repeat(prompts, 1, 1, 1)

    def beside_others(
        self, detector: Detector, samples: range, cost: list[dict], scores: list[dict]
    ) -> tuple[list[dict], list[dict]]:
        """The rows of a batch with those of its prompts' other images: the cost of all, the scores.

        samples: numbers of the images that were made now, some of them perhaps again. A cost that
        counts them already, because the process ended before their scores were kept, stays.
        """
        rows = self.rows[detector.name]
        costs = []
        every = list(scores)
        for row in cost:
            there = rows["scores"].get(prompt_of(row), [])
            before = rows["cost"].get(prompt_of(row), [])
            so_far = images_of(before[0], len(there)) if before else 0
            if so_far >= samples.stop:
                row = before[0]
            elif so_far:
                row = added(before[0], row)
            costs.append(row)
            if before:
                every += [score for score in there if int(score["sample_index"]) not in samples]
        return costs, sorted(every, key=lambda row: (prompt_of(row), int(row["sample_index"])))

    def score_rows(
        self, name: str, keys: list[tuple[Prompt, int]], result: DetectorResult
    ) -> list[dict]:
        """Rows of scores.csv for a batch. keys: (prompt, sample) of its images."""
        return [
            {
                "set": name,
                "prompt_index": prompt.row,
                "prompt": prompt.caption,
                "sample_index": k,
                "score": f"{score:.7g}",
            }
            for (prompt, k), score in zip(keys, result.scores.tolist())
        ]

    def cost_rows(
        self,
        name: str,
        prompts: list[Prompt],
        samples: range,
        alone: torch.Tensor,
        predictor: NoisePredictor,
        seconds: float,
    ) -> list[dict]:
        """Rows of cost.csv for a batch.

        samples: numbers of its prompts' images; `images` is how many have been made with them.
        alone: NFE of each image (n,), of the detector by itself. predictor: of the trajectory of
        all. seconds: of a prompt. A prompt whose images memory did not suffice for has the least
        rows in a pass of them.
        """
        own = alone.reshape(len(prompts), -1).sum(1).tolist()
        shared = predictor.unet_evals.reshape(len(prompts), -1).sum(1).tolist()
        rows = [
            {
                "set": name,
                "prompt_index": prompt.row,
                "images": samples.stop,
                "unet_rows": own[i],
                "pass_unet_rows": shared[i],
                "pass_seconds": f"{seconds:.4g}",
            }
            for i, prompt in enumerate(prompts)
        ]
        for kind, smaller in predictor.smaller_passes().items():
            least = smaller.nan_to_num(math.inf).reshape(len(prompts), -1).amin(1)
            for row, count in zip(rows, least.tolist()):
                if math.isfinite(count):
                    row[kind] = int(count)
        return rows

    def save_masks(self, folder: ScoreFolder, name, keys, masks, images) -> None:
        """Masks (n, h, w) of a batch, and over its images (n, 3, H, W) in [0, 1].

        keys: (prompt, sample) of each.
        """
        masks = masks.float().cpu().numpy()
        images = images.float().permute(0, 2, 3, 1).cpu().numpy()
        for (prompt, k), mask, image in zip(keys, masks, images):
            folder.save_mask(name, prompt.row, k, mask, image)
            if not (np.isfinite(mask).all() and np.isfinite(image).all()):
                self.not_finite[f"{name}_{prompt.row:04d}_{k:02d}"] = None
