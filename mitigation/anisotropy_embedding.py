"""Prompt-embedding adjustment by norm and alignment: Asthana and Belagiannis, ICLR 2026."""

from __future__ import annotations

from memorization_suite.detection.anisotropy import LATE, Anisotropy, anisotropy, check_late_step
from memorization_suite.mitigation.base import flag, register
from memorization_suite.mitigation.embedding_search import EmbeddingSearch, Objective
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import again
from memorization_suite.sampling import Batch, NoisePredictor, Prediction


@register(
    "anisotropy_embedding",
    paper="Asthana and Belagiannis, ICLR 2026",
    cost="2N + 2J + 4 and 2J backward passes, J updates; 2N + 2 without any",
    compared="no code is published for it; epsilon units throughout",
)
class AnisotropyEmbedding(EmbeddingSearch):
    """Optimizes the prompt embedding, as prompt_embedding does, to lower the score of the detector
    anisotropy on the image's own noise.

    Loss: norm_weight ||e(x, c) - e(x, "")|| + cosine_weight cos. cos is the mean cosine over pixels
    of e(x, "") and e(x, c) - e(x, "") at the third last timestep, on the same x as the UNet reads
    it.

    Source: the paper, which gives no code and no target for this. Weights: the official detector's
    for SD 1.4 (SD 2: 1 and 0.1).
    """

    optim_target_loss: float = flag(1.5, "target of the weighted sum; not published", short="tl")
    norm_weight: float = again(
        Anisotropy,
        "norm_weight",
        text="g1: weight of the magnitude at the first timestep, epsilon units",
        short="g1",
    )
    cosine_weight: float = again(
        Anisotropy,
        "cosine_weight",
        text="g2: weight of the mean cosine at the third last timestep",
        short="g2",
    )

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        def loss(predictions: list[Prediction], images: torch.Tensor) -> torch.Tensor:
            first, late = predictions
            return anisotropy(first, late, self.norm_weight, self.cosine_weight)

        times = [t, predictor.model.timesteps[LATE]]
        return self.optimize(predictor, batch, Objective(x, times, loss))

    def check(self, num_steps: int) -> None:
        check_late_step(self.name, num_steps)
