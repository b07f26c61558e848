"""Per-sample adjustment of the initial noise: Han et al., NeurIPS 2025, Appendix A."""

from __future__ import annotations

from functools import partial

from memorization_suite.lazy import torch
from memorization_suite.mitigation.base import Adjustment, Mitigation, flag, register
from memorization_suite.sampling import Batch, NoisePredictor
from memorization_suite.sampling.gradients import frozen, in_parts
from memorization_suite.sampling.noise_predictor import HALVES, row_norm


class Search:
    """State of the images under optimisation: each has its own iterate, AdamW state, best iterate
    and counters.
    """

    def __init__(self, predictor: NoisePredictor, x: torch.Tensor, t, make_optimizer):
        self.predictor, self.t, self.start = predictor, t, x
        self.rows = [row.clone().requires_grad_() for row in x]
        self.optimizer = make_optimizer(self.rows)
        self.best = x.clone()
        self.best_magnitude = torch.full((len(x),), torch.inf, device=x.device)
        self.halves: dict[str, torch.Tensor] = {}
        self.first_magnitude = torch.zeros_like(self.best_magnitude)
        self.updates = torch.zeros(len(x), dtype=torch.long)
        self.failed = torch.zeros(len(x), dtype=torch.bool)

    def evaluate(self, part: torch.Tensor, target: float, *, differentiate: bool) -> torch.Tensor:
        """Magnitudes and gradients of the images `part` at their iterates; returns those that go
        on. part, result: indices.
        """
        x = torch.stack([self.rows[i].detach() for i in part.tolist()]).requires_grad_(
            differentiate
        )
        prediction = self.predictor.select(part).at(x, self.t)
        with torch.set_grad_enabled(differentiate):
            magnitude = prediction.magnitude()
        finite = torch.isfinite(magnitude).cpu()
        self.failed[part[~finite]] = True
        self.keep_best(
            part,
            x.detach(),
            magnitude.detach(),
            {name: prediction.halves[name].detach() for name in HALVES},
        )
        going = finite & (magnitude.detach().cpu() > target)
        if differentiate and going.any():
            (gradient,) = torch.autograd.grad(magnitude, x, grad_outputs=going.to(magnitude))
            for i, g in zip(part[going].tolist(), gradient[going.to(x.device)]):
                self.rows[i].grad = g
        return part[going]

    def keep_best(self, part: torch.Tensor, x, magnitude, halves) -> None:
        where = part.to(x.device)
        if not self.halves:
            self.halves = {
                name: half.new_zeros((len(self.rows), *half.shape[1:]))
                for name, half in halves.items()
            }
        first = (self.updates[part] == 0).to(x.device)
        self.first_magnitude[where[first]] = magnitude[first]
        better = magnitude < self.best_magnitude[where]
        self.best[where[better]] = x[better]
        self.best_magnitude[where[better]] = magnitude[better]
        for name, half in halves.items():
            self.halves[name][where[better]] = half[better]

    def step(self, going: torch.Tensor) -> None:
        """One AdamW update of the images `going`; the others have no gradient, so the optimizer
        passes them over.
        """
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates[going] += 1

    def result(self, target: float, batch: Batch) -> Adjustment:
        """The best iterates; an image with a non-finite magnitude gets its own noise back,
        evaluated once more.
        """
        again = self.failed.nonzero().flatten()
        if len(again):
            where = again.to(self.best.device)
            prediction = self.predictor.select(again).at(self.start[where], self.t)
            self.best[where], self.best_magnitude[where] = self.start[where], prediction.magnitude()
            for name in HALVES:
                self.halves[name][where] = prediction.halves[name]
        batch.first = self.predictor.at(self.best, self.t)
        batch.first.halves = self.halves
        return Adjustment(
            self.best,
            {
                "iterations": self.updates,
                "first_magnitude": self.first_magnitude,
                "last_magnitude": self.best_magnitude,
                "reached": self.best_magnitude <= target,
                "failed": self.failed,
                "norm": row_norm(self.best),
                "moved": row_norm(self.best - self.start),
            },
        )


@register(
    "per_sample",
    paper="Han et al., NeurIPS 2025, Appendix A",
    cost="2N + 2J and J backward passes, J updates",
)
class PerSample(Mitigation):
    """AdamW on each latent until ||e(x, c) - e(x, "")|| <= target, then guidance from step 0.

    Source: Appendix A. All images of a batch are optimised together, each with its own state, and
    leave the batch when they
    are done: the same iterates as one after the other. At the cap the best iterate is kept
    (official: the last).
    Source of the stopping rule: the official code (<=, checked before an update).
    """

    lr: float = flag(0.01, "learning rate of AdamW, in unit-variance latents", above=0.0)
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

    def adjust_initial_noise(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> Adjustment:
        search = Search(
            predictor,
            x,
            t,
            lambda rows: torch.optim.AdamW(rows, lr=self.lr, weight_decay=self.weight_decay),
        )
        active, size = torch.arange(len(x)), self.grad_rows or len(x)
        with frozen(predictor.unet):
            for iteration in range(self.optim_iters + 1):
                last = iteration == self.optim_iters
                parts, size = in_parts(
                    partial(search.evaluate, target=self.target_loss, differentiate=not last),
                    active,
                    size,
                )
                active = torch.cat([going for _, going in parts])
                if last or not len(active):
                    break
                search.step(active)
        return search.result(self.target_loss, batch)
