"""Whether a model is one that the loop can run: what its network reads and predicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization_suite.pipelines.hub import hub_file
from memorization_suite.pipelines.kinds import SD2_V, Read, Unknown, read_json, read_unet
from memorization_suite.pipelines.stable_diffusion.tokens import fault_of_ends
from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.runs.notices import say
from memorization_suite.sampling.denoiser import Unusable

if TYPE_CHECKING:
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline

UNET = "UNet2DConditionModel"
INDEX = "model_index.json"
SCHEDULER = "scheduler/scheduler_config.json"
# What is said of a model that is refused.
NOT_HERE = "this model cannot be run here"
# Entry of a UNet's configuration -> {value: input that it then needs}; None: for any value.
INPUTS: dict[str, dict[str | None, str]] = {
    "time_cond_proj_dim": {None: "timestep_cond, an embedding of the guidance scale"},
    "num_class_embeds": {None: "class_labels"},
    "class_embed_type": {None: "class_labels"},
    "encoder_hid_dim_type": {
        "text_image_proj": "image_embeds",
        "image_proj": "image_embeds",
        "ip_image_proj": "image_embeds",
    },
    "addition_embed_type": {
        "text_time": "text_embeds and time_ids, as in Stable Diffusion XL",
        "text_image": "image_embeds",
        "image": "image_embeds",
        "image_hint": "image_embeds and hint",
    },
}
# Side of the latents, in latent pixels, with which a network is asked: three halvings.
SIDE = 8
# Correlation of its output with pure noise: above the one it predicts noise, below the other not.
IS_NOISE = 0.9
IS_NOT_NOISE = 0.5
# Share of signal, alpha, up to which the last timestep is pure noise.
SIGNAL = 0.3


def check_unet(unet_id: str, read: Read) -> None:
    """Raises Unusable for a UNet of another kind than the model, by their small files.

    read: gives the model's JSON files.
    """
    refuse(fault_of_unet(unet_id, read), f"--unet_id {unet_id} cannot be used with this model")


def check_parts(pipe: MemorizationPipeline) -> None:
    """Raises Unusable for a model that is not as Stable Diffusion 1 or 2."""
    refuse(fault_of(pipe), NOT_HERE)


def check_prediction(pipe: MemorizationPipeline, read: Read, unet_id: str | None) -> None:
    """Raises Unusable for a network that cannot predict what its scheduler says; says it on stderr
    where that is not certain. read: gives the model's JSON files. unet_id: of another UNet.

    A network whose own files say that it predicts noise is not asked. Where its scheduler says
    nothing, a model with the text and the size of Stable Diffusion 2 is refused too: it was made
    for v-prediction.
    """
    is_silent = "prediction_type" not in read(SCHEDULER)
    is_foreign = bool(unet_id) and its_prediction(unet_id) is None
    refuse(fault_of_v(pipe), NOT_HERE)
    doubt = doubt_of_noise(pipe) if is_silent or is_foreign else ""
    if is_silent and is_like_2(pipe):
        refuse(doubt, NOT_HERE)
    if doubt:
        say(doubt)


def refuse(fault: str, what: str) -> None:
    """Raises Unusable if there is a fault."""
    if fault:
        raise Unusable(f"{what}: {fault}")


def is_like_2(pipe: MemorizationPipeline) -> bool:
    """Whether it has the text and the size of Stable Diffusion 2 for 768 pixels."""
    width = text_width(pipe.unet.config)
    return (pipe.native_size, width) == (SD2_V.native_size, SD2_V.text_width)


# --- what its configurations say


def fault_of(pipe: MemorizationPipeline) -> str:
    """What is not as in Stable Diffusion 1 or 2; empty when all is."""
    scheduler = pipe.scheduler.config
    kind = scheduler.get("prediction_type")
    if kind not in ("epsilon", "v_prediction"):
        return f"its scheduler's prediction_type is {kind!r}, not 'epsilon' or 'v_prediction'"
    if scheduler.get("rescale_betas_zero_snr"):
        return "its schedule ends at zero signal-to-noise, where v cannot be turned into noise"
    unet = pipe.unet.config
    latent_channels = pipe.vae.config.latent_channels
    if unet.in_channels != latent_channels:
        return f"its UNet reads {unet.in_channels} channels, its VAE gives {latent_channels}"
    if unet.out_channels != latent_channels:
        return f"its UNet gives {unet.out_channels} channels, its VAE {latent_channels}"
    width = pipe.text_encoder.config.hidden_size
    if text_width(unet) != width:
        return f"its UNet wants text of width {text_width(unet)}, its text encoder gives {width}"
    return fault_of_inputs(unet) or fault_of_ends(pipe.tokenizer)


def text_width(unet: Mapping[str, Any]) -> Any:
    """Of the token embeddings that a UNet reads: some project them first."""
    if unet.get("encoder_hid_dim_type") == "text_proj" and unet.get("encoder_hid_dim"):
        return unet["encoder_hid_dim"]
    return unet.get("cross_attention_dim")


def fault_of_inputs(unet: Mapping[str, Any]) -> str:
    """Which input beside latents, timestep and text a UNet needs; empty when none.

    unet: its configuration. Without these inputs it either fails, or makes other images.
    """
    for entry, inputs in INPUTS.items():
        value = unet.get(entry)
        needed = inputs.get(value, inputs.get(None))
        if value is not None and needed is not None:
            return f"its UNet needs the input {needed} ({entry} is {value!r}), which is not given"
    return ""


def fault_of_unet(unet_id: str, read: Read) -> str:
    """Why a UNet cannot take the place of a model's own, by their small files; empty if it can.

    read: gives the model's JSON files. What cannot be read is left to the loaders.
    """
    try:
        own, other = read("unet/config.json"), read_unet(unet_id)
        predicted = read(SCHEDULER).get("prediction_type", "epsilon")
    except Unknown:
        return ""
    name = other.get("_class_name", UNET)
    if name != UNET:
        return f"it is a {name}, no {UNET}"
    if text_width(other) != text_width(own):
        return f"it wants text of width {text_width(other)}, the model's is {text_width(own)} wide"
    for entry in ("in_channels", "out_channels"):
        ours, theirs = (unet.get(entry, 4) for unet in (own, other))
        if ours != theirs:
            return f"its {entry} are {theirs}, the model's {ours}"
    its = its_prediction(unet_id)
    if its not in (None, predicted):
        return f"it predicts {its}, as {SCHEDULER} beside it says, and the model's {predicted}"
    return fault_of_inputs(other)


def its_prediction(unet_id: str) -> str | None:
    """What the scheduler of the model says that a UNet is of; None where it says nothing."""
    places = [Path(unet_id), Path(unet_id).resolve().parent]
    found = [folder / SCHEDULER for folder in places if (folder / INDEX).is_file()]
    if not Path(unet_id).is_dir() and hub_file(unet_id, INDEX):
        found = [file for file in [hub_file(unet_id, SCHEDULER)] if file]
    try:
        return read_json(found[0], "").get("prediction_type") if found else None
    except Unknown:
        return None


# --- what its network does


# Of pure noise a network that predicts noise gives back that noise, and one that predicts v what is
# not there yet.


def fault_of_v(pipe: MemorizationPipeline) -> str:
    """Whether a network predicts noise, and its scheduler says v; empty if not."""
    if pipe.predicts != "v":
        return ""
    found = noise_correlation(pipe)
    if found is None or found <= IS_NOISE:
        return ""
    return (
        f"its scheduler says prediction_type v_prediction, and its UNet predicts noise: of pure "
        f"noise its output is that noise (correlation {found:.2f})"
    )


def doubt_of_noise(pipe: MemorizationPipeline) -> str:
    """Whether a network hardly predicts noise, as its scheduler has it; empty if it does."""
    if pipe.predicts != "epsilon":
        return ""
    found = noise_correlation(pipe)
    if found is None or found >= IS_NOT_NOISE:
        return ""
    return (
        "its UNet does not predict noise: of pure noise its output is another (correlation "
        f"{found:.2f}, about 1 in a trained one). If it predicts v, {SCHEDULER} must say "
        '"prediction_type": "v_prediction". A network that was never trained gives this too'
    )


@no_grad
def noise_correlation(pipe: MemorizationPipeline) -> float | None:
    """Correlation of the network's output for the empty prompt with its input, which is noise.

    None for a schedule that does not end in noise, and a network that cannot be asked here.
    """
    schedule = getattr(pipe.scheduler, "alphas_cumprod", None)
    if schedule is None or float(schedule[-1]) > SIGNAL**2:
        return None
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, pipe.latent_channels, SIDE, SIDE), generator=generator)
    x = noise.to(pipe.device, pipe.dtype)
    t = torch.tensor(len(schedule) - 1, device=pipe.device)
    try:
        output = pipe.predict(x, t, pipe.encode([""]))
    except Exception:  # whatever a layer raises: a size is tried before images are made
        return None
    pair = torch.stack([noise.flatten(), output.float().cpu().flatten()])
    found = float(torch.corrcoef(pair)[0, 1])
    return found if found == found else 0.0
