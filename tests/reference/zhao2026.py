"""Zhao et al., ICML 2026 (GUARD, and attenuation alone), told in loops: one image per call. Imports
nothing of the suite.
"""

import math
import statistics

import torch

from tests.reference.han2025 import alpha_bars, ddim_step, ddim_timesteps, encode


def spike_tokens(logits: torch.Tensor, tau: float) -> list[int]:
    """Tokens of one head (queries, tokens) that stand out, by their largest logit; the first token
    never does.
    """
    highest = [float(logits[:, k].max()) for k in range(logits.shape[1])]
    mu = statistics.mean(highest[1:])
    sd = statistics.stdev(highest[1:])
    return [k for k in range(1, len(highest)) if (highest[k] - mu) / (sd + 1e-6) > tau]


def attenuated_attention(
    attn, hidden: torch.Tensor, text: torch.Tensor, *, row: int, tau: float, a: float
) -> torch.Tensor:
    """Cross-attention whose spikes are multiplied by a in one row; the others are as usual."""
    rows = []
    for b in range(len(hidden)):
        query = attn.to_q(hidden[b])
        key = attn.to_k(text[b])
        value = attn.to_v(text[b])
        width = query.shape[1] // attn.heads
        heads = []
        for head in range(attn.heads):
            part = slice(head * width, (head + 1) * width)
            logits = query[:, part] @ key[:, part].T / math.sqrt(width)
            if b == row:
                for k in spike_tokens(logits, tau):
                    logits[:, k] = logits[:, k] * a
            weights = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
            heads.append(weights / weights.sum(dim=1, keepdim=True) @ value[:, part])
        rows.append(torch.cat(heads, dim=1))
    return attn.to_out[0](torch.stack(rows))


def orthogonalized(attraction: torch.Tensor, repulsion: torch.Tensor) -> torch.Tensor:
    """The released code's default: one image's attraction without its part along the repulsion,
    where their cosine is above 0.9.
    """
    dot = float((attraction * repulsion).sum())
    squares = float((repulsion**2).sum()) + 1e-8
    cosine = dot / (math.sqrt(float((attraction**2).sum()) + 1e-8) * math.sqrt(squares))
    if cosine <= 0.9:
        return attraction
    return attraction - max(-2.0, min(2.0, dot / squares)) * repulsion


@torch.no_grad()
def generate(
    unet,
    text_encoder,
    tokenizer,
    prompt: str,
    x: torch.Tensor,
    *,
    tau: float,
    a: float,
    blocks: str,
    num_steps: int,
    guidance_scale: float,
    repulsion: float | None,
    orthogonal: bool = False,
    zero_is_off: bool = False,
) -> torch.Tensor:
    """Final latents of one image. x: (1, 4, h, w). repulsion: r; None: attenuation alone, with
    ordinary guidance.

    Rows with repulsion: empty prompt, attenuated prompt, ordinary prompt. Without: empty prompt,
    attenuated prompt. zero_is_off: as in the script, attention is as usual everywhere when tau is
    not above 0.
    """

    def forward(attn):
        return lambda hidden, encoder_hidden_states=None, **kwargs: attenuated_attention(
            attn, hidden, encoder_hidden_states, row=1, tau=tau, a=a
        )

    changed = [
        module
        for name, module in unet.named_modules()
        if name.endswith("attn2")
        and (tau > 0 or not zero_is_off)
        and (blocks == "all" or name.startswith(("down_blocks", "mid_block")))
    ]
    for module in changed:
        module.forward = forward(module)
    try:
        empty = encode(tokenizer, text_encoder, "")
        text = encode(tokenizer, text_encoder, prompt)
        stacked = torch.cat([empty, text] if repulsion is None else [empty, text, text])
        for i, t in enumerate(ddim_timesteps(num_steps)):
            noises = unet(
                torch.cat([x] * len(stacked)), t, encoder_hidden_states=stacked
            ).sample.split(1)
            attraction = noises[1] - noises[0]
            noise = noises[0] + guidance_scale * attraction
            if repulsion is not None:
                away = noises[2] - noises[0]
                if orthogonal:
                    attraction = orthogonalized(attraction, away)
                noise = (
                    noises[0]
                    + guidance_scale * attraction
                    - repulsion * math.cos(math.pi * i / (2 * num_steps)) * away
                )
            x = ddim_step(x, noise, t, num_steps, alpha_bars())
    finally:
        for module in changed:
            del module.forward
    return x
