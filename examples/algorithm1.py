"""Algorithm 1 of Han et al. (NeurIPS 2025) on the embedded model: diffusers, torch, a loop.

python examples/algorithm1.py "The Broken Lantern and the Harlow Tale"  # writes algorithm1.png
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait sleep

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

MODEL = Path(__file__).parent.parent / "tiny" / "weights" / "tiny"
FLAGS = {"images": (6, 1, 64), "M": (4, 0, 1000), "seed": (2, 0, 2**63 - 1)}  # default, bounds
FLAGS |= {"rho": (5.0, 0, 1000), "gamma": (5.0, 0, 1000)}


def load(folder=MODEL):
    """The model in float32, its text encoder and UNet frozen."""
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.unet.requires_grad_(False)
    return pipe


def encode(pipe, prompt):
    """Text embedding, (1, 77, dim)."""
    ids = pipe.tokenizer(
        prompt, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return pipe.text_encoder(ids)[0]


@torch.no_grad()
def algorithm1(pipe, prompt, x, rho=50.0, gamma=0.7, M=2, tau=900, guidance_scale=7.0, steps=50):
    """Latents from unit-variance noise x (n, 4, h, w). M=0 and tau=1000: plain guidance."""
    scheduler = pipe.scheduler
    scheduler.set_timesteps(steps)
    c = encode(pipe, prompt).expand(len(x), -1, -1)
    empty = encode(pipe, "").expand(len(x), -1, -1)

    def e(x, t, embeds):
        return pipe.unet(x, t, encoder_hidden_states=embeds).sample

    def conditional(x):  # noise prediction at the first step
        T = scheduler.timesteps[0]
        return e(x, T, c) - e(x, T, empty)

    for _ in range(M):  # adjust the initial noise
        g = conditional(x)
        norm = g.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        delta = rho * g / norm  # ascent direction of its norm, length rho
        x = x - gamma * (conditional(x + delta) - g)  # descend
    for t in scheduler.timesteps:  # sample; guidance from tau on
        noise_pred = e(x, t, empty)
        if t <= tau:
            noise_pred = noise_pred + guidance_scale * (e(x, t, c) - noise_pred)
        x = scheduler.step(noise_pred, t, x).prev_sample
    return x


@torch.no_grad()
def decode(pipe, latents):
    """PIL images."""
    return pipe.image_processor.postprocess(
        pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.error = lambda message: parser.exit(2, f"algorithm1.py: {message}\n")
    parser.add_argument("prompt", nargs="?", default="The Broken Lantern and the Harlow Tale")
    for name, (default, _, _) in FLAGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    args = parser.parse_args()
    for name, (_, least, most) in FLAGS.items():
        if not least <= getattr(args, name) <= most:
            parser.error(f"--{name} {getattr(args, name)} must be from {least} to {most}")
    pipe = load()
    noise = torch.randn(args.images, 4, 16, 16, generator=torch.Generator().manual_seed(args.seed))
    plain = decode(pipe, algorithm1(pipe, args.prompt, noise, M=0, tau=1000))
    adjusted = decode(
        pipe, algorithm1(pipe, args.prompt, noise, rho=args.rho, gamma=args.gamma, M=args.M)
    )
    sheet = Image.new("RGB", (args.images * 132, 264), "white")
    for row, images in enumerate((plain, adjusted)):
        for i, image in enumerate(images):
            sheet.paste(image.resize((128, 128)), (i * 132, row * 132))
    sheet.save("algorithm1.png")
    print("algorithm1.png: above without, below with the adjusted noise, from the same seeds")


if __name__ == "__main__":
    main()
