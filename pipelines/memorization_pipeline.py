"""StableDiffusionPipeline with a mitigation: one loop for all methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils.torch_utils import randn_tensor

from memorization_suite.mitigation.base import Mitigation
from memorization_suite.sampling import Batch, NoisePredictor, Prediction, initial_noise
from memorization_suite.sampling.loop import OnStep, input_scale, plain_run, steps


@dataclass
class Sample:
    """What sampling made of a batch; latents are (n, 4, h, w)."""

    # Noise as drawn, unit variance.
    initial: torch.Tensor
    # Where the sampler starts, unit variance.
    adjusted: torch.Tensor
    # What the VAE decodes, before division by its scaling factor.
    final: torch.Tensor
    # UNet rows of each image (n,).
    unet_evals: torch.Tensor
    # The method's own figures, one an image (n,).
    numbers: dict[str, torch.Tensor]


@torch.no_grad()
def denoise(
    predictor: NoisePredictor,
    noise: torch.Tensor,
    batch: Batch,
    mitigation: Mitigation,
    guidance_scale: float,
    on_step: OnStep | None = None,
) -> Sample:
    """Samples latents from noise (n, 4, h, w) of unit variance, in the noise's dtype.

    The mitigation's hooks run first: patch, edit_embeddings, adjust_initial_noise, guidance; then
    the loop. The scheduler's timesteps are set. on_step(step, prediction) is called before each
    step is taken; what it reads of a prediction that was not computed yet costs UNet rows.
    """
    scheduler = predictor.scheduler
    batch.plain_run = lambda watch=None: plain_run(predictor, noise, guidance_scale, watch)
    t = scheduler.timesteps[0]
    with mitigation.patch(predictor, batch):
        latents = noise * scheduler.init_noise_sigma
        # What the UNet reads: the methods' coordinates.
        first = scheduler.scale_model_input(latents, t).float()
        numbers = batch.numbers | mitigation.edit_embeddings(predictor, first, t, batch)
        adjustment = mitigation.adjust_initial_noise(predictor, first, t, batch)
        if adjustment.x is not first:
            # An image that was not moved keeps its bits.
            moved = (adjustment.x - first) * input_scale(scheduler, t)
            latents = (latents.float() + moved).to(noise.dtype)
        adjusted = latents / scheduler.init_noise_sigma
        if not is_at(batch.first, adjustment.x):
            batch.first = None
        guidance = mitigation.guidance(batch)
        final = steps(predictor, latents, batch, guidance, guidance_scale, on_step=on_step)
    numbers = numbers | adjustment.numbers | guidance.numbers()
    return Sample(noise, adjusted, final, predictor.unet_evals, numbers)


def is_at(prediction: Prediction | None, x: torch.Tensor) -> bool:
    """Whether this is a prediction at x."""
    if prediction is None or prediction.x is x:
        return prediction is not None
    return torch.equal(prediction.x.float(), x.float())


class MemorizationPipeline(StableDiffusionPipeline):
    """Stable Diffusion with a mitigation of memorization. Without one it is diffusers' own
    pipeline.

    pipe = MemorizationPipeline.from_pretrained("CompVis/stable-diffusion-v1-4")
    method = build_mitigation("per_sample", target_loss=0.9)
    images = pipe("a prompt", mitigation=method, num_images_per_prompt=4).images
    """

    if TYPE_CHECKING:  # diffusers sets them when it makes or moves the pipeline
        unet: Any
        vae: Any
        tokenizer: Any
        text_encoder: Any
        scheduler: Any
        device: Any

    @torch.no_grad()
    def __call__(self, prompt=None, *args, mitigation: Mitigation | None = None, **kwargs):
        """Images for one prompt or several; the arguments are diffusers' own, and `mitigation`.

        With a mitigation these are understood: height, width, num_inference_steps, guidance_scale,
        negative_prompt, num_images_per_prompt, generator, latents (unit-variance noise),
        output_type, return_dict. Another raises TypeError. negative_prompt is one text for all
        images; it takes the empty prompt's place, in magnitudes too.
        """
        if mitigation is None:
            return super().__call__(prompt, *args, **kwargs)
        return self._mitigated(prompt, *args, mitigation=mitigation, **kwargs)

    def _mitigated(
        self,
        prompt,
        height=None,
        width=None,
        num_inference_steps=50,
        *,
        mitigation,
        guidance_scale=7.5,
        negative_prompt="",
        num_images_per_prompt=1,
        generator=None,
        latents=None,
        output_type="pil",
        return_dict=True,
    ):
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        prompts = [one for one in prompts for _ in range(num_images_per_prompt)]
        size = self.unet.config.sample_size * self.vae_scale_factor
        height, width = height or size, width or size
        if not isinstance(negative_prompt, (str, type(None))):
            raise ValueError(
                f"with a mitigation negative_prompt is one text, not {negative_prompt!r}"
            )
        self.check_inputs(prompts, height, width, None)
        if latents is None:
            latents = self.draw_noise(len(prompts), height, width, generator)
        batch = Batch.of_captions(
            prompts, negative_prompt=negative_prompt or "", generator=generator
        )
        sample = self.sample(
            batch,
            latents.to(self._execution_device, self.unet.dtype),
            mitigation,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        if output_type == "latent":
            images, nsfw = sample.final, None
        else:
            images, nsfw = self.decode(sample.final, output_type)
        self.maybe_free_model_hooks()
        return (
            StableDiffusionPipelineOutput(images=images, nsfw_content_detected=nsfw)
            if return_dict
            else (images, nsfw)
        )

    def draw_noise(self, rows: int, height: int, width: int, generator) -> torch.Tensor:
        """Unit-variance noise, the same draws as diffusers'."""
        shape = (
            rows,
            self.unet.config.in_channels,
            height // self.vae_scale_factor,
            width // self.vae_scale_factor,
        )
        return randn_tensor(
            shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype
        )

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> torch.Tensor:
        """(n, 77, dim): each different prompt is encoded once."""
        different = list(dict.fromkeys(prompts))
        embeds = self.encode_prompt(different, self._execution_device, 1, False)[0]
        return embeds[[different.index(prompt) for prompt in prompts]]

    def predictor(self, batch: Batch, num_inference_steps: int) -> NoisePredictor:
        """Predicted noise of a batch under its encoded texts; the scheduler's timesteps are set."""
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        text = self.encode(batch.encoded or batch.prompts)
        empty = self.encode([batch.negative_prompt] * len(batch))
        return NoisePredictor(self.unet, self.scheduler, text, empty)

    def sample(
        self,
        batch: Batch,
        noise: torch.Tensor,
        mitigation: Mitigation,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        on_step: OnStep | None = None,
    ) -> Sample:
        """Latents for image i of the batch from noise[i]. Raises ValueError.

        The batch stays as it is, so that it can be sampled again with another method.
        """
        mitigation.check(num_inference_steps)
        batch = replace(batch, pipe=self, state={}, numbers={})
        batch.encoded = mitigation.edit_prompts(batch)
        predictor = self.predictor(batch, num_inference_steps)
        return denoise(predictor, noise, batch, mitigation, guidance_scale, on_step)

    def latent_shape(self, image_length: int) -> tuple[int, int, int]:
        """Shape of a latent for square images of this side, in pixels."""
        side = image_length // self.vae_scale_factor
        return self.unet.config.in_channels, side, side

    def initial_noise(self, batch: Batch, image_length: int) -> torch.Tensor:
        """Unit-variance noise of the images' seeds, (n, 4, h, w) in the UNet's dtype."""
        drawn = initial_noise(batch.seeds, self.latent_shape(image_length))
        return drawn.to(self.device, self.unet.dtype)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, output_type: str = "pil"):
        """Images and the safety checker's verdicts (None without one)."""
        decoded = self.vae.decode(
            latents.to(self.vae.dtype) / self.vae.config.scaling_factor, return_dict=False
        )[0]
        decoded, nsfw = self.run_safety_checker(decoded, self._execution_device, decoded.dtype)
        normal = [True] * len(decoded) if nsfw is None else [not flagged for flagged in nsfw]
        return self.image_processor.postprocess(
            decoded, output_type=output_type, do_denormalize=normal
        ), nsfw
