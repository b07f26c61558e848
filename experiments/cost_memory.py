"""The memory that an architecture takes at its full size, from shapes alone: on any machine, also
one without a GPU or that memory.

What torch's operators make is counted. It has been within 2 % of the measured memory of a GPU for
the network, with and without gradients. cuDNN's own memory is not seen: a decoder takes more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memorization_suite.experiments.architectures import Architecture, assembled, made_in
from memorization_suite.runs.text import markdown_table
from memorization_suite.sampling.denoiser import Denoiser, Limits
from memorization_suite.sampling.memory import choose_limits, held_bytes, peak_bytes
from memorization_suite.sampling.noise_predictor import HALVES, NoisePredictor

MIB = 2**20


@dataclass(frozen=True)
class Held:
    """The most bytes at once, weights included."""

    what: str
    bytes: int


class Shapes:
    """A model without numbers."""

    def __init__(self, architecture: Architecture, dtype: torch.dtype):
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self.mode, made_in(dtype):
            self.networks = architecture.networks()
        # What a v-model's sampler computes of numbers cannot run on shapes, and is small.
        self.model = assembled(replace(architecture, predicts="epsilon"), self.networks)
        self.model.fork = lambda: copy.copy(self.model)

    def held(self, what: str, function: Callable[[], object]) -> Held:
        """The memory that the function takes."""
        with self.mode, torch.no_grad():
            return Held(what, held_bytes(self.model) + peak_bytes("cpu", function))


def count(architecture: Architecture, dtype: torch.dtype, images: int) -> list[Held]:
    """What so many images take."""
    shapes = Shapes(architecture, dtype)
    model = shapes.model
    network = shapes.networks["unet"]
    vae = shapes.networks["vae"]
    side = model.native_size
    latents = (images, *model.latent_shape(side, side))
    saving = Limits(backward=len(HALVES) * images)
    works = {
        "the weights": lambda: None,
        "sampling": lambda: evaluate(model, images, Limits()),
        "gradients": lambda: evaluate(model, images, Limits(), gradient=True),
        "gradients, saving memory": lambda: evaluate(model, images, saving, gradient=True),
        "decoding": lambda: model.decode(torch.zeros(latents, dtype=dtype)),
        "decoding all at once": lambda: vae.decode(torch.zeros(latents, dtype=dtype)),
        "gradients of one image and of the weights": lambda: weights_too(model, network),
    }
    return [shapes.held(what, work) for what, work in works.items()]


def limits_of(architecture: Architecture, dtype: torch.dtype, budget: float) -> Limits:
    """The rows in a pass that a budget (GiB) allows. Raises Unusable when it is too little."""
    shapes = Shapes(architecture, dtype)
    with shapes.mode:
        return choose_limits(shapes.model, shapes.model.native_size, budget)


def evaluate(model: Denoiser, images: int, limits: Limits, *, gradient: bool = False) -> None:
    """The magnitudes of so many images, and their gradients by the images."""
    limited = copy.copy(model)
    limited.limits = limits
    side = model.native_size
    told = model.encode([""] * images)
    x = torch.zeros((images, *model.latent_shape(side, side)), requires_grad=gradient)
    with limited.frozen(), torch.set_grad_enabled(gradient):
        magnitude = NoisePredictor(limited, told, told).at(x, torch.tensor(981)).magnitude()
        if gradient:
            torch.autograd.grad(magnitude, x, torch.ones_like(magnitude))


def weights_too(model: Denoiser, network: torch.nn.Module) -> None:
    """Two updates of one image as the official script makes them: the gradients of the weights that
    the first one leaves are there in the second.
    """
    side = model.native_size
    told = model.encode([""])
    network.requires_grad_(True)
    for _ in range(2):
        x = torch.zeros((1, *model.latent_shape(side, side)), requires_grad=True)
        with torch.enable_grad():
            NoisePredictor(model, told, told).at(x, torch.tensor(981)).magnitude().sum().backward()
    network.zero_grad(set_to_none=True)
    network.requires_grad_(False)


def count_text(architecture: Architecture, dtype: str, images: int, found: list[Held]) -> str:
    """A page of it."""
    rows = [{"of": each.what, "MiB": f"{each.bytes / MIB:.0f}"} for each in found]
    return (
        f"# Memory, counted: {architecture.title}\n\n{dtype}, {images} images, "
        f"the most at once, weights included.\n\n{markdown_table(rows)}"
    )
