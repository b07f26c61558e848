"""Gaussian noise on the text embeddings: Somepalli et al., NeurIPS 2023."""

from __future__ import annotations

from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.runs.lazy import np, torch
from memorization_suite.sampling import Batch, NoisePredictor
from memorization_suite.sampling.noise import numpy_stream
from memorization_suite.sampling.noise_predictor import HALVES


def normal(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers, float32.

    By numpy, since torch's numbers of an image's seed are its initial noise.
    """
    return torch.from_numpy(numpy_stream(seed).standard_normal(shape, dtype=np.float32))


@register(
    "embedding_noise",
    paper="Somepalli et al., NeurIPS 2023 (GNI)",
    cost="2N",
    code="somepago/DCR",
    compared="equal for the same draws, which here belong to the image's seed",
)
class EmbeddingNoise(Mitigation):
    """Adds lambda N(0, I) to the prompt's embedding and to the empty prompt's, once per image and
    independently.

    Source: official code, which adds it to the stacked embeddings, so that the unconditional half
    is noised too. Published lambda: 0.1. Differs: the noise belongs to the image (its seed), not to
    the order of the run.
    """

    rand_noise_lam: float = flag(
        0.1,
        "lambda: standard deviation of the noise, in units of the embedding",
        short="lam",
        at_least=0.0,
    )

    def edit_embeddings(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> dict[str, torch.Tensor]:
        shape = (len(HALVES), *predictor.tokens("text").shape[1:])
        noise = torch.stack([normal(seed, shape) for seed in batch.seeds])
        for i, half in enumerate(HALVES):
            embeds = predictor.tokens(half)
            noised = embeds.float() + self.rand_noise_lam * noise[:, i].to(embeds.device)
            predictor.set_tokens(half, noised.to(embeds.dtype))
        return {}
