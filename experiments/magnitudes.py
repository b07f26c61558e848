"""First-step magnitudes: how strongly a prompt pulls at the noise that sampling starts from."""

from __future__ import annotations

from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling import Batch, Denoiser
from memorization_suite.sampling.sample import predictor_of


@no_grad
def start_magnitudes(
    model: Denoiser,
    prompts: list[str],
    noise: torch.Tensor,
    *,
    steps: int = 50,
    batch: int = 64,
) -> torch.Tensor:
    """||e(x, c) - e(x, "")|| at the first timestep, epsilon units, (n,); two NFE each.

    noise: (n, 4, h, w) of unit variance, where sampling of prompts[i] starts. *Source:* Wen et al.
    2024; lowered by Han et al. 2025.
    """
    magnitudes = []
    for start in range(0, len(prompts), batch):
        rows = slice(start, start + batch)
        predictor = predictor_of(model, Batch.of_captions(prompts[rows]), steps)
        t = model.timesteps[0]
        x = model.scale_input(noise[rows] * model.initial_scale, t)
        magnitudes.append(predictor.at(x, t).magnitude())
    return torch.cat(magnitudes)
