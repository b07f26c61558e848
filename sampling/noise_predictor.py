"""Noise prediction in epsilon units, whatever the UNet was trained to predict."""

from __future__ import annotations

import copy

from memorization_suite.lazy import np, torch

HALVES = ("uncond", "text")


def alpha_sigma(scheduler, t) -> tuple[float, float]:
    """alpha and sigma at timestep t, alpha^2 + sigma^2 = 1.

    Euler's timesteps may be fractional: sigma / alpha is interpolated linearly in t, as that
    scheduler does.
    """
    alphas_cumprod = scheduler.alphas_cumprod.cpu().double().numpy()
    ratio = float(
        np.interp(
            float(t), np.arange(len(alphas_cumprod)), np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
        )
    )
    alpha = (1 + ratio**2) ** -0.5
    return alpha, ratio * alpha


def row_norm(x: torch.Tensor) -> torch.Tensor:
    """L2 norm of each row over all its elements. x: (n, ...) -> (n,) float32."""
    return torch.linalg.vector_norm(x.float().flatten(1), dim=1)


class Call:
    """What the rows of the UNet call that is running now are, for attention processors and hooks.

    The UNet's batch holds the images once per half: row k is image images[k % len(images)] of half
    halves[k // len(images)].
    """

    def __init__(self) -> None:
        self.halves: tuple[str, ...] = ()
        self.images = torch.zeros(0, dtype=torch.long)

    def rows_of(self, *halves: str) -> torch.Tensor:
        """Which rows belong to these halves, (rows,) bool."""
        return torch.tensor([half in halves for half in self.halves]).repeat_interleave(
            len(self.images)
        )

    def image_of_row(self) -> torch.Tensor:
        """Index of each row's image in the batch, (rows,)."""
        return self.images.repeat(len(self.halves))


class NoisePredictor:
    """Predicted noise e(x, t) for a batch of images; row i of every argument belongs to image i.

    x is what the UNet reads: of unit variance at the first timestep, for every scheduler. It may be
    float32 while
    the UNet is not: it is cast on the way in. `unet_evals` counts, per image, the rows that passed
    through the
    UNet: plain guidance costs two per step.

    prompt_embeds, negative_prompt_embeds: (n, tokens, dim); they are the halves "text" and "uncond"
    of `embeds`, to which a method may add others. call: what the UNet is running, shared with all
    selections. skip_unused_half=False always runs both halves in one call, as the official code
    does.
    """

    def __init__(
        self,
        unet,
        scheduler,
        prompt_embeds,
        negative_prompt_embeds,
        *,
        skip_unused_half: bool = True,
    ):
        self.unet, self.scheduler, self.skip_unused_half = unet, scheduler, skip_unused_half
        self.embeds = {"uncond": negative_prompt_embeds, "text": prompt_embeds}
        self.images = torch.arange(len(prompt_embeds))
        self.call = Call()
        self.unet_evals = torch.zeros(len(prompt_embeds), dtype=torch.long)

    def select(self, rows: torch.Tensor) -> NoisePredictor:
        """The predictor of some of the images; it counts into the same `unet_evals`. rows: (k,)
        indices.
        """
        rows = rows.cpu()
        part = copy.copy(self)
        part.images = self.images[rows]
        part.embeds = {name: embeds[rows.to(embeds.device)] for name, embeds in self.embeds.items()}
        return part

    def at(self, x: torch.Tensor, t) -> Prediction:
        """The prediction at (x, t); nothing is computed yet. x: (n, 4, h, w)."""
        return Prediction(self, x, t)

    def conditional_noise(self, x: torch.Tensor, t) -> torch.Tensor:
        """e(x, t, c) - e(x, t, ""), float32, shape of x."""
        return self.at(x, t).conditional

    def run(self, x: torch.Tensor, t, halves: tuple[str, ...]) -> list[torch.Tensor]:
        """e(x, t) for the named halves in one UNet call; one tensor (n, 4, h, w) for each, in the
        dtype of `to_noise`.
        """
        embeds = torch.cat([self.embeds[half] for half in halves])
        rows = torch.cat([x] * len(halves)).to(embeds.dtype)
        self.call.halves, self.call.images = halves, self.images
        model_output = self.unet(rows, t, encoder_hidden_states=embeds, return_dict=False)[0]
        self.unet_evals.index_add_(0, self.images, torch.full_like(self.images, len(halves)))
        return list(self.to_noise(model_output, rows, t).chunk(len(halves)))

    def to_noise(self, model_output: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
        """Epsilon from what the UNet predicts. With v = alpha e - sigma x0 and x = alpha x0 + sigma
        e: e = alpha v + sigma x.

        Epsilon models: as it comes. v models: float32, since rounding the sum would drown alpha v
        (alpha is 0.07 at first).
        """
        if self.is_epsilon:
            return model_output
        alpha, sigma = alpha_sigma(self.scheduler, t)
        return alpha * model_output.float() + sigma * x.float()

    def to_model_output(self, noise_pred: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
        """Inverse of `to_noise`: what `scheduler.step` expects."""
        if self.is_epsilon:
            return noise_pred
        alpha, sigma = alpha_sigma(self.scheduler, t)
        return ((noise_pred.float() - sigma * x.float()) / alpha).to(x.dtype)

    @property
    def is_epsilon(self) -> bool:
        """Raises ValueError for prediction types other than epsilon and v_prediction."""
        kind = self.scheduler.config.prediction_type
        if kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"the scheduler's prediction_type is {kind!r}; supported are 'epsilon' and "
                "'v_prediction'"
            )
        return kind == "epsilon"


class Prediction:
    """e(x, t) with and without the prompt; a half is computed when it is first read."""

    def __init__(self, predictor: NoisePredictor, x: torch.Tensor, t):
        self.predictor, self.x, self.t = predictor, x, t
        self.halves: dict[str, torch.Tensor] = {}

    def need(self, *names: str) -> None:
        """Computes what is missing of the named halves in one UNet call."""
        wanted = (
            names if self.predictor.skip_unused_half else tuple(dict.fromkeys((*HALVES, *names)))
        )
        missing = tuple(name for name in wanted if name not in self.halves)
        if missing:
            self.halves.update(zip(missing, self.predictor.run(self.x, self.t, missing)))

    @property
    def uncond(self) -> torch.Tensor:
        """e(x, t, ""), (n, 4, h, w)."""
        self.need("uncond")
        return self.halves["uncond"]

    @property
    def text(self) -> torch.Tensor:
        """e(x, t, c), (n, 4, h, w)."""
        self.need("text")
        return self.halves["text"]

    @property
    def conditional(self) -> torch.Tensor:
        """e(x, t, c) - e(x, t, ""), float32: a difference of half-precision numbers would carry
        their rounding.
        """
        self.need(*HALVES)
        return self.text.float() - self.uncond.float()

    def magnitude(self) -> torch.Tensor:
        """||e(x, t, c) - e(x, t, "")|| per image, (n,) float32: the statistic of Wen et al. 2024,
        and what Han et al. 2025 lower.
        """
        return row_norm(self.conditional)

    def guided(self, scale: float | torch.Tensor) -> torch.Tensor:
        """e_uncond + scale (e_text - e_uncond). scale: a number, or one per image (n,). Scale 0 and
        1 cost one half only.
        """
        if not isinstance(scale, torch.Tensor) and scale in (0, 1):
            return self.text if scale else self.uncond
        self.need(*HALVES)
        if isinstance(scale, torch.Tensor):
            scale = scale.to(self.uncond.device, self.uncond.dtype).reshape(-1, 1, 1, 1)
        return self.uncond + scale * (self.text - self.uncond)
