"""A denoiser whose scores and Hessians are known: Gaussian mixtures, one for each conditioning."""

import math

import torch
from diffusers import DDIMScheduler

from memorization_suite.sampling import NoisePredictor
from tests.models import model_of, predictor_of

LATENT = (4, 4, 4)
DIMENSION = math.prod(LATENT)


class MixtureUNet(torch.nn.Module):
    """What a perfect UNet of this prediction type says of latents from sum_k N(m_k, diag(s_k^2)) /
    K.

    The conditioning is a number, encoder_hidden_states (rows, 1, 1): which of the mixtures a row is
    about.
    """

    def __init__(self, scheduler, *, mixtures: int = 4, parts: int = 3, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.scheduler = scheduler
        self.means = torch.nn.Parameter(
            torch.randn(mixtures, parts, DIMENSION, generator=generator, dtype=torch.float64)
        )
        self.deviations = torch.nn.Parameter(
            0.3 + torch.rand(mixtures, parts, DIMENSION, generator=generator, dtype=torch.float64)
        )

    def forward(self, x, t, encoder_hidden_states=None, return_dict=False):
        alpha, sigma = model_of(scheduler=self.scheduler).alpha_sigma(t)
        flat = x.flatten(1)
        rows = []
        for row, which in zip(flat, encoder_hidden_states[:, 0, 0].long().tolist()):
            means, variances = (
                value.to(x.dtype)
                for value in (
                    alpha * self.means[which],
                    (alpha * self.deviations[which]) ** 2 + sigma**2,
                )
            )
            to_means = (means - row) / variances
            logits = -0.5 * (to_means * (means - row)).sum(1) - 0.5 * variances.log().sum(1)
            rows.append(-sigma * (logits.softmax(0)[:, None] * to_means).sum(0))  # e = -sigma s
        e = torch.stack(rows).reshape(x.shape)
        return (
            (e - sigma * x) / alpha
            if self.scheduler.config.prediction_type == "v_prediction"
            else e,
        )

    @torch.no_grad()
    def score_and_hessian(
        self, x: torch.Tensor, t, which: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Closed forms in float64 at one x: s (d,) and H = sum_k r_k (a_k a_k^T - diag(1 / v_k)) -
        s s^T, a_k the score of part k.
        """
        alpha, sigma = model_of(scheduler=self.scheduler).alpha_sigma(t)
        x = x.double().flatten()
        variances = (alpha * self.deviations[which]) ** 2 + sigma**2
        to_means = (alpha * self.means[which] - x) / variances
        logits = torch.stack(
            [-(a**2 * v).sum() / 2 - v.log().sum() / 2 for a, v in zip(to_means, variances)]
        )
        shares = logits.softmax(0)
        score = shares @ to_means
        hessian = sum(
            r * (torch.outer(a, a) - torch.diag(1 / v))
            for r, a, v in zip(shares, to_means, variances)
        )
        return score, hessian - torch.outer(score, score)


def make_predictor(
    prediction_type: str, text: list[int], uncond: list[int] | None = None
) -> NoisePredictor:
    """A predictor of images whose prompts are these mixtures; the empty prompt is mixture 0."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    scheduler.set_timesteps(50)
    embeds = [
        torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1)
        for numbers in (text, uncond or [0] * len(text))
    ]
    return predictor_of(MixtureUNet(scheduler), scheduler, *embeds)


def exact_hessian(predictor: NoisePredictor, x: torch.Tensor, t, kind: str) -> torch.Tensor:
    """Hessians of the images' log densities, or their differences, (n, d, d)."""

    def of(half: str) -> torch.Tensor:
        return torch.stack(
            [
                predictor.model.unet.score_and_hessian(row, t, int(which))[1]
                for row, which in zip(x, predictor.tokens(half)[:, 0, 0])
            ]
        )

    return of("text") - of("uncond") if kind == "difference" else of(kind)
