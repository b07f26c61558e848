"""Prompt-embedding adjustment where the image is memorized.

Chen et al., ICLR 2025 (Bright Ending).
"""

from __future__ import annotations

from memorization_suite.detection.bright_ending import (
    BrightEnding,
    binarize,
    check_quantile,
    look_ahead,
    masked_norm,
)
from memorization_suite.mitigation.base import flag, quirks, register
from memorization_suite.mitigation.embedding_search import EmbeddingSearch, Objective
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import again
from memorization_suite.sampling import Batch, NoisePredictor, Prediction


@register(
    "bright_ending_embedding",
    paper="Chen et al., ICLR 2025",
    cost="4N + J - 1 and J backward passes, J updates; 4N - 2 without any",
    code="chenchen-usyd/BE-PRSS",
    compared="equal with --official joint_norm,last_iterate for the same mask",
)
class BrightEndingEmbedding(EmbeddingSearch):
    """Optimizes the prompt embedding, as prompt_embedding does, to lower the magnitude where the
    image is memorized: ||(e(x, c) - e(x, "")) o m|| / mean(m).

    m is the image's Bright Ending mask. It comes from a first run on the same noise with plain
    guidance, which costs 2N. The first run's step 0 is the search's first evaluation.

    Source: official code. Differs from it as prompt_embedding does, and in where the mask comes
    from: the official code reads a file of an earlier run.
    """

    optim_target_loss: float = flag(
        1.0, "target of the masked magnitude, epsilon units", short="tl", above=0.0
    )
    mask_binarise: str = again(
        BrightEnding,
        "mask_binarise",
        text="the mask: none (attention probabilities), otsu or quantile (0 and 1)",
        always_named=False,
    )
    mask_quantile: float = again(
        BrightEnding,
        "mask_quantile",
        text="with --mask_binarise quantile: share of the pixels that are dark",
        always_named=False,
    )
    official: str = quirks(
        joint_norm="one embedding a prompt, norm and mean(m) over its images in the batch; the "
        "begin token's row decays",
        last_iterate="at the cap the last embedding is kept, not the best",
    )

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        masks, first = look_ahead(predictor, batch)
        batch.first = first
        masks = binarize(masks, self.mask_binarise, self.mask_quantile)
        # What divides is the image's own mean(m), under joint_norm that of the prompt's images.
        mean = masks.mean((1, 2, 3))
        share = torch.ones_like(mean)
        if "joint_norm" in self.official:
            for group in batch.groups():
                share[group] = mean[group] / mean[group].mean()

        def loss(predictions: list[Prediction], images: torch.Tensor) -> torch.Tensor:
            return masked_norm(predictions[0].conditional, masks[images]) * share[images]

        return self.optimize(predictor, batch, Objective(x, [t], loss), self.official)

    def check(self, num_steps: int) -> None:
        check_quantile(self.mask_quantile)
