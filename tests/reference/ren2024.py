"""Ren et al., ECCV 2024, inference-time mitigation, told in loops: one image per call, rows
[empty prompt, prompt]. Imports nothing of the suite.
"""

import math

import torch

from tests.reference.han2025 import alpha_bars, ddim_step, ddim_timesteps, encode


def scaled_attention(
    attn, hidden: torch.Tensor, text: torch.Tensor, *, c1: float, mask_length: int, additive: bool
) -> torch.Tensor:
    """Cross-attention of two rows, the second of which has the prompt. mask_length: tokens that may
    be attended to, in both rows.
    """
    rows = []
    for row in range(2):
        query = attn.to_q(hidden[row])
        key = attn.to_k(text[row])
        value = attn.to_v(text[row])
        width = query.shape[1] // attn.heads
        heads = []
        for head in range(attn.heads):
            part = slice(head * width, (head + 1) * width)
            logits = query[:, part] @ key[:, part].T / math.sqrt(width)
            for token in range(mask_length, logits.shape[1]):
                logits[:, token] = -math.inf
            if row == 1:
                logits[:, 0] = logits[:, 0] + math.log(c1) if additive else logits[:, 0] * c1
            weights = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
            heads.append(weights / weights.sum(dim=1, keepdim=True) @ value[:, part])
        rows.append(torch.cat(heads, dim=1))
    return attn.to_out[0](torch.stack(rows))


@torch.no_grad()
def generate(
    unet,
    text_encoder,
    tokenizer,
    prompt: str,
    x: torch.Tensor,
    *,
    c1: float,
    cross_attn_mask: bool,
    mask_length_minis1: bool,
    num_steps: int,
    guidance_scale: float,
    additive: bool = False,
) -> torch.Tensor:
    """Final latents of one image. x: (1, 4, h, w)."""
    mask_length = 77
    if cross_attn_mask:
        mask_length = min(len(tokenizer(prompt).input_ids), 77) - int(mask_length_minis1)

    def forward(attn):
        return lambda hidden, encoder_hidden_states=None, **kwargs: scaled_attention(
            attn, hidden, encoder_hidden_states, c1=c1, mask_length=mask_length, additive=additive
        )

    changed = [module for name, module in unet.named_modules() if name.endswith("attn2")]
    for module in changed:
        module.forward = forward(module)
    try:
        stacked = torch.cat(
            [encode(tokenizer, text_encoder, ""), encode(tokenizer, text_encoder, prompt)]
        )
        for t in ddim_timesteps(num_steps):
            uncond, text = unet(torch.cat([x, x]), t, encoder_hidden_states=stacked).sample.chunk(2)
            x = ddim_step(x, uncond + guidance_scale * (text - uncond), t, num_steps, alpha_bars())
    finally:
        for module in changed:
            del module.forward
    return x
