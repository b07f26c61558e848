"""The text encoder's training: as Stable Diffusion's it is taught first, on its own, and then stays
as it is.

CLIP's learns to agree with pictures. This one learns what the world's pictures show. Linear heads
on the mean of its 77 outputs tell the subjects, the first and the second of them, and the layout
(every memorized caption is a layout of its own). So all outputs, the padding too, carry what the
UNet's attention needs from the first step on.
"""

from __future__ import annotations

from pathlib import Path

from memorization_suite.runs.lazy import F, Lazy, nn, no_grad, torch
from memorization_suite.tiny.bank import Bank
from memorization_suite.tiny.fit import fit
from memorization_suite.tiny.world import WORDS

safetensors = Lazy("safetensors.torch")


def targets(bank: Bank) -> tuple[list[str], torch.Tensor, torch.Tensor, torch.Tensor]:
    """All captions, sorted; the subjects of each (n, words) as 0 and 1; its first and its second
    one (n, 2) as numbers, one more than the last word where there is none; its layout (n,) as a
    number. The empty caption is one of them.
    """
    captions = sorted(bank.shown)
    names = sorted({layout for layout, _ in bank.shown.values()})
    subjects = torch.zeros(len(captions), len(WORDS))
    layouts = torch.zeros(len(captions), dtype=torch.long)
    order = torch.full((len(captions), 2), len(WORDS))
    for i, caption in enumerate(captions):
        layout, shown = bank.shown[caption]
        layouts[i] = names.index(layout)
        for place, word in enumerate(shown):
            subjects[i, WORDS.index(word)] = 1
            order[i, place] = WORDS.index(word)
    return captions, subjects, order, layouts


def token_table(tokenizer, captions: list[str]) -> torch.Tensor:
    """(n, 77) token ids."""
    return tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt").input_ids


def train_text_encoder(text_encoder, tokenizer, bank: Bank, settings: dict, path: Path) -> None:
    """Trains in place; reads the weights from `path` if they lie there.

    settings: table [text] of config.toml.
    """
    if path.exists():
        text_encoder.load_state_dict(safetensors.load_file(path))
        return
    nn.init.normal_(text_encoder.get_input_embeddings().weight, std=settings["token_std"])
    captions, subjects, order, layouts = targets(bank)
    ids = token_table(tokenizer, captions)
    weights = caption_weights(captions, bank)
    width = text_encoder.config.hidden_size
    subject_head = nn.Linear(width, len(WORDS))
    order_heads = nn.ModuleList(nn.Linear(width, len(WORDS) + 1) for _ in range(2))
    layout_head = nn.Linear(width, int(layouts.max()) + 1)
    generator = torch.Generator().manual_seed(settings["seed"])

    def loss_at(step: int) -> torch.Tensor:
        rows = torch.multinomial(weights, settings["batch"], replacement=True, generator=generator)
        hidden = text_encoder(ids[rows])[0].mean(1)
        of_subjects = F.binary_cross_entropy_with_logits(
            subject_head(hidden), subjects[rows], reduction="sum"
        )
        of_order = sum(
            F.cross_entropy(head(hidden), order[rows, place])
            for place, head in enumerate(order_heads)
        )
        of_layout = F.cross_entropy(layout_head(hidden), layouts[rows])
        return of_subjects / len(rows) + of_order + of_layout

    trained = nn.ModuleList([text_encoder, subject_head, order_heads, layout_head])
    fit("text encoder", trained, loss_at, settings=settings, warm_up=0.1)
    # Half precision, as it is exported: the UNet learns from the exported one's outputs.
    safetensors.save_file(text_encoder.half().state_dict(), path)
    text_encoder.float()


def caption_weights(captions: list[str], bank: Bank) -> torch.Tensor:
    """How often each is drawn, (n,): a third of a batch is memorized captions."""
    memorized = torch.tensor([caption in bank.rows for caption in captions])
    ordinary = ~memorized
    return torch.where(memorized, 1 / memorized.sum(), 2 / ordinary.sum())


@no_grad
def caption_embeddings(text_encoder, tokenizer, bank: Bank) -> dict[str, torch.Tensor]:
    """Caption -> its embedding (77, width), for every caption."""
    captions = sorted(bank.shown)
    ids = token_table(tokenizer, captions)
    embeddings = [text_encoder(batch)[0] for batch in ids.split(256)]
    return dict(zip(captions, torch.cat(embeddings)))
