"""Entropy of cross-attention: Ren et al., ECCV 2024."""

from __future__ import annotations

from functools import reduce

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.denoiser import See


def entropy(attention: torch.Tensor) -> torch.Tensor:
    """-sum a ln a over the last axis; a probability of zero adds nothing."""
    return -torch.special.xlogy(attention, attention).sum(-1)


class TextAttention:
    """Keeps each layer's attention in the text rows of the newest calls, mean over heads and
    queries.
    """

    def __init__(self, look: Look):
        self.look = look
        # In the order of their calls, (n, tokens) each.
        self.layers: dict[str, torch.Tensor] = {}

    def see(self, layer: str, probs: torch.Tensor) -> None:
        """probs: (rows, heads, queries, tokens)."""
        call = self.look.predictor.call
        text_rows = call.rows_of("text")
        # At guidance scales 0 and 1 each half has a call of its own.
        if not text_rows.any():
            return
        mean = probs[text_rows.to(probs.device)].mean((1, 2))
        if layer not in self.layers:
            self.layers[layer] = mean.new_zeros(len(self.look.batch), mean.shape[1])
        images = call.image_of_row()[text_rows]
        self.layers[layer][images.to(mean.device)] = mean


def keeps_text_rows(look: Look, layers: list[str]) -> dict[str, See]:
    """Keeps `attention` of these layers in the step that comes, a `TextAttention`."""
    kept = TextAttention(look)
    look.keep(attention=kept)
    return dict.fromkeys(layers, kept.see)


@register(
    "attention_entropy",
    paper="Ren et al., ECCV 2024, D",
    cost="2N",
    code="renjie3/MemAttn",
    compared="equal to a transcription; --difference signed is the official code's",
)
class AttentionEntropy(Detector):
    """D: entropy of the layers' mean cross-attention over the last fifth of the steps, plus the
    change of the summary tokens' part since step 0.

    Summary tokens: the end token and the padding. Source: the paper, with absolute changes; the
    official code takes them with their sign.
    """

    difference: str = flag(
        "absolute", "change of the summary tokens' entropy", choices=("absolute", "signed")
    )

    def attention(self, look: Look, index: int) -> dict[str, See]:
        if 0 < index < look.total - self.tail(look.total):
            return {}
        return keeps_text_rows(look, look.predictor.model.attention_names())

    def tail(self, total: int) -> int:
        """How many steps are averaged: the last fifth, at least one."""
        return max(total // 5, 1)

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        if "attention" not in look.series:
            return
        (kept,) = look.series.pop("attention")
        attention = torch.stack(list(kept.layers.values())).mean(0).cpu()
        ends = torch.tensor(look.batch.end_tokens(look.predictor.model))
        is_summary = torch.arange(attention.shape[1]) >= ends[:, None]
        of_summary = entropy(attention * is_summary)
        if step.index == 0:
            look.keep(first=of_summary)
        tail = self.tail(look.total)
        if step.index >= look.total - tail:
            change = of_summary - look.series["first"][0]
            if self.difference == "absolute":
                change = change.abs()
            look.keep(share=(entropy(attention) + change) / tail)

    def finish(self, look: Look) -> torch.Tensor:
        return reduce(torch.add, look.series["share"])


@register(
    "layer_entropy",
    paper="Ren et al., ECCV 2024, E",
    cost="2 (the text half alone would do)",
    code="renjie3/MemAttn",
    compared="equal to a transcription",
)
class LayerEntropy(Detector):
    """E: entropy of one layer's cross-attention at the first step.

    Source: layer 3 in the order of calls, down_blocks.1.attentions.1 of SD 1.
    """

    layer: int = flag(
        3,
        "cross-attention layer in the order of calls; a smaller UNet's last one if it has fewer",
        at_least=0,
    )

    def steps(self, total: int) -> int:
        return 1

    def attention(self, look: Look, index: int) -> dict[str, See]:
        layers = look.predictor.model.attention_names()
        return keeps_text_rows(look, [layers[min(self.layer, len(layers) - 1)]])

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        (kept,) = look.series["attention"]
        (attention,) = kept.layers.values()
        look.keep(score=entropy(attention))
