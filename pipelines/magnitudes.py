"""First-step magnitudes: how strongly a prompt pulls at the noise that sampling starts from."""

from __future__ import annotations

import torch

from memorization_suite.sampling import NoisePredictor


@torch.no_grad()
def start_magnitudes(
    pipe, prompts: list[str], noise: torch.Tensor, *, steps: int = 50, batch: int = 64
) -> torch.Tensor:
    """||e(x, c) - e(x, "")|| at the first timestep, epsilon units, (n,); two UNet rows each.

    noise: (n, 4, h, w) of unit variance, where sampling of prompts[i] starts. Source: Wen et al.
    2024; lowered by Han et al. 2025.
    """
    pipe.scheduler.set_timesteps(steps)
    t, found = pipe.scheduler.timesteps[0], []
    for rows, texts in zip(
        noise.split(batch), (prompts[i : i + batch] for i in range(0, len(prompts), batch))
    ):
        x = pipe.scheduler.scale_model_input(rows * pipe.scheduler.init_noise_sigma, t)
        predictor = NoisePredictor(
            pipe.unet, pipe.scheduler, pipe.encode(texts), pipe.encode([""] * len(texts))
        )
        found.append(predictor.at(x, t).magnitude())
    return torch.cat(found)
