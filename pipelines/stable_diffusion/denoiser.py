"""The answers of Stable Diffusion 1 and 2 to what the suite asks of a model family."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from memorization_suite.pipelines.kinds import side_of
from memorization_suite.pipelines.stable_diffusion import attention
from memorization_suite.pipelines.stable_diffusion.compiled import Compiled
from memorization_suite.pipelines.stable_diffusion.schedulers import name_of
from memorization_suite.runs.lazy import no_grad, np, torch
from memorization_suite.sampling.checkpointing import Again, checkpointed
from memorization_suite.sampling.denoiser import (
    PARTS,
    Conditioning,
    Denoiser,
    Edit,
    See,
    Unusable,
)

# Of CLIP's tokens the official code of Somepalli et al. draws from the first 49400.
CLIP_VOCABULARY = 49408
CLIP_DRAWN = 49400
# Pixels of images that the VAE decodes or encodes at once. Ten images of 512 pixels at once would
# take more memory than sampling them.
VAE_PIXELS = 2 * 512 * 512
# What is computed again for gradients, as a whole: with smaller parts more would be kept.
RECOMPUTED = ("ResnetBlock2D", "Transformer2DModel")


class StableDiffusionDenoiser(Denoiser):
    """Mixed into a diffusers pipeline, whose parts it uses by their names there."""

    unet: Any
    vae: Any
    tokenizer: Any
    text_encoder: Any
    scheduler: Any
    _execution_device: Any
    compiled: Compiled | None = None

    @property
    def network(self):  # type: ignore[override]
        return self.unet

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.unet.dtype

    @property
    def predicts(self) -> str:  # type: ignore[override]
        """Raises ValueError for prediction types other than epsilon and v_prediction."""
        kind = self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"the scheduler's prediction_type is {kind!r}; supported are 'epsilon' and "
                "'v_prediction'"
            )
        return kind[0] if kind == "v_prediction" else kind

    # --- images and latents ---

    @property
    def native_size(self) -> int:  # type: ignore[override]
        return side_of(self.unet.config.sample_size) * self.downsampling

    @property
    def latent_channels(self) -> int:  # type: ignore[override]
        return self.unet.config.in_channels

    @property
    def downsampling(self) -> int:  # type: ignore[override]
        return self.vae_scale_factor  # type: ignore[attr-defined]

    @no_grad
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        images = self.decoded(latents) * 0.5 + 0.5
        return images.clamp(0, 1).where(images.isfinite(), torch.nan)

    def decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """What the VAE makes of final latents, (n, 3, H, W) about in [-1, 1]."""
        scaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        height, width = latents.shape[-2:]
        slices = scaled.split(self.vae_images(height * width * self.downsampling**2))
        return torch.cat([self.vae.decode(part, return_dict=False)[0] for part in slices])

    def vae_images(self, pixels: int) -> int:
        """How many images of so many pixels the VAE takes at once."""
        return max(1, VAE_PIXELS // pixels)

    @no_grad
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        latents = []
        for part in images.split(self.vae_images(height * width)):
            encoded = self.vae.encode(part.to(self._execution_device, self.vae.dtype))
            latents.append(encoded.latent_dist.mode().float())
        return torch.cat(latents) * self.vae.config.scaling_factor

    # --- the sampler ---

    @property
    def initial_scale(self) -> float:  # type: ignore[override]
        return self.scheduler.init_noise_sigma

    @property
    def timesteps(self) -> torch.Tensor:  # type: ignore[override]
        return self.scheduler.timesteps

    def set_timesteps(self, num_inference_steps: int) -> None:
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)

    def alpha_sigma(self, t) -> tuple[float, float]:
        """alpha and sigma at timestep t, alpha^2 + sigma^2 = 1.

        Euler's timesteps may be fractional: sigma / alpha is interpolated linearly in t, as that
        scheduler does.
        """
        alphas_cumprod = self.scheduler.alphas_cumprod.cpu().double().numpy()
        ratios = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
        ratio = float(np.interp(float(t), np.arange(len(ratios)), ratios))
        alpha = (1 + ratio**2) ** -0.5
        return alpha, ratio * alpha

    def input_scale(self, t) -> float:
        """1 for DDIM, sqrt(sigma^2 + 1) for Euler."""
        one = torch.ones(1, dtype=torch.float64)
        return 1.0 / float(self.scheduler.scale_model_input(one, t))

    def scale_input(self, latents: torch.Tensor, t) -> torch.Tensor:
        return self.scheduler.scale_model_input(latents, t)

    def step(self, output: torch.Tensor, t, latents: torch.Tensor, generator=None) -> torch.Tensor:
        step = self.scheduler.step
        given = {"generator": generator, "eta": 0.0}  # as diffusers' pipeline gives them
        asked = inspect.signature(step).parameters
        more = {name: value for name, value in given.items() if name in asked}
        return step(output, t, latents, return_dict=False, **more)[0]

    def fork(self) -> StableDiffusionDenoiser:
        fork = copy.copy(self)
        fork.scheduler = copy.deepcopy(self.scheduler)
        return fork

    @property
    def sampler(self) -> str:
        return type(self.scheduler).__name__

    @property
    def scheduler_choice(self) -> str:
        return name_of(self.scheduler)

    # --- the network ---

    def predict(self, x: torch.Tensor, t, conditioning: Conditioning) -> torch.Tensor:
        unet = self.unet
        if self.compiled is not None and self.compiled.fits(x):
            unet = self.compiled.call
        return unet(x, t, encoder_hidden_states=conditioning.tokens, return_dict=False)[0]

    @no_grad
    def compile_for(self, rows: int, image_length: int, num_inference_steps: int) -> None:
        size = (rows, *self.latent_shape(image_length, image_length))
        if self.compiled is not None and self.compiled.size == size:
            return
        model = self.fork()
        model.compiled = Compiled(self.unet, size)
        model.set_timesteps(num_inference_steps)
        told = self.encode([""] * rows)
        try:
            model.predict(told.tokens.new_zeros(size), model.timesteps[0], told)
        except Exception as error:  # of a compiler, its absence, or a layer that it cannot take
            reason = str(error).strip().partition("\n")[0]
            raise Unusable(
                f"--compile is not possible here ({type(error).__name__}: {reason}). Leave it out"
            ) from error
        self.compiled = model.compiled

    def checkpointed(self, again: Again) -> AbstractContextManager[None]:
        blocks = [each for each in self.unet.modules() if type(each).__name__ in RECOMPUTED]
        return checkpointed(blocks, again)

    def to_noise(self, output: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
        """Epsilon from v or epsilon itself.

        With v = alpha e - sigma x0 and x = alpha x0 + sigma e: e = alpha v + sigma x. That is
        float32, since rounding the sum would drown alpha v (alpha is 0.07 at first).
        """
        if self.predicts == "epsilon":
            return output
        alpha, sigma = self.alpha_sigma(t)
        return alpha * output.float() + sigma * x.float()

    def to_output(self, noise_pred: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
        if self.predicts == "epsilon":
            return noise_pred
        alpha, sigma = self.alpha_sigma(t)
        v = (noise_pred.float() - sigma * x.float()) / alpha
        return v.to(x.dtype)

    # --- prompts ---

    @no_grad
    def encode(self, prompts: Sequence[str], *, padding: str | None = None) -> Conditioning:
        """Embeddings (n, 77, dim): each different prompt is encoded once."""
        different = list(dict.fromkeys(prompts))
        if padding is None:
            tokens = self.encode_prompt(  # type: ignore[attr-defined]
                different, self._execution_device, 1, False
            )[0]
        else:
            tokens = self.encode_padded(different, padding)
        return Conditioning(tokens[[different.index(prompt) for prompt in prompts]])

    def encode_padded(self, prompts: list[str], padding: str) -> torch.Tensor:
        """Embeddings as diffusers' `encode_prompt` makes them, with another padding token.

        Raises ValueError when the tokenizer does not know it.
        """
        padding_id = self.tokenizer.convert_tokens_to_ids(padding)
        if padding_id is None or (
            padding_id == self.tokenizer.unk_token_id and padding != self.tokenizer.unk_token
        ):
            raise ValueError(f"this model's tokenizer has no token {padding!r}")
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.max_tokens,
            truncation=True,
            return_tensors="pt",
        )
        for ids, prompt in zip(tokens.input_ids, prompts):
            ids[self.token_span(prompt).stop + 1 :] = padding_id
        device = self._execution_device
        mask = None
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(device)
        return self.text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]

    @property
    def max_tokens(self) -> int:  # type: ignore[override]
        return self.tokenizer.model_max_length

    @property
    def end_token(self) -> str:  # type: ignore[override]
        return self.tokenizer.eos_token

    def token_span(self, prompt: str) -> range:
        length = len(self.tokenizer(prompt, truncation=True).input_ids)
        return range(1, min(length, self.max_tokens) - 1)

    def token_count(self, prompt: str) -> int:
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def cut_text(self, prompt: str) -> str:
        first = len(self.token_span(prompt))
        knows_places = self.tokenizer.is_fast
        tokens = self.tokenizer(
            prompt, add_special_tokens=False, verbose=False, return_offsets_mapping=knows_places
        )
        rest = tokens.input_ids[first:]
        if not rest or not knows_places:
            return self.tokenizer.decode(rest).strip()
        begin, _ = tokens.offset_mapping[first]
        return prompt[begin:].strip()

    def token_texts(self, prompt: str) -> list[str]:
        """Without begin and end token and cut to the tokenizer's length; parts of a character by
        their name.
        """
        shortened = self.tokenizer(prompt, truncation=True, max_length=self.max_tokens)
        ids = shortened.input_ids[1:-1]
        texts = []
        for token, name in zip(ids, self.tokenizer.convert_ids_to_tokens(ids)):
            text = self.spell(token).strip()
            texts.append(text if text and "\ufffd" not in text else name.removesuffix("</w>"))
        return texts

    def vocabulary(self) -> Sequence[int]:
        """0..49399 of CLIP's own vocabulary, all but the special ones of another."""
        if len(self.tokenizer) == CLIP_VOCABULARY:
            return range(CLIP_DRAWN)
        return sorted(set(range(len(self.tokenizer))) - set(self.tokenizer.all_special_ids))

    def spell(self, token: int) -> str:
        return self.tokenizer.decode([token])

    # --- attention ---

    def attention_names(self, parts: Sequence[str] = PARTS) -> list[str]:
        return attention.cross_attentions(self.unet, parts)

    def open_attention(
        self, names: Sequence[str], *, edit: Edit | None = None, see: See | None = None
    ) -> AbstractContextManager[None]:
        def opened(name: str) -> attention.OpenAttention:
            return attention.OpenAttention(name, edit=edit, see=see)

        return attention.patched_attention(self.unet, opened, names)

    def value_projection(self, name: str) -> torch.nn.Linear:
        return self.unet.get_submodule(f"{name}.to_v")
