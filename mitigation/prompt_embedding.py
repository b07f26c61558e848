"""Prompt-embedding adjustment: Wen et al., ICLR 2024."""

from __future__ import annotations

from memorization_suite.mitigation.base import flag, quirks, register
from memorization_suite.mitigation.embedding_search import EmbeddingSearch, Objective
from memorization_suite.runs.lazy import torch
from memorization_suite.sampling import Batch, NoisePredictor, Prediction


@register(
    "prompt_embedding",
    paper="Wen et al., ICLR 2024",
    cost="2N + J + 1 and J backward passes, J updates; 2N without any",
    code="YuxinWenRick/diffusion_memorization",
    compared="equal with --official joint_norm,last_iterate",
)
class PromptEmbedding(EmbeddingSearch):
    """AdamW on the prompt embedding until ||e(x, c) - e(x, "")|| <= target on the image's own
    noise. Padding and end token take part.

    Source: official code. Differs from it: every image has its own embedding and magnitude, so the
    target does not depend on how many images a prompt has (official: 3 over 4 images, which is 1.5
    for each). The begin token's row is not decayed. The unconditional half is computed once. At the
    cap the best embedding is kept.
    """

    optim_target_loss: float = flag(
        1.5,
        "target of the magnitude, epsilon units; with --official joint_norm of the norm over all "
        "images of a prompt",
        short="tl",
        above=0.0,
    )
    official: str = quirks(
        joint_norm="one embedding a prompt, one norm over its images in the batch; the begin "
        "token's row decays",
        last_iterate="at the cap the last embedding is kept, not the best",
    )

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        def loss(predictions: list[Prediction], images: torch.Tensor) -> torch.Tensor:
            return predictions[0].magnitude()

        objective = Objective(x, [t], loss)
        numbers = self.optimize(predictor, batch, objective, self.official)
        # The loss is the magnitude.
        return {name: value for name, value in numbers.items() if "loss" not in name}
