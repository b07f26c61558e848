"""Han et al., NeurIPS 2025, as its official code runs it (SD 1.4, DDIM), told in loops. Imports
nothing of the suite.

What counts as official here: one global seed; per prompt one draw for all its images; embeddings
stacked unconditional half first; both halves of guidance in every UNet call; the batch-wise
adjuster does not scale the UNet's input; guidance is off (scale 0) in steps 0..apply_cfg_step after
it, and on from step 0 after the per-sample adjuster.
"""

import math
from types import SimpleNamespace

import torch
from PIL import Image


def alpha_bars() -> list[float]:
    """Cumulative products of 1 - beta: 1000 betas, evenly spaced in square root from 0.00085 to
    0.012.
    """
    bars = []
    product = 1.0
    low = math.sqrt(0.00085)
    high = math.sqrt(0.012)
    for k in range(1000):
        product *= 1.0 - (low + (high - low) * k / 999) ** 2
        bars.append(product)
    return bars


def ddim_timesteps(num_steps: int) -> list[int]:
    """Leading spacing with an offset of one, downwards: 981, 961, ..., 1 for 50 steps."""
    jump = 1000 // num_steps
    return [k * jump + 1 for k in reversed(range(num_steps))]


def ddim_step(
    x: torch.Tensor, e: torch.Tensor, t: int, num_steps: int, bars: list[float]
) -> torch.Tensor:
    """Deterministic DDIM (eta 0); the step after the last lands on the first entry of the schedule,
    not on alpha 1.
    """
    earlier = t - 1000 // num_steps
    bar = bars[t]
    bar_earlier = bars[max(earlier, 0)]
    x0 = (x - math.sqrt(1 - bar) * e) / math.sqrt(bar)
    return math.sqrt(bar_earlier) * x0 + math.sqrt(1 - bar_earlier) * e


def encode(tokenizer, text_encoder, prompt: str) -> torch.Tensor:
    """Embedding of one prompt, (1, 77, dim), padded and cut to 77 tokens."""
    ids = tokenizer(
        prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return text_encoder(ids.to(text_encoder.device))[0]


def both_halves(
    unet, x: torch.Tensor, t: int, stacked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unconditional and text noise at x, from one UNet call on x twice. stacked: (2n, 77, dim)."""
    noise = unet(torch.cat([x, x]), t, encoder_hidden_states=stacked).sample
    return noise[: len(x)], noise[len(x) :]


@torch.no_grad()
def official_batch_wise(
    unet,
    x: torch.Tensor,
    t: int,
    stacked: torch.Tensor,
    *,
    rho: float,
    gamma: float,
    adj_iters: int,
) -> torch.Tensor:
    """Adjusted noise of the images of one prompt; each image's probe has length rho."""
    for _ in range(adj_iters):
        uncond, text = both_halves(unet, x, t, stacked)
        g = text - uncond
        probe = torch.empty_like(g)
        for b in range(len(g)):
            probe[b] = rho * g[b] / math.sqrt(float((g[b] ** 2).sum()))
        uncond, text = both_halves(unet, x + probe, t, stacked)
        x = x - gamma * ((text - uncond) - g)
    return x


def official_per_sample(
    unet,
    x: torch.Tensor,
    t: int,
    stacked: torch.Tensor,
    *,
    lr: float,
    target_loss: float,
    optim_iters: int,
) -> tuple[torch.Tensor, list[int]]:
    """Adjusted noise, and updates of each image; one image after the other, each until its
    magnitude is <= target_loss or the cap is reached.
    """
    images = []
    updates = []
    n = len(x)
    for b in range(n):
        latent = x[b : b + 1].clone().requires_grad_(True)
        optimizer = torch.optim.AdamW([latent], lr=lr)
        pair = torch.cat([stacked[b : b + 1], stacked[b + n : b + n + 1]])
        done = 0
        for _ in range(optim_iters):
            uncond, text = both_halves(unet, latent, t, pair)
            loss = torch.norm(text - uncond)
            if float(loss.detach()) <= target_loss:
                break
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
        images.append(latent.detach())
        updates.append(done)
    unet.zero_grad(set_to_none=True)  # backward() filled these too
    return torch.cat(images), updates


def official_generate(
    unet,
    text_encoder,
    tokenizer,
    prompts: list[str],
    *,
    n: int,
    shape: tuple[int, int, int],
    seed: int,
    num_steps: int,
    guidance_scale: float,
    batch_wise: dict | None = None,
    per_sample: dict | None = None,
    apply_cfg_step: int = 4,
) -> tuple[list[torch.Tensor], list[list[int]]]:
    """Final latents (n, 4, h, w) and updates (n) for each prompt in file order.

    batch_wise, per_sample: settings of the adjuster, None: not used. With batch_wise guidance is
    off for i <= apply_cfg_step.
    """
    torch.manual_seed(seed)
    bars = alpha_bars()
    timesteps = ddim_timesteps(num_steps)
    empty = encode(tokenizer, text_encoder, "")
    latents = []
    updates = []
    for prompt in prompts:
        stacked = torch.cat([empty] * n + [encode(tokenizer, text_encoder, prompt)] * n)
        x = torch.randn((n, *shape)).to(empty)
        done = [0] * n
        if batch_wise is not None:
            x = official_batch_wise(unet, x, timesteps[0], stacked, **batch_wise)
        if per_sample is not None:
            x, done = official_per_sample(unet, x, timesteps[0], stacked, **per_sample)
        for i, t in enumerate(timesteps):
            with torch.no_grad():
                uncond, text = both_halves(unet, x, t, stacked)
            scale = 0.0 if batch_wise is not None and i <= apply_cfg_step else guidance_scale
            x = ddim_step(x, uncond + scale * (text - uncond), t, num_steps, bars)
        latents.append(x)
        updates.append(done)
    return latents, updates


@torch.no_grad()
def official_pictures(vae, latents: torch.Tensor) -> list[Image.Image]:
    """Images of final latents (n, 4, h, w), all decoded at once."""
    decoded = vae.decode(latents / vae.config.scaling_factor).sample
    pixels = (decoded / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()
    return [Image.fromarray(each) for each in (pixels * 255).round().astype("uint8")]


class NoiseOfVelocity(torch.nn.Module):
    """The noise that a network's velocity stands for: e = alpha v + sigma x. Whole t."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet
        self.bars = alpha_bars()

    def forward(self, x, t, encoder_hidden_states):
        v = self.unet(x, t, encoder_hidden_states=encoder_hidden_states).sample
        bar = self.bars[t]
        return SimpleNamespace(sample=math.sqrt(bar) * v + math.sqrt(1 - bar) * x)


def epsilon_from_v(v: list[float], z: list[float], t: int) -> list[float]:
    """Number by number: v = alpha e - sigma x0 and z = alpha x0 + sigma e, solved for e by
    eliminating x0. Whole t.
    """
    bar = alpha_bars()[t]
    alpha = math.sqrt(bar)
    sigma = math.sqrt(1.0 - bar)
    e = []
    for one_v, one_z in zip(v, z):
        # z / alpha gives x0 = (z - sigma e) / alpha; put into v:
        # v = alpha e - sigma z / alpha + sigma^2 e / alpha.
        e.append((one_v + sigma * one_z / alpha) / (alpha + sigma**2 / alpha))
    return e


def epsilon_from_v_euler(v: list[float], z: list[float], t: float) -> list[float]:
    """The same in Euler's numbers: e = (v + sigma_E z) / sqrt(1 + sigma_E^2), sigma_E interpolated
    between whole timesteps.
    """
    bars = alpha_bars()
    below = min(int(math.floor(t)), 998)
    lower, upper = (math.sqrt((1.0 - bars[k]) / bars[k]) for k in (below, below + 1))
    sigma_e = lower + (t - below) * (upper - lower)
    e = []
    for one_v, one_z in zip(v, z):
        e.append((one_v + sigma_e * one_z) / math.sqrt(1.0 + sigma_e**2))
    return e
