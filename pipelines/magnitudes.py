"""First-step magnitudes of images that were generated with --save_latents."""
from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from pipelines.models import load_pipeline
from sampling import NoisePredictor


@torch.no_grad()
def start_magnitudes(model_id: str, latents: list[Path], prompts: list[str], *, steps: int = 50, batch: int = 64) -> list[float]:
    """||e(x, c) - e(x, "")|| where sampling started (`adjusted`), epsilon units, one per image; costs two UNet rows each."""
    pipe = load_pipeline(model_id, unet_id=None, dtype="fp32", device="cpu", scheduler="keep")
    pipe.scheduler.set_timesteps(steps)
    t, found = pipe.scheduler.timesteps[0], []
    for i in range(0, len(latents), batch):
        noise = torch.stack([load_file(path)["adjusted"] for path in latents[i:i + batch]])
        x = pipe.scheduler.scale_model_input(noise * pipe.scheduler.init_noise_sigma, t)
        predictor = NoisePredictor(pipe.unet, pipe.scheduler, pipe.encode(prompts[i:i + batch]), pipe.encode([""] * len(noise)))
        found += predictor.at(x, t).magnitude().tolist()
    return found
