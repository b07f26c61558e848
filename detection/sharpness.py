"""Sharpness of the conditional density: Jeon et al., ICML 2025."""

from __future__ import annotations

from functools import partial

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import NoisePredictor, Prediction, Step
from memorization_suite.sampling.gradients import (
    FORWARD_MODE,
    forward_mode_images,
    forward_product,
)
from memorization_suite.sampling.noise_predictor import HALVES, per_image, row_norm, unit


def directional(predictor: NoisePredictor, x: torch.Tensor, t, v: torch.Tensor) -> torch.Tensor:
    """J v, J the Jacobian of x -> e(x, c) - e(x, ""), by forward-mode differentiation in float32.

    x, v, result: (n, 4, h, w). Two NFE. Source: official code, which runs it in float32 too.
    """
    model = predictor.model
    at_once = forward_mode_images(model, len(HALVES), most=len(x))
    sparing = model.limits.forward is not None
    products = []
    with predictor.in_float32() as exact:
        for images in torch.arange(len(x)).split(at_once):
            e = partial(exact.select(images).conditional_noise, t=t)
            x_part = x[images].float()
            v_part = v[images].float()
            products.append(forward_product(e, x_part, v_part, sparing=sparing))
    return torch.cat(products)


def difference_along_itself(
    predictor: NoisePredictor, prediction: Prediction, h: float
) -> torch.Tensor:
    """The same for v = e(x, c) - e(x, "") by a finite difference of length h along v.

    Two NFE; zero stays zero.
    """
    v = prediction.conditional
    moved = prediction.x.float() + h * unit(v)
    change = predictor.conditional_noise(moved, prediction.t) - v
    return change * per_image(row_norm(v)) / h


@register(
    "sharpness",
    paper="Jeon et al., ICML 2025",
    cost="4K, K = --num_steps",
    code="Dongjae0324/sharpness_memorization_diffusion",
    compared="exact on a mixture of Gaussians; its v formula is not followed",
)
class Sharpness(Detector):
    """||H s||, where the UNet reads x. s is the difference of the conditional and the unconditional
    score, H that of their Jacobians.

    With s = -e / sigma, H s = J (e(x, c) - e(x, "")) / sigma^2. Forward-mode differentiation or a
    finite difference gives the product.

    Source: section 4. The default is the code's norm, --power 2 the paper's square; at one step
    both order prompts alike. The official v formula reads v as x0 and is off by powers of sigma.
    """

    num_steps: int = flag(1, "steps that are averaged, from the first", at_least=1)
    product: str = flag(
        "forward",
        "Hessian-vector product: forward-mode differentiation, or a finite difference",
        choices=("forward", "finite"),
    )
    step_length: float = flag(
        1.0, "length of the finite difference, in unit-variance latents", above=0.0
    )
    power: int = flag(1, "1: norm, as the official code; 2: its square, as the paper", at_least=1)

    def steps(self, total: int) -> int:
        return self.num_steps

    def derivatives(self, dtype: str) -> str:
        return FORWARD_MODE if self.product == "forward" else ""

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        if self.product == "forward":
            v = prediction.conditional
            product = directional(look.predictor, prediction.x, prediction.t, v)
        else:
            product = difference_along_itself(look.predictor, prediction, self.step_length)
        # s = -e / sigma twice: in H and in s.
        _, sigma = look.predictor.model.alpha_sigma(prediction.t)
        norm = row_norm(product) / sigma**2
        look.keep(score=norm.square() if self.power == 2 else norm)
