"""Bright Ending: the magnitude where the end token is attended to at the last step.

Chen et al., ICLR 2025.
"""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Watcher, register
from memorization_suite.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Prediction, Step
from memorization_suite.sampling.attention import See, last_tokens
from memorization_suite.sampling.bright_ending import BINARISE, BrightEnding, binarise, masked_norm


class BrightEndingWatcher(Watcher):
    """Keeps each step's squares, summed over channels, until the mask is there."""

    # The roots of those squares, (n, 1, h, w) of each step.
    roots: list[torch.Tensor]
    mask: torch.Tensor

    def begin(self) -> None:
        self.roots = []
        self.ending = BrightEnding(self.predictor, last_tokens(self.batch))

    def attention(self, index: int) -> dict[str, See]:
        return dict.fromkeys(self.ending.names, self.ending.see) if index == self.total - 1 else {}

    def on_step(self, step: Step, prediction: Prediction) -> None:
        self.roots.append(prediction.conditional.square().sum(1, keepdim=True).sqrt())
        if step.index == self.total - 1:
            height, width = prediction.x.shape[-2:]
            self.mask = self.ending.mask(height, width)

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        mask = binarise(self.mask, self.detector.mask_binarise, self.detector.mask_quantile)
        return torch.stack([masked_norm(root, mask) for root in self.roots]).mean(0)

    def masks(self) -> torch.Tensor:
        """The soft mask: attention probabilities."""
        return self.mask[:, 0]


@register("bright_ending", paper="Chen et al., ICLR 2025", cost="2N")
class BrightEndingDetector(Detector):
    """Mean over all steps of ||(e(x, c) - e(x, "")) o m|| / mean(m), m the end token's attention at
    the last step.

    Source: official code, which samples twice to have the mask; one pass gives the same, since only
    the squares per pixel are kept.
    """

    watcher = BrightEndingWatcher
    spatial = True
    mask_binarise: str = flag(
        "none",
        "the mask in the score: none (attention probabilities), otsu or quantile",
        short="mask",
        choices=BINARISE,
    )
    mask_quantile: float = flag(
        0.9, "with quantile: share of the pixels that are dark", short="q", above=0.0
    )

    def steps(self, total: int) -> int:
        return total

    def check(self, total: int) -> None:
        super().check(total)
        if self.mask_quantile >= 1:
            raise ValueError(
                f"--mask_quantile {self.mask_quantile:g} leaves no bright pixel; it is below 1"
            )
