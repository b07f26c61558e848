"""calibrate.py stability: the norms of ordinary prompts' trajectories, for --method
stability_regions. Source: Huang et al., KDD 2026.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from memorization_suite.calibration.settings import (
    Settings,
    add_sampling_flags,
    check_out,
    plan_sampling,
)
from memorization_suite.prompts.files import Prompt, sha256_of

HELP = "norms of ordinary prompts' trajectories, for --method stability_regions"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The sampler's flags and --out."""
    add_sampling_flags(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to write, .json")


def run(args: argparse.Namespace) -> str:
    """Samples every prompt with plain guidance and writes the statistics; returns what to print.
    Raises ValueError.
    """
    settings, prompts = plan_sampling(args)
    check_out(args.out)
    images = len(prompts) * settings.n_samples_per_prompt
    if images < 2:
        raise ValueError(
            f"statistics need at least two images: {settings.prompts} has {len(prompts)} prompts, "
            "--n_samples_per_prompt is "
            f"{settings.n_samples_per_prompt}"
        )
    made_with = settings.identity()
    from memorization_suite.pipelines.loading import load_pipeline
    from memorization_suite.sampling.stability import instability, measure

    pipe = load_pipeline(
        settings.model_id,
        unet_id=settings.unet_id,
        dtype=settings.dtype,
        device=settings.device,
        scheduler=settings.scheduler,
    )
    norms = record(pipe, prompts, settings, quiet=args.quiet)
    made = measure(
        norms,
        made_with | sampler_facts(pipe, settings),
        {
            "prompts_sha256": sha256_of(Path(settings.prompts)),
            "prompts": len(prompts),
            "n_samples_per_prompt": settings.n_samples_per_prompt,
            "images": images,
            "seed": settings.seed,
        },
    )
    made.save(args.out)
    scores = instability(made, norms["update"]).tolist()
    return (
        f"{args.out}: {made.num_steps} steps, {images} images; their own largest deviation of an "
        "update's norm: median "
        f"{statistics.median(scores):.2f}, at most {max(scores):.2f} standard deviations"
    )


def record(pipe, prompts: list[Prompt], settings: Settings, *, quiet: bool) -> dict:
    """Norms of each image at each step, (images, N), see `sampling.stability`."""
    import torch
    from tqdm import tqdm

    from memorization_suite.mitigation import build_mitigation
    from memorization_suite.sampling.noise import image_seed, initial_noise
    from memorization_suite.sampling.stability import NORMS, NormRecorder

    side, parts = settings.image_length // pipe.vae_scale_factor, []
    with tqdm(total=len(prompts), unit="prompt", disable=quiet) as bar:
        for i in range(0, len(prompts), settings.batch_size):
            batch = [
                prompt
                for prompt in prompts[i : i + settings.batch_size]
                for _ in range(settings.n_samples_per_prompt)
            ]
            seeds = [
                image_seed(settings.seed, prompt.row, k % settings.n_samples_per_prompt)
                for k, prompt in enumerate(batch)
            ]
            noise = initial_noise(seeds, (pipe.unet.config.in_channels, side, side)).to(
                pipe.device, pipe.unet.dtype
            )
            recorder = NormRecorder()
            made = pipe.sample(
                [prompt.caption for prompt in batch],
                noise,
                build_mitigation("no_mitigation"),
                on_step=recorder.on_step,
                seeds=seeds,
                num_inference_steps=settings.num_inference_steps,
                guidance_scale=settings.guidance_scale,
            )
            parts.append(recorder.finish(made.final))
            bar.update(len(batch) // settings.n_samples_per_prompt)
    return {name: torch.cat([part[name] for part in parts]) for name in NORMS}


def sampler_facts(pipe, settings: Settings) -> dict:
    """What a run can compare while it samples."""
    side = settings.image_length // pipe.vae_scale_factor
    return {
        "scheduler_class": type(pipe.scheduler).__name__,
        "timesteps": [round(float(t), 3) for t in pipe.scheduler.timesteps],
        "latent_shape": [pipe.unet.config.in_channels, side, side],
    }
