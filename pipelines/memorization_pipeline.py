"""StableDiffusionPipeline with a mitigation: one loop for all methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils.torch_utils import randn_tensor

from memorization_suite.mitigation.base import Mitigation
from memorization_suite.sampling import Batch, NoisePredictor, Prediction, image_seed
from memorization_suite.sampling.loop import OnStep, input_scale, plain_run, steps
from memorization_suite.sampling.noise import prompt_seed


@dataclass
class Sample:
    """What sampling made of a batch.

    initial: noise as drawn; adjusted: where the sampler starts, both of unit variance; final: what
    the VAE decodes, before division by its scaling factor; all (n, 4, h, w). unet_evals: UNet rows
    of each image (n,). numbers: the method's own figures, one per image (n,).
    """

    initial: torch.Tensor
    adjusted: torch.Tensor
    final: torch.Tensor
    unet_evals: torch.Tensor
    numbers: dict[str, torch.Tensor]


@torch.no_grad()
def denoise(
    scheduler,
    predictor: NoisePredictor,
    noise: torch.Tensor,
    mitigation: Mitigation,
    guidance_scale: float,
    on_step: OnStep | None = None,
    generator=None,
    batch: Batch | None = None,
    known: Prediction | None = None,
) -> Sample:
    """Samples latents from noise (n, 4, h, w) of unit variance, in the noise's dtype. The
    scheduler's timesteps are set.

    generator: one or one per image, for schedulers that draw noise at every step. batch: what the
    hooks are told about the images.
    known: the prediction of step 0, for a method that changes neither the noise nor the embeddings.
    on_step(step, prediction) is called before each step is taken; reading a half that was not
    computed costs UNet rows.
    """
    batch = batch or make_batch([""] * len(noise))
    batch.plain_run = lambda watch=None: plain_run(
        scheduler, predictor, noise, guidance_scale, watch
    )
    t = scheduler.timesteps[0]
    with mitigation.patch(predictor, batch):
        latents = noise * scheduler.init_noise_sigma
        first = scheduler.scale_model_input(
            latents, t
        ).float()  # what the UNet reads: the methods' coordinates
        numbers = batch.numbers | mitigation.edit_embeddings(predictor, first, t, batch)
        adjustment = mitigation.adjust_initial_noise(predictor, first, t, batch)
        if adjustment.x is not first:
            moved = (adjustment.x - first) * input_scale(scheduler, t)
            latents = (latents.float() + moved).to(
                noise.dtype
            )  # an image that was not moved keeps its bits
        adjusted, guidance = latents / scheduler.init_noise_sigma, mitigation.guidance(batch)
        final = steps(
            scheduler,
            predictor,
            latents,
            guidance,
            guidance_scale,
            on_step,
            generator,
            adjustment.prediction or known,
        )
    return Sample(
        noise,
        adjusted,
        final,
        predictor.unet_evals,
        numbers | adjustment.numbers | guidance.numbers(),
    )


def make_batch(
    prompts: list[str],
    seeds: list[int] | None = None,
    prompt_seeds: list[int] | None = None,
    alternatives: list[tuple[str, ...]] | None = None,
    pipe=None,
) -> Batch:
    """A batch with what is not given made up: seeds by position, one prompt seed for each different
    prompt.
    """
    different = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    return Batch(
        prompts,
        seeds or [image_seed(0, i, 0) for i in range(len(prompts))],
        prompt_seeds or [prompt_seed(0, different[prompt]) for prompt in prompts],
        alternatives or [()] * len(prompts),
        pipe,
    )


class MemorizationPipeline(StableDiffusionPipeline):
    """Stable Diffusion with a mitigation of memorization. Without one it is diffusers' own
    pipeline.

    pipe = MemorizationPipeline.from_pretrained("CompVis/stable-diffusion-v1-4",
    dtype=torch.bfloat16) images = pipe("a prompt", mitigation=build_mitigation("per_sample",
    target_loss=0.9), num_images_per_prompt=4).images
    """

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
        sample = self.sample(
            prompts,
            latents.to(self._execution_device, self.unet.dtype),
            mitigation,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt or "",
            generator=generator,
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

    def sample(
        self,
        prompts: list[str],
        noise: torch.Tensor,
        mitigation: Mitigation,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        negative_prompt: str = "",
        seeds: list[int] | None = None,
        prompt_seeds: list[int] | None = None,
        alternatives: list[tuple[str, ...]] | None = None,
        on_step: OnStep | None = None,
        generator=None,
        known: Prediction | None = None,
    ) -> Sample:
        """Latents for prompts[i] from noise[i].

        seeds, prompt_seeds, alternatives: one per image, see `Batch`. generator: for schedulers
        that draw noise at every step. known: see `denoise`.
        """
        mitigation.check(num_inference_steps)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        batch = make_batch(prompts, seeds, prompt_seeds, alternatives, self)
        batch.encoded = mitigation.edit_prompts(batch)
        text, empty = self.encode(batch.encoded), self.encode([negative_prompt] * len(prompts))
        predictor = NoisePredictor(self.unet, self.scheduler, text, empty)
        return denoise(
            self.scheduler,
            predictor,
            noise,
            mitigation,
            guidance_scale,
            on_step,
            generator,
            batch,
            known,
        )

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
