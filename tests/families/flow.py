"""A made-up family, as a plugin brings one: a flow with velocity output and a pooled embedding."""

import hashlib

import torch
from torch import nn
from torch.nn import functional as F

from memorization_suite.pipelines.family import Family, register
from memorization_suite.sampling import Conditioning, Denoiser


class Velocity(nn.Module):
    """v(z, s) under a prompt: no UNet, no cross-attention."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1)
        self.pull = nn.Linear(8, 3)

    def forward(self, z, tokens, pooled):
        wanted = self.pull(tokens.mean(1) + pooled)[:, :, None, None]
        return z - wanted + self.mix(torch.tanh(z * wanted))


class Flow(Denoiser):
    """z = (1 - s) x0 + s e, v = e - x0, s from 0.98 to 0."""

    predicts = "velocity"
    device = torch.device("cpu")
    dtype = torch.float32
    native_size = 16
    downsampling = 2
    latent_channels = 3

    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = Velocity()

    def set_timesteps(self, num_inference_steps):
        self.grid = torch.linspace(0.98, 0, num_inference_steps + 1)
        self.timesteps = self.grid[:-1]

    def alpha_sigma(self, t):
        return 1 - float(t), float(t)

    def encode(self, prompts, *, padding=None):
        seeds = [hashlib.sha256(prompt.encode()).digest()[0] for prompt in prompts]
        tokens = [torch.randn(5, 8, generator=torch.Generator().manual_seed(k)) for k in seeds]
        return Conditioning(torch.stack(tokens), {"pooled": torch.stack(tokens)[:, 0]})

    def predict(self, x, t, conditioning):
        return self.network(x, conditioning.tokens, conditioning.others["pooled"])

    def to_noise(self, output, x, t):
        return x + self.alpha_sigma(t)[0] * output

    def to_output(self, noise_pred, x, t):
        return (noise_pred - x) / self.alpha_sigma(t)[0]

    def step(self, output, t, latents, generator=None):
        following = self.grid[self.grid.tolist().index(float(t)) + 1]
        return latents + (following - t) * output

    def decode(self, latents):
        return F.interpolate(latents.sigmoid(), scale_factor=self.downsampling)


@register("toy_flow", title="toy flow", pipelines=("ToyFlowPipeline",))
class ToyFlow(Family):
    """Models of the class above."""

    def load(self, source, *, unet_id, dtype, device, scheduler):
        return Flow()
