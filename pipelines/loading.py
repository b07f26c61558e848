"""Loading a model of any family by name, folder or hub id."""

from __future__ import annotations

import json
from pathlib import Path

from memorization_suite.lazy import Lazy
from memorization_suite.pipelines.family import Unusable, can_load
from memorization_suite.pipelines.models import INDEX, family_of, resolve_model
from memorization_suite.sampling.denoiser import Denoiser

diffusers = Lazy("diffusers")


def load_pipeline(
    model_id: str,
    *,
    unet_id: str | None = None,
    dtype: str = "fp32",
    device: str = "cpu",
    scheduler: str = "keep",
) -> Denoiser:
    """The model, frozen, without a safety checker.

    dtype: fp32, bf16, fp16. scheduler: ddim, euler, keep. Raises ValueError when the model is
    neither here nor can be fetched, or is none that the suite can run.
    """
    source = resolve_model(model_id)
    with can_load("--model_id", model_id):
        family = family_of(model_index(source))
        if scheduler not in family.schedulers:
            raise Unusable(
                f"--scheduler {scheduler} is not possible with a {family.title} model; there are "
                f"{', '.join(family.schedulers)}"
            )
        return family.load(source, unet_id=unet_id, dtype=dtype, device=device, scheduler=scheduler)


def model_index(source: str) -> dict:
    """What model_index.json says, of a folder or a hub id."""
    if Path(source).is_dir():
        return json.loads((Path(source) / INDEX).read_text(encoding="utf-8"))
    return diffusers.DiffusionPipeline.load_config(source)
