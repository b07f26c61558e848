"""Noise prediction in epsilon units, whatever the network was trained to predict."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from memorization_suite.runs.lazy import torch
from memorization_suite.sampling.denoiser import Conditioning, Denoiser
from memorization_suite.sampling.passes import Passes, items_in_pass

HALVES = ("uncond", "text")


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
    """What the rows of the network's running call are, for attention processors and hooks.

    Its batch holds the images once per half: row k is image images[k % len(images)] of half
    halves[k // len(images)].
    """

    def __init__(self) -> None:
        self.halves: tuple[str, ...] = ()
        self.images = torch.zeros(0, dtype=torch.long)

    @contextmanager
    def holding(self, halves: tuple[str, ...], images: torch.Tensor) -> Iterator[None]:
        """Inside the block the running call is one of these."""
        before = (self.halves, self.images)
        self.halves = halves
        self.images = images
        try:
            yield
        finally:
            self.halves, self.images = before

    def rows_of(self, *halves: str) -> torch.Tensor:
        """Which rows belong to these halves, (rows,) bool."""
        chosen = torch.tensor([half in halves for half in self.halves])
        return chosen.repeat_interleave(len(self.images))

    def image_of_row(self) -> torch.Tensor:
        """Index of each row's image in the batch, (rows,)."""
        return self.images.repeat(len(self.halves))


class NoisePredictor:
    """Predicted noise e(x, t) for a batch of images; row i of every argument belongs to image i.

    x is what the network reads: of unit variance at the first timestep, for every sampler. It may
    be float32 while the network is not: it is cast on the way in.

    skip_unused_half=False always runs both halves in one call, as the official code does.
    """

    def __init__(
        self,
        model: Denoiser,
        text: Conditioning,
        uncond: Conditioning,
        *,
        skip_unused_half: bool = True,
    ):
        n = len(text)
        self.model = model
        self.skip_unused_half = skip_unused_half
        # Half -> what the network is told. A method may add other halves.
        self.conditioning = {"uncond": uncond, "text": text}
        # Which images of the batch these are.
        self.images = torch.arange(n)
        # What the network is running; shared with all selections.
        self.call = Call()
        # Rows that passed through the network, of each image of the batch; shared with all
        # selections. Plain guidance costs two a step.
        self.unet_evals = torch.zeros(n, dtype=torch.long)
        # Without and with gradients; shared with all selections.
        self.forward_passes = Passes(self.unet_evals)
        self.grad_passes = Passes(self.unet_evals)

    def select(self, rows: torch.Tensor) -> NoisePredictor:
        """The predictor of some of the images. rows: (k,) indices."""
        rows = rows.cpu()
        part = copy.copy(self)
        part.images = self.images[rows]
        part.conditioning = {half: told[rows] for half, told in self.conditioning.items()}
        return part

    @contextmanager
    def in_float32(self) -> Iterator[NoisePredictor]:
        """Inside the block, this predictor with everything that the network reads in float32, and
        the network too. It has the same weights, whatever their dtype.
        """
        exact = copy.copy(self)
        exact.conditioning = {half: told.in_float32() for half, told in self.conditioning.items()}
        with self.model.in_float32():
            yield exact

    def tokens(self, half: str) -> torch.Tensor:
        """Token embeddings of a half, (n, tokens, dim)."""
        return self.conditioning[half].tokens

    def set_tokens(self, half: str, tokens: torch.Tensor) -> None:
        """Replaces the token embeddings of a half; what else the network is told stays."""
        self.conditioning[half] = self.conditioning[half].with_tokens(tokens)

    def at(self, x: torch.Tensor, t) -> Prediction:
        """The prediction at (x, t); nothing is computed yet. x: (n, 4, h, w)."""
        return Prediction(self, x, t)

    def conditional_noise(self, x: torch.Tensor, t) -> torch.Tensor:
        """e(x, t, c) - e(x, t, ""), float32, shape of x."""
        return self.at(x, t).conditional

    def run(self, x: torch.Tensor, t, halves: tuple[str, ...]) -> list[torch.Tensor]:
        """e(x, t) of the named halves, (n, 4, h, w) each.

        In one call of the network, or without gradients in as many as the model's limits and the
        memory ask for; the halves of an image are always in the same call.
        """
        if torch.is_grad_enabled():
            return self.call_network(x, t, halves)

        def part(images: torch.Tensor) -> list[torch.Tensor]:
            if len(images) == len(x):
                return self.call_network(x, t, halves)
            return self.select(images).call_network(x[images.to(x.device)], t, halves)

        calls = self.forward_passes.run(
            part,
            torch.arange(len(x)),
            planned=items_in_pass(len(x), len(halves), self.model.limits.forward),
            rows=len(halves),
            images_of=lambda images: self.images[images],
        )
        return calls[0] if len(calls) == 1 else [torch.cat(half) for half in zip(*calls)]

    def call_network(self, x: torch.Tensor, t, halves: tuple[str, ...]) -> list[torch.Tensor]:
        """e(x, t) of the named halves in one call of the network, (n, 4, h, w) each."""
        told = Conditioning.join([self.conditioning[half] for half in halves])
        rows = torch.cat([x] * len(halves)).to(told.tokens.dtype)
        self.call.halves = halves
        self.call.images = self.images
        with self.saving_memory(halves):
            output = self.model.predict(rows, t, told)
        noise_pred = self.model.to_noise(output, rows, t)
        self.unet_evals.index_add_(0, self.images, torch.full_like(self.images, len(halves)))
        return list(noise_pred.chunk(len(halves)))

    def saving_memory(self, halves: tuple[str, ...]) -> AbstractContextManager[None]:
        """Inside the block the network keeps little for gradients, where its memory is limited.

        What it computes again is the call of these halves.
        """
        if self.model.limits.backward is None or not torch.is_grad_enabled():
            return nullcontext()
        return self.model.checkpointed(partial(self.call.holding, halves, self.images))

    def smaller_passes(self) -> dict[str, torch.Tensor]:
        """Rows in a pass, where memory did not suffice for what was planned; (n,), else nan.

        grad_rows: images, or what is optimized of them. forward_rows: rows of the network.
        """
        kinds = {"forward_rows": self.forward_passes, "grad_rows": self.grad_passes}
        return {name: passes.used for name, passes in kinds.items() if passes.rows is not None}


class Prediction:
    """e(x, t) with and without the prompt; a half is computed when it is first read."""

    def __init__(self, predictor: NoisePredictor, x: torch.Tensor, t):
        self.predictor = predictor
        self.x = x
        self.t = t
        self.halves: dict[str, torch.Tensor] = {}

    def need(self, *names: str) -> None:
        """Computes what is missing of the named halves in one call of the network."""
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

    def output(self, half: str) -> torch.Tensor:
        """What the network gave for a half, float32: v of a network that predicts v."""
        self.need(half)
        return self.predictor.model.to_output(self.halves[half].float(), self.x.float(), self.t)

    def magnitude(self) -> torch.Tensor:
        """||e(x, t, c) - e(x, t, "")|| per image, (n,) float32.

        The statistic of Wen et al. 2024, and what Han et al. 2025 lower.
        """
        return row_norm(self.conditional)

    def raw_magnitude(self) -> torch.Tensor:
        """The same in units of what the network predicts, (n,) float32: of v, magnitude / alpha."""
        self.need(*HALVES)
        return row_norm(self.output("text") - self.output("uncond"))

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
