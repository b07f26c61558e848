"""Derivatives with respect to inputs only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from memorization_suite.runs.lazy import F, forward_ad, torch, torch_attention
from memorization_suite.sampling.denoiser import Denoiser
from memorization_suite.sampling.noise_predictor import NoisePredictor

# What forward-mode differentiation runs in, whatever the network's dtype: some of torch's operators
# give a tangent in float32 to a number of half precision, others then refuse the two.
FORWARD_MODE = "fp32"
# A row in forward mode takes the memory of so many others at most: each number has 32 bits and a
# tangent, and the network's weights are there once more.
FORWARD_MODE_ROWS = 20
T = TypeVar("T")


def forward_product(
    function: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    v: torch.Tensor,
    *,
    sparing: bool = False,
) -> torch.Tensor:
    """J v, J the function's Jacobian at x, by forward-mode differentiation.

    Everything is float32: the function's part of it is `NoisePredictor.in_float32`. sparing: in
    less memory, but slower; the result may differ by rounding.
    """
    with ExitStack() as opened:
        opened.enter_context(forward_ad.dual_level())
        # Fused attention has no forward mode.
        opened.enter_context(torch_attention.sdpa_kernel(torch_attention.SDPBackend.MATH))
        if sparing:
            opened.enter_context(heads_one_by_one())
        result = function(forward_ad.make_dual(x, v))
        return forward_ad.unpack_dual(result).tangent


def heads_one_by_one() -> AbstractContextManager:
    """Inside the block torch's attention has the weights of one head of one row at a time."""

    class OneByOne(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            options = kwargs or {}
            if function is not F.scaled_dot_product_attention or len(args) != 3:
                return function(*args, **options)
            query, key, value = (each.flatten(0, 1).split(1) for each in args)
            mixed = [function(*head, **options) for head in zip(query, key, value)]
            return torch.cat(mixed).unflatten(0, args[0].shape[:2])

    return OneByOne()


def forward_mode_images(model: Denoiser, rows: int, most: int) -> int:
    """How many images go through the network together in forward mode, of `most`. rows: of each."""
    if model.limits.forward is None:
        return most
    return min(most, max(1, model.limits.forward // (rows * FORWARD_MODE_ROWS)))


class Iterates:
    """Rows that are optimized together, each with its own optimizer state.

    The optimizer passes over a row that has no gradient.
    """

    def __init__(self, start: torch.Tensor, optimizer: type[torch.optim.Optimizer], **settings):
        self.rows = [row.clone().requires_grad_() for row in start]
        self.optimizer = optimizer(self.rows, **settings)

    def at(self, part: torch.Tensor, *, differentiate: bool) -> torch.Tensor:
        """The rows with these indices, stacked; a copy, which gradients may be taken by."""
        x = torch.stack([self.rows[i].detach() for i in part.tolist()])
        return x.requires_grad_(differentiate)

    def keep_gradients(
        self, loss: torch.Tensor, x: torch.Tensor, part: torch.Tensor, going: torch.Tensor
    ) -> None:
        """Gradients of the losses (k,) by x, for those rows of `part` that go on, (k,) bool."""
        if not x.requires_grad or not going.any():
            return
        (gradient,) = torch.autograd.grad(loss, x, grad_outputs=going.to(loss))
        for i, row in zip(part[going].tolist(), gradient[going.to(gradient.device)]):
            self.rows[i].grad = row

    def step(self) -> None:
        """One update of the rows that have a gradient."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class Parts:
    """Evaluates rows in parts of the size that memory allows for their gradients.

    A row is an image of the predictor, or something that has several, which images_of names. asked:
    rows in a part; 0: as many as the model's limits allow. kept: rows of the network that a row's
    gradient needs.
    """

    def __init__(
        self,
        predictor: NoisePredictor,
        asked: int,
        *,
        kept: int,
        images_of: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        self.predictor = predictor
        self.size: int | None = asked or None
        limit = predictor.model.limits.backward
        if not asked and limit is not None:
            self.size = max(1, limit // kept)
        self.images_of = images_of or (lambda rows: rows)

    def evaluate(self, function: Callable[[torch.Tensor], T], rows: torch.Tensor) -> list[T]:
        """What the function gives for each part of the rows. Raises torch.OutOfMemoryError when
        not even one row fits.
        """
        return self.predictor.grad_passes.run(
            function,
            rows,
            planned=self.size or len(rows),
            rows=1,
            images_of=lambda part: self.predictor.images[self.images_of(part)],
        )
