"""Per-sample adjustment of the initial noise: Han et al., NeurIPS 2025, Appendix A."""

from __future__ import annotations

from functools import partial

from memorization_suite.mitigation.base import (
    Adjustment,
    Ahead,
    Mitigation,
    flag,
    quirks,
    register,
)
from memorization_suite.runs.lazy import torch
from memorization_suite.sampling import Batch, NoisePredictor
from memorization_suite.sampling.gradients import Iterates, Parts
from memorization_suite.sampling.noise_predictor import HALVES, row_norm


class Search:
    """The images under optimization: each has its own iterate, AdamW state, best iterate and
    counters.
    """

    def __init__(self, method: PerSample, predictor: NoisePredictor, x: torch.Tensor, t):
        n = len(x)
        self.predictor = predictor
        self.t = t
        self.target = method.target_loss
        self.start = x
        iterates = x.bfloat16() if "bf16_latents" in method.official else x
        self.iterates = Iterates(
            iterates, torch.optim.AdamW, lr=method.lr, weight_decay=method.weight_decay
        )
        # The best iterates so far, their magnitudes and their predictions.
        self.best = x.clone()
        self.best_magnitude = torch.full((n,), torch.inf, device=x.device)
        self.best_halves: dict[str, torch.Tensor] = {}
        self.first_magnitude = torch.zeros_like(self.best_magnitude)
        self.updates = torch.zeros(n, dtype=torch.long)
        # Whose magnitude was not finite once.
        self.failed = torch.zeros(n, dtype=torch.bool)

    def evaluate(self, part: torch.Tensor, *, differentiate: bool) -> torch.Tensor:
        """The images of `part` that go on after an evaluation at their iterates, with gradients.

        part, result: indices.
        """
        x = self.iterates.at(part, differentiate=differentiate)
        with torch.set_grad_enabled(differentiate):
            latents = x.to(self.start.dtype)
        prediction = self.predictor.select(part).at(latents, self.t)
        with torch.set_grad_enabled(differentiate):
            magnitude = prediction.magnitude()
        finite = torch.isfinite(magnitude).cpu()
        self.failed[part[~finite]] = True
        halves = {half: prediction.halves[half].detach() for half in HALVES}
        self.keep_best(part, latents.detach(), magnitude.detach(), halves)
        going = finite & (magnitude.detach().cpu() > self.target)
        self.iterates.keep_gradients(magnitude, x, part, going)
        return part[going]

    def keep_best(
        self,
        part: torch.Tensor,
        x: torch.Tensor,
        magnitude: torch.Tensor,
        halves: dict[str, torch.Tensor],
    ) -> None:
        """Notes what was evaluated, where it is better than before."""
        where = part.to(x.device)
        for name, half in halves.items():
            if name not in self.best_halves:
                self.best_halves[name] = half.new_zeros((len(self.best), *half.shape[1:]))
        first = (self.updates[part] == 0).to(x.device)
        self.first_magnitude[where[first]] = magnitude[first]
        better = magnitude < self.best_magnitude[where]
        self.best[where[better]] = x[better]
        self.best_magnitude[where[better]] = magnitude[better]
        for name, half in halves.items():
            self.best_halves[name][where[better]] = half[better]

    def step(self, going: torch.Tensor) -> None:
        """One AdamW update of the images `going`, which have gradients."""
        self.iterates.step()
        self.updates[going] += 1

    def restore_failed(self) -> None:
        """An image with a non-finite magnitude gets its own noise back, evaluated once more."""
        failed = self.failed.nonzero().flatten()
        if not len(failed):
            return
        where = failed.to(self.best.device)
        prediction = self.predictor.select(failed).at(self.start[where], self.t)
        self.best[where] = self.start[where]
        self.best_magnitude[where] = prediction.magnitude()
        for half in HALVES:
            self.best_halves[half][where] = prediction.halves[half]

    def result(self, batch: Batch) -> Adjustment:
        """The best iterates."""
        self.restore_failed()
        batch.first = self.predictor.at(self.best, self.t)
        batch.first.halves = self.best_halves
        numbers = {
            "iterations": self.updates,
            "first_magnitude": self.first_magnitude,
            "last_magnitude": self.best_magnitude,
            "reached": self.best_magnitude <= self.target,
            "failed": self.failed,
            "norm": row_norm(self.best),
            "moved": row_norm(self.best - self.start),
        }
        return Adjustment(self.best, numbers)


@register(
    "per_sample",
    paper="Han et al., NeurIPS 2025, Appendix A",
    cost="2N + 2J and J backward passes, J updates",
    code="hygnhan/init_noise_diffusion_memorization",
    compared="equal in fp32, with the same numbers of updates",
)
class PerSample(Mitigation):
    """AdamW on each latent until ||e(x, c) - e(x, "")|| <= target, then guidance from step 0.

    All images of a batch are optimized together, each with its own state, and leave the batch when
    they are done. The iterates are those of one image after the other.

    Source: Appendix A; the stopping rule is the official code's (<=, checked before an update).
    Differs: at the cap the best iterate is kept (official code: the last).
    """

    lr: float = flag(
        0.01, "learning rate of AdamW, in unit-variance latents", above=0.0, at_most=1e30
    )
    target_loss: float = flag(0.9, "target of the magnitude, epsilon units", short="tl", above=0.0)
    optim_iters: int = flag(1000, "most updates of one image", short="oi", at_least=0)
    weight_decay: float = flag(
        0.01, "decoupled weight decay of AdamW", short="wd", at_least=0.0, always_named=False
    )
    grad_rows: int = flag(
        0,
        "images per backward pass; 0: as many as fit into memory",
        at_least=0,
        changes_result=False,
    )
    official: str = quirks(
        bf16_latents="the optimized latents and AdamW's state are bfloat16: at the learning rate "
        "of 0.01 its rounding undoes weight decays of up to 0.1"
    )

    def derivatives(self, dtype: str) -> str:
        return dtype

    def most(self, ahead: Ahead) -> dict[str, float]:
        return {"J": self.optim_iters}

    def adjust_initial_noise(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> Adjustment:
        search = Search(self, predictor, x, t)
        active = torch.arange(len(x))
        parts = Parts(predictor, self.grad_rows, kept=len(HALVES))
        with predictor.model.frozen():
            for update in range(self.optim_iters + 1):
                last = update == self.optim_iters
                evaluate = partial(search.evaluate, differentiate=not last)
                active = torch.cat(parts.evaluate(evaluate, active))
                if last or not len(active):
                    break
                search.step(active)
        return search.result(batch)
