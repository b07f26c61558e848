"""Entropy of cross-attention: Ren et al., ECCV 2024."""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Watcher, register
from memorization_suite.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.attention import See, attention_names, last_tokens


def entropy(attention: torch.Tensor) -> torch.Tensor:
    """-sum a ln a over the last axis; a probability of zero adds nothing."""
    return -torch.special.xlogy(attention, attention).sum(-1)


class AttentionWatcher(Watcher):
    """Keeps each layer's newest attention of the text rows, mean over heads and queries."""

    # Layer -> (n, 77).
    newest: dict[str, torch.Tensor]

    def begin(self) -> None:
        self.newest = {}

    def layers(self) -> list[str]:
        """Names of the layers that are looked at."""
        return attention_names(self.predictor.unet)

    def attention(self, index: int) -> dict[str, See]:
        return dict.fromkeys(self.layers(), self.see)

    def see(self, name: str, probs: torch.Tensor) -> None:
        """probs: (rows, heads, queries, 77)."""
        text_rows = self.predictor.call.rows_of("text").to(probs.device)
        # At guidance scales 0 and 1 each half has a call of its own.
        if text_rows.any():
            self.newest[name] = probs[text_rows].mean((1, 2))


class AttentionEntropyWatcher(AttentionWatcher):
    """Ren's D, see `AttentionEntropy`."""

    def begin(self) -> None:
        super().begin()
        # Steps that are averaged, the last ones.
        self.tail = self.detector.tail(self.total)

    def attention(self, index: int) -> dict[str, See]:
        if index == 0 or self.is_in_tail(index):
            return super().attention(index)
        return {}

    def is_in_tail(self, index: int) -> bool:
        """Whether the step with this index is averaged."""
        return index >= self.total - self.tail

    def on_step(self, step: Step, prediction: Prediction) -> None:
        if not self.attention(step.index):
            return
        # Mean over all layers, (n, 77).
        attention = torch.stack(list(self.newest.values())).mean(0).cpu()
        if step.index == 0:
            # The end token and the padding after it.
            ends = torch.tensor(last_tokens(self.batch))
            self.summary = torch.arange(attention.shape[1]) >= ends[:, None]
            self.first = entropy(attention * self.summary)
            self.score = torch.zeros(len(attention))
        if self.is_in_tail(step.index):
            change = entropy(attention * self.summary) - self.first
            if self.detector.difference == "absolute":
                change = change.abs()
            self.score += (entropy(attention) + change) / self.tail

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        return self.score


class LayerEntropyWatcher(AttentionWatcher):
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

    watcher = AttentionEntropyWatcher
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
    """E: entropy of one layer's attention at the first step.

    Source: layer 3 in the order of calls, down_blocks.1.attentions.1 of SD 1.
    """

    watcher = LayerEntropyWatcher
    layer: int = flag(
        3,
        "cross-attention layer in the order of calls; a smaller UNet's last one if it has fewer",
        at_least=0,
    )

    def steps(self, total: int) -> int:
        return 1
