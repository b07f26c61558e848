"""First-step magnitudes: how strongly a prompt pulls at the noise that sampling starts from."""

from __future__ import annotations

import torch

from memorization_suite.sampling import Batch


@torch.no_grad()
def start_magnitudes(
    pipe, prompts: list[str], noise: torch.Tensor, *, steps: int = 50, batch: int = 64
) -> torch.Tensor:
    """||e(x, c) - e(x, "")|| at the first timestep, epsilon units, (n,); two UNet rows each.

    noise: (n, 4, h, w) of unit variance, where sampling of prompts[i] starts. Source: Wen et al.
    2024; lowered by Han et al. 2025.
    """
    found = []
    for start in range(0, len(prompts), batch):
        captions = Batch.of_captions(prompts[start : start + batch])
        predictor = pipe.predictor(captions, steps)
        t = pipe.scheduler.timesteps[0]
        latents = noise[start : start + batch] * pipe.scheduler.init_noise_sigma
        x = pipe.scheduler.scale_model_input(latents, t)
        found.append(predictor.at(x, t).magnitude())
    return torch.cat(found)
