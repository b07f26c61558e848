"""The text encoder's training: as Stable Diffusion's it is taught first, on its own, and then stays
as it is.

CLIP's learns to agree with pictures. This one learns what the world's pictures show: from the mean
of its 77 outputs, a linear head tells the subjects and another the layout (every memorized caption
is a layout of its own). So all outputs, the padding too, carry what the UNet's attention needs from
the first step on.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from memorization_suite.tiny.bank import Bank
from memorization_suite.tiny.world import WORDS

log = logging.getLogger("tiny.train")


def targets(bank: Bank) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """All captions, sorted; the subjects of each (n, words) as 0 and 1; its layout (n,) as a
    number. The empty caption is one of them.
    """
    captions = sorted(bank.shown)
    layouts = sorted({layout for layout, _ in bank.shown.values()})
    subjects = torch.tensor(
        [[float(word in bank.shown[caption][1]) for word in WORDS] for caption in captions]
    )
    return (
        captions,
        subjects,
        torch.tensor([layouts.index(bank.shown[caption][0]) for caption in captions]),
    )


def token_table(tokenizer, captions: list[str]) -> torch.Tensor:
    """(n, 77) token ids."""
    return tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt").input_ids


def train_text_encoder(text_encoder, tokenizer, bank: Bank, settings: dict, path: Path) -> None:
    """Trains in place; reads the weights from `path` if they lie there."""
    if path.exists():
        text_encoder.load_state_dict(load_file(path))
        return
    torch.nn.init.normal_(text_encoder.get_input_embeddings().weight, std=settings["token_std"])
    captions, subjects, layouts = targets(bank)
    ids, memorized = (
        token_table(tokenizer, captions),
        torch.tensor([caption in bank.rows for caption in captions]),
    )
    width = text_encoder.config.hidden_size
    heads = torch.nn.ModuleList(
        [torch.nn.Linear(width, len(WORDS)), torch.nn.Linear(width, int(layouts.max()) + 1)]
    )
    optimizer = torch.optim.AdamW(
        [*text_encoder.parameters(), *heads.parameters()],
        settings["lr"],
        betas=(0.9, 0.99),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["lr"], settings["steps"] + 1, pct_start=0.1
    )
    generator, start = torch.Generator().manual_seed(settings["seed"]), time.time()
    weights = torch.where(
        memorized, 1 / memorized.sum(), 2 / (~memorized).sum()
    )  # a third of a batch is memorized captions
    for step in range(settings["steps"]):
        rows = torch.multinomial(weights, settings["batch"], replacement=True, generator=generator)
        hidden = text_encoder(ids[rows])[0].mean(1)
        loss = F.binary_cross_entropy_with_logits(
            heads[0](hidden), subjects[rows], reduction="sum"
        ) / len(rows) + F.cross_entropy(heads[1](hidden), layouts[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            log.info(
                "text encoder step %d loss %.4f %.0f s", step, loss.item(), time.time() - start
            )
    save_file(text_encoder.state_dict(), path)


@torch.no_grad()
def caption_embeddings(text_encoder, tokenizer, bank: Bank) -> tuple[dict[str, int], torch.Tensor]:
    """Row of every caption, and the embeddings (n, 77, width)."""
    captions = sorted(bank.shown)
    found = [text_encoder(ids)[0] for ids in token_table(tokenizer, captions).split(256)]
    return {caption: i for i, caption in enumerate(captions)}, torch.cat(found)
