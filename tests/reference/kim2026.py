"""Kim and No, CVPR Findings 2026: the padding and end token of CLIP, as the official script treats
them. Imports nothing of the suite.

The script sets the tokenizer's padding token, encodes, and writes zeros over embeddings. Its
pipeline then encodes the empty prompt with the same tokenizer, so that the unconditional half has
the new padding too, but no zeros.
"""

import torch


def token_row(tokenizer, prompt: str, padding_token: str | None) -> tuple[list[int], int]:
    """77 ids of a prompt and the position of its end token. padding_token None: as the tokenizer
    pads.
    """
    padding = (
        tokenizer.pad_token_id if padding_token is None else tokenizer.get_vocab()[padding_token]
    )
    words = tokenizer(prompt, add_special_tokens=False).input_ids[:75]
    ids = [tokenizer.bos_token_id]
    for word in words:
        ids.append(word)
    end = len(ids)
    ids.append(tokenizer.eos_token_id)
    while len(ids) < 77:
        ids.append(padding)
    return ids, end


@torch.no_grad()
def embedding(
    tokenizer,
    text_encoder,
    prompt: str,
    *,
    padding_token: str | None,
    end_to_zero: bool,
    share_to_zero: float,
) -> torch.Tensor:
    """(1, 77, dim). share_to_zero: of the padding, the first int(share * number) positions."""
    ids, end = token_row(tokenizer, prompt, padding_token)
    embeds = text_encoder(torch.tensor([ids]))[0].clone()
    if end_to_zero:
        embeds[0, end] = 0
    for k in range(int((77 - (end + 1)) * share_to_zero)):
        embeds[0, end + 1 + k] = 0
    return embeds


def stacked(
    tokenizer, text_encoder, prompts: list[str], *, uncond_padding_token: str | None, **settings
) -> torch.Tensor:
    """Embeddings of the empty prompt for every image, then of the prompts, (2n, 77, dim)."""
    plain = {"padding_token": uncond_padding_token, "end_to_zero": False, "share_to_zero": 0.0}
    rows = [embedding(tokenizer, text_encoder, "", **plain) for _ in prompts]
    rows += [embedding(tokenizer, text_encoder, prompt, **settings) for prompt in prompts]
    return torch.cat(rows)
