"""Loading a model of any family by name, folder or hub id."""

from __future__ import annotations

from memorization_suite.pipelines.family import can_load
from memorization_suite.pipelines.kinds import reader
from memorization_suite.pipelines.models import (
    INDEX,
    check_tokenizer,
    family_of,
    resolve_model,
)
from memorization_suite.runs.environment import set_tf32
from memorization_suite.sampling.denoiser import Denoiser, Unusable


def load_pipeline(
    model_id: str,
    *,
    unet_id: str | None = None,
    dtype: str = "fp32",
    device: str = "cpu",
    scheduler: str = "keep",
    tf32: bool = False,
    tokenizer: str = "",
) -> Denoiser:
    """The model, frozen, without a safety checker.

    dtype: fp32, bf16, fp16. scheduler: ddim, euler, keep. tf32: whether products of float32 numbers
    on CUDA may be rounded to TensorFloat-32; from then on in the whole process. tokenizer: a
    folder, for a model of one file. Raises ValueError when the model is neither here nor can be
    fetched, or is none that the suite can run.
    """
    set_tf32(tf32)
    source = resolve_model(model_id)
    check_tokenizer(source, tokenizer)
    with can_load("--model_id", model_id):
        family = family_of(reader(source)(INDEX))
        if scheduler not in family.schedulers:
            raise Unusable(
                f"--scheduler {scheduler} is not possible with a {family.title} model; there are "
                f"{', '.join(family.schedulers)}"
            )
        own = {"tokenizer": tokenizer} if tokenizer else {}
        return family.load(
            source, unet_id=unet_id, dtype=dtype, device=device, scheduler=scheduler, **own
        )
