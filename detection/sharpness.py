"""Sharpness of the conditional density: Jeon et al., ICML 2025."""

from __future__ import annotations

from memorization_suite.detection.base import Detector, Watcher, register
from memorization_suite.lazy import forward_ad, torch, torch_attention
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import NoisePredictor, Prediction, Step, alpha_sigma
from memorization_suite.sampling.noise_predictor import row_norm


def directional(predictor: NoisePredictor, x: torch.Tensor, t, v: torch.Tensor) -> torch.Tensor:
    """J v, J the Jacobian of x -> e(x, c) - e(x, ""), by forward-mode differentiation. x, v,
    result: (n, 4, h, w). Two UNet rows.
    """
    with (
        forward_ad.dual_level(),
        torch_attention.sdpa_kernel(torch_attention.SDPBackend.MATH),
    ):  # fused attention has no forward mode
        return forward_ad.unpack_dual(
            predictor.conditional_noise(forward_ad.make_dual(x, v), t)
        ).tangent


def directional_by_difference(
    predictor: NoisePredictor, x: torch.Tensor, t, v: torch.Tensor, at_x: torch.Tensor, h: float
) -> torch.Tensor:
    """The same by a finite difference of length h along v; at_x: e(x, c) - e(x, ""), which is
    known. Two UNet rows; zero stays zero.
    """
    length = row_norm(v).reshape(-1, 1, 1, 1)
    unit = torch.where(length > 0, v / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)
    return (predictor.conditional_noise(x + h * unit, t) - at_x) * length / h


class Sharpness(Watcher):
    """Mean over the watched steps of ||H s||, see `HessianScore`."""

    norms: list[torch.Tensor]

    def begin(self) -> None:
        self.norms = []

    def on_step(self, step: Step, prediction: Prediction) -> None:
        x, t, delta = prediction.x.float(), prediction.t, prediction.conditional
        if self.detector.product == "forward":
            product = directional(self.predictor, x, t, delta)
        else:
            product = directional_by_difference(
                self.predictor, x, t, delta, delta, self.detector.step_length
            )
        _, sigma = alpha_sigma(self.predictor.scheduler, t)
        norm = row_norm(product) / sigma**2  # s = -e / sigma twice
        self.norms.append(norm.square() if self.detector.power == 2 else norm)

    def finish(self, final: torch.Tensor, images) -> torch.Tensor:
        return torch.stack(self.norms).mean(0)


@register("sharpness", paper="Jeon et al., ICML 2025", cost="4K, K = --num_steps")
class HessianScore(Detector):
    """||H s||: s and H are the differences of the conditional and the unconditional score and of
    their Jacobians, where the UNet reads x.

    With s = -e / sigma, H s = J (e(x, c) - e(x, "")) / sigma^2. Source: section 4; the code's norm
    by default, the paper's square by `power`: the order of prompts is the same at one step. The
    official v formula reads v as x0 and is off by powers of sigma.
    """

    watcher = Sharpness
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
