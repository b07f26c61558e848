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
    ratios = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
    ratio = float(np.interp(float(t), np.arange(len(ratios)), ratios))
    alpha = (1 + ratio**2) ** -0.5
    return alpha, ratio * alpha


def row_norm(x: torch.Tensor) -> torch.Tensor:
    """L2 norm of each row over all its elements. x: (n, ...) -> (n,) float32."""
    return torch.linalg.vector_norm(x.float().flatten(1), dim=1)


def per_image(values: torch.Tensor) -> torch.Tensor:
    """A number an image in the shape that goes with latents. (n,) -> (n, 1, 1, 1)."""
    return values.reshape(-1, 1, 1, 1)


def unit(x: torch.Tensor) -> torch.Tensor:
    """x / ||x|| per image; zero stays zero. x: (n, c, h, w)."""
    length = per_image(row_norm(x))
    return torch.where(length > 0, x / above_zero(length), 0.0)


def stretch(wanted: torch.Tensor | float, length: torch.Tensor) -> torch.Tensor:
    """wanted / length, 1 where the length is 0: the factor that gives a vector the wanted length.

    (n,) -> (n, 1, 1, 1).
    """
    return per_image(torch.where(length > 0, wanted / above_zero(length), 1.0))


def above_zero(length: torch.Tensor) -> torch.Tensor:
    """Lengths that can divide: 0 becomes the smallest normal number."""
    return length.clamp(min=torch.finfo(length.dtype).tiny)


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
        chosen = torch.tensor([half in halves for half in self.halves])
        return chosen.repeat_interleave(len(self.images))

    def image_of_row(self) -> torch.Tensor:
        """Index of each row's image in the batch, (rows,)."""
        return self.images.repeat(len(self.halves))


class NoisePredictor:
    """Predicted noise e(x, t) for a batch of images; row i of every argument belongs to image i.

    x is what the UNet reads: of unit variance at the first timestep, for every scheduler. It may be
    float32 while the UNet is not: it is cast on the way in.

    prompt_embeds, negative_prompt_embeds: (n, tokens, dim). skip_unused_half=False always runs both
    halves in one call, as the official code does.
    """

    def __init__(
        self,
        unet,
        scheduler,
        prompt_embeds: torch.Tensor,
        negative_prompt_embeds: torch.Tensor,
        *,
        skip_unused_half: bool = True,
    ):
        n = len(prompt_embeds)
        self.unet = unet
        self.scheduler = scheduler
        self.skip_unused_half = skip_unused_half
        # Half -> (n, tokens, dim). A method may add other halves.
        self.embeds = {"uncond": negative_prompt_embeds, "text": prompt_embeds}
        # Which images of the batch these are.
        self.images = torch.arange(n)
        # What the UNet is running; shared with all selections.
        self.call = Call()
        # Rows that passed through the UNet, of each image of the batch; shared with all selections.
        # Plain guidance costs two a step.
        self.unet_evals = torch.zeros(n, dtype=torch.long)

    def select(self, rows: torch.Tensor) -> NoisePredictor:
        """The predictor of some of the images. rows: (k,) indices."""
        rows = rows.cpu()
        part = copy.copy(self)
        part.images = self.images[rows]
        part.embeds = {half: embeds[rows.to(embeds.device)] for half, embeds in self.embeds.items()}
        return part

    def at(self, x: torch.Tensor, t) -> Prediction:
        """The prediction at (x, t); nothing is computed yet. x: (n, 4, h, w)."""
        return Prediction(self, x, t)

    def conditional_noise(self, x: torch.Tensor, t) -> torch.Tensor:
        """e(x, t, c) - e(x, t, ""), float32, shape of x."""
        return self.at(x, t).conditional

    def run(self, x: torch.Tensor, t, halves: tuple[str, ...]) -> list[torch.Tensor]:
        """e(x, t) of the named halves, (n, 4, h, w) each: the one place that calls the UNet."""
        embeds = torch.cat([self.embeds[half] for half in halves])
        rows = torch.cat([x] * len(halves)).to(embeds.dtype)
        self.call.halves = halves
        self.call.images = self.images
        model_output = self.unet(rows, t, encoder_hidden_states=embeds, return_dict=False)[0]
        self.unet_evals.index_add_(0, self.images, torch.full_like(self.images, len(halves)))
        return list(self.to_noise(model_output, rows, t).chunk(len(halves)))

    def to_noise(self, model_output: torch.Tensor, x: torch.Tensor, t) -> torch.Tensor:
        """Epsilon from what the UNet predicts, v or epsilon itself.

        With v = alpha e - sigma x0 and x = alpha x0 + sigma e: e = alpha v + sigma x. That is
        float32, since rounding the sum would drown alpha v (alpha is 0.07 at first).
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
        v = (noise_pred.float() - sigma * x.float()) / alpha
        return v.to(x.dtype)

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
        self.predictor = predictor
        self.x = x
        self.t = t
        self.halves: dict[str, torch.Tensor] = {}

    def need(self, *names: str) -> None:
        """Computes what is missing of the named halves in one UNet call."""
        wanted = names
        if not self.predictor.skip_unused_half:
            wanted = tuple(dict.fromkeys((*HALVES, *names)))
        missing = tuple(name for name in wanted if name not in self.halves)
        if missing:
            computed = self.predictor.run(self.x, self.t, missing)
            self.halves.update(zip(missing, computed))

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
        """e(x, t, c) - e(x, t, ""), float32.

        A difference of half-precision numbers would carry their rounding.
        """
        self.need(*HALVES)
        return self.text.float() - self.uncond.float()

    def magnitude(self) -> torch.Tensor:
        """||e(x, t, c) - e(x, t, "")|| per image, (n,) float32.

        The statistic of Wen et al. 2024, and what Han et al. 2025 lower.
        """
        return row_norm(self.conditional)

    def guided(self, scale: float | torch.Tensor) -> torch.Tensor:
        """e_uncond + scale (e_text - e_uncond).

        scale: a number, or one per image (n,). The numbers 0 and 1 cost one half only.
        """
        if not isinstance(scale, torch.Tensor) and scale in (0, 1):
            return self.text if scale else self.uncond
        self.need(*HALVES)
        if isinstance(scale, torch.Tensor):
            scale = per_image(scale.to(self.uncond.device, self.uncond.dtype))
        return self.uncond + scale * (self.text - self.uncond)
