"""Entropy of cross-attention: Ren et al., ECCV 2024."""

from __future__ import annotations

from memorization_suite.detection.base import Detector, See, Watcher, register
from memorization_suite.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.attention import attention_names, last_token


def entropy(attention: torch.Tensor) -> torch.Tensor:
    """-sum a ln a over the last axis; a probability of zero adds nothing."""
    return -torch.special.xlogy(attention, attention).sum(-1)


class AttentionWatcher(Watcher):
    """Keeps the newest attention of the text rows per layer: mean over heads and queries, (n,
    77).
    """

    newest: dict[str, torch.Tensor]

    def begin(self) -> None:
        self.newest = {}

    def layers(self) -> list[str]:
        return attention_names(self.predictor.unet)

    def attention(self, index: int) -> dict[str, See]:
        return dict.fromkeys(self.layers(), self.see)

    def see(self, name: str, probs: torch.Tensor) -> None:
        self.newest[name] = probs[self.predictor.call.rows_of("text").to(probs.device)].mean((1, 2))


class AverageEntropy(AttentionWatcher):
    """Ren's D, see `AttentionEntropy`."""

    def attention(self, index: int) -> dict[str, See]:
        return (
            super().attention(index)
            if index in (0, *range(self.total - self.detector.tail(self.total), self.total))
            else {}
        )

    def on_step(self, step: Step, prediction: Prediction) -> None:
        if not self.attention(step.index):
            return
        attention = torch.stack(list(self.newest.values())).mean(0).cpu()  # all layers: (n, 77)
        if step.index == 0:
            tokenizer = self.batch.pipe.tokenizer
            ends = torch.tensor([last_token(tokenizer, prompt) for prompt in self.batch.prompts])
            self.summary = (
                torch.arange(attention.shape[1]) >= ends[:, None]
            )  # the end token and the padding after it
            self.first = entropy(attention * self.summary)
            self.score = torch.zeros(len(attention))
        tail = self.detector.tail(self.total)
        if step.index >= self.total - tail:
            change = entropy(attention * self.summary) - self.first
            self.score += (
                entropy(attention)
                + (change.abs() if self.detector.difference == "absolute" else change)
            ) / tail

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        return self.score


class FirstEntropy(AttentionWatcher):
    """Ren's E, see `LayerEntropy`."""

    def layers(self) -> list[str]:
        names = attention_names(self.predictor.unet)
        return [names[min(self.detector.layer, len(names) - 1)]]

    def on_step(self, step: Step, prediction: Prediction) -> None:
        (attention,) = self.newest.values()
        self.score = entropy(attention)

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        return self.score


@register("attention_entropy", paper="Ren et al., ECCV 2024, D", cost="2N")
class AttentionEntropy(Detector):
    """D: entropy of the layers' mean attention over the last fifth of the steps, plus the change of
    the summary tokens' part since step 0.

    Source: the paper with absolute changes; the official code takes them with their sign. Summary
    tokens: the end token and the padding.
    """

    watcher = AverageEntropy
    difference: str = flag(
        "absolute", "change of the summary tokens' entropy", choices=("absolute", "signed")
    )

    def steps(self, total: int) -> int:
        return total

    def tail(self, total: int) -> int:
        """The last fifth, at least one step."""
        return max(total // 5, 1)


@register(
    "layer_entropy", paper="Ren et al., ECCV 2024, E", cost="2 (the text half alone would do)"
)
class LayerEntropy(Detector):
    """E: entropy of one layer's attention at the first step. Source: layer 3 in the order of calls,
    down_blocks.1.attentions.1 of SD 1.
    """

    watcher = FirstEntropy
    layer: int = flag(
        3,
        "cross-attention layer in the order of calls; a smaller UNet's last one if it has fewer",
        at_least=0,
    )

    def steps(self, total: int) -> int:
        return 1
