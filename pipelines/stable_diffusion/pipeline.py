"""StableDiffusionPipeline with a mitigation: one loop for all methods."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from diffusers.utils.torch_utils import randn_tensor

from memorization_suite.pipelines.stable_diffusion.denoiser import StableDiffusionDenoiser
from memorization_suite.pipelines.stable_diffusion.fit import fault_of_inputs
from memorization_suite.pipelines.stable_diffusion.parts import (
    NOT_CHECKED,
    check_others,
    load_networks,
)
from memorization_suite.pipelines.stable_diffusion.tokens import fault_of_ends, fit_tokenizer
from memorization_suite.runs.notices import say
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.denoiser import Unusable
from memorization_suite.sampling.hooks import Hooks
from memorization_suite.sampling.sample import sample


class MemorizationPipeline(StableDiffusionDenoiser, StableDiffusionPipeline):
    """Stable Diffusion with a mitigation of memorization. Without one it is diffusers' own
    pipeline.

    pipe = MemorizationPipeline.from_pretrained("CompVis/stable-diffusion-v1-4")
    method = build_mitigation("per_sample", target_loss=0.9)
    images = pipe("a prompt", mitigation=method, num_images_per_prompt=4).images
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **options):
        """As diffusers' own, for a folder or hub id, but a model is refused that would not be the
        one that was trained: whose files lack tensors, or whose tokenizer does not fit
        (`runs.weights.Incomplete`, a ValueError).

        Where networks are built in another way (`parts.NOT_CHECKED`) their tensors are not checked.
        A tokenizer or text encoder that is given is taken as it is.
        """
        source = pretrained_model_name_or_path
        folder = Path(source)
        if not folder.is_dir():
            if str(source).count("/") > 1:  # no hub id: diffusers says so
                return super().from_pretrained(source, **options)
            folder = Path(cls.download(source, **options))
        networks = {}
        listed = {}
        others = [name for name in NOT_CHECKED if options.get(name)]
        if others:
            say(
                f"its networks are loaded by diffusers, with {others[0]}; whether they are whole "
                f"is not checked"
            )
        else:
            index = cls.load_config(folder)
            taken, _ = cls._get_signature_keys(cls)
            listed = {part: index[part] for part in taken if part in index}
            networks = load_networks(folder, listed, **options)
        try:
            pipe = super().from_pretrained(folder, **options | networks)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError):
            loaded = options.keys() | networks.keys()
            check_others(folder, {part: listed[part] for part in listed if part not in loaded})
            raise
        pipe.register_to_config(_name_or_path=str(source))
        if not {"tokenizer", "text_encoder"} & options.keys():
            fit_tokenizer(pipe)
        return pipe

    @torch.no_grad()
    def __call__(self, prompt=None, *args, mitigation: Hooks | None = None, **kwargs):
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
        fault = fault_of_inputs(self.unet.config) or fault_of_ends(self.tokenizer)
        if fault:
            raise Unusable(f"with a mitigation this model cannot be run: {fault}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        prompts = [one for one in prompts for _ in range(num_images_per_prompt)]
        height = height or self.native_size
        width = width or self.native_size
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
        made = sample(
            self,
            batch,
            latents.to(self._execution_device, self.dtype),
            mitigation,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )
        images, nsfw = made.final, None
        if output_type != "latent":
            images, nsfw = self.checked(made.final, output_type)
        self.maybe_free_model_hooks()
        return (
            StableDiffusionPipelineOutput(images=images, nsfw_content_detected=nsfw)
            if return_dict
            else (images, nsfw)
        )

    def draw_noise(self, rows: int, height: int, width: int, generator) -> torch.Tensor:
        """Unit-variance noise, the same draws as diffusers'."""
        shape = (rows, *self.latent_shape(height, width))
        return randn_tensor(
            shape, generator=generator, device=self._execution_device, dtype=self.dtype
        )

    def checked(self, latents: torch.Tensor, output_type: str):
        """Images and the safety checker's verdicts (None without one)."""
        decoded = self.decoded(latents)
        decoded, nsfw = self.run_safety_checker(decoded, self._execution_device, decoded.dtype)
        normal = [True] * len(decoded) if nsfw is None else [not flagged for flagged in nsfw]
        images = self.image_processor.postprocess(
            decoded, output_type=output_type, do_denormalize=normal
        )
        return images, nsfw
