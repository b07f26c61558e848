"""Sharpness-aware initialization (SAIL): Jeon et al., ICML 2025."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from memorization_suite.lazy import torch
from memorization_suite.mitigation.base import Adjustment, Mitigation, flag, quirks, register
from memorization_suite.mitigation.batch_wise import unit
from memorization_suite.sampling import (
    Batch,
    NoisePredictor,
    Prediction,
    alpha_sigma,
    initial_noise,
)
from memorization_suite.sampling.gradients import frozen, in_parts
from memorization_suite.sampling.loop import input_scale
from memorization_suite.sampling.noise import derived, stream
from memorization_suite.sampling.noise_predictor import HALVES, row_norm

# Every third restart the threshold grows; the official new seed is below 50000.
THRESHOLD_STEP = 0.1
RESTARTS_PER_STEP = 3
SEEDS = 50_000


@dataclass
class Candidate:
    """A noise as it was evaluated. x: (4, h, w); loss; magnitude: ||e(x, c) - e(x, "")||; halves:
    e(x, ...) by name, (4, h, w).
    """

    x: torch.Tensor
    loss: float
    magnitude: float
    halves: dict[str, torch.Tensor]


class Attempt:
    """Noises that are optimised from `start`, (k, 4, h, w); row i belongs to image i of the
    predictor and has its own Adam state.
    """

    def __init__(self, method: Sail, predictor: NoisePredictor, start: torch.Tensor, t):
        self.method, self.predictor, self.start, self.t = method, predictor, start, t
        self.rows = [row.clone().requires_grad_() for row in start]
        self.optimizer = torch.optim.Adam(self.rows, lr=method.lr)
        self.found: dict[int, Candidate] = {}

    def evaluate(
        self, part: torch.Tensor, *, threshold: float, differentiate: bool
    ) -> torch.Tensor:
        """Evaluates the rows `part` and returns those that go on, with their gradients: the loss is
        above the threshold. part, result: indices.
        """
        x = torch.stack([self.rows[i].detach() for i in part.tolist()]).requires_grad_(
            differentiate
        )
        with torch.set_grad_enabled(differentiate):
            loss, prediction = self.method.loss(
                self.predictor.select(part), x, self.start[part], self.t
            )
        seen, magnitude = loss.detach().cpu(), prediction.magnitude().tolist()
        for k, i in enumerate(part.tolist()):
            self.found[i] = Candidate(
                x[k].detach(),
                float(seen[k]),
                magnitude[k],
                {name: prediction.halves[name][k].detach() for name in HALVES},
            )
        going = torch.isfinite(seen) & (seen > threshold)
        if differentiate and going.any():
            (gradient,) = torch.autograd.grad(loss, x, grad_outputs=going.to(loss))
            for i, g in zip(part[going].tolist(), gradient[going]):
                self.rows[i].grad = g
        return part[going]

    def step(self) -> None:
        """One update of the rows that have a gradient."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class Kept:
    """What each image of the batch has so far: its accepted noise, else its best one."""

    def __init__(self, x: torch.Tensor):
        n = len(x)
        self.start = x
        self.best: list[Candidate | None] = [None] * n
        self.first_magnitude = torch.full((n,), torch.nan)
        self.updates, self.restarts, self.attempt = torch.zeros(3, n, dtype=torch.long)
        self.reached, self.failed = torch.zeros(2, n, dtype=torch.bool)

    def take(self, image: int, made: Candidate, restart: int, *, accepted: bool) -> None:
        """Notes a candidate of this image."""
        best = self.best[image]
        if best is None:
            self.first_magnitude[image] = made.magnitude
        if best is None or accepted or made.loss < best.loss:
            self.best[image], self.attempt[image] = made, restart
        self.reached[image] = accepted
        self.failed[image] |= not math.isfinite(made.loss)

    def result(self, predictor: NoisePredictor, t, batch: Batch, *, known: bool) -> Adjustment:
        """The noises; an image with a loss that was not finite, or without a candidate, gets its
        own back, evaluated once more. known: whether what was evaluated is the prediction at them.
        """
        again = torch.tensor(
            [i for i, best in enumerate(self.best) if best is None or self.failed[i]],
            dtype=torch.long,
        )
        if len(again):
            own = predictor.select(again).at(self.start[again], t)
            for k, (i, magnitude) in enumerate(zip(again.tolist(), own.magnitude().tolist())):
                self.best[i] = Candidate(
                    self.start[i],
                    math.nan,
                    magnitude,
                    {name: own.halves[name][k] for name in HALVES},
                )
                self.attempt[i], self.reached[i] = 0, False
        best = [one for one in self.best if one is not None]
        x = torch.stack([one.x for one in best])
        last = {}
        if known:
            batch.first = predictor.at(x, t)
            batch.first.halves = {
                name: torch.stack([one.halves[name] for one in best]) for name in HALVES
            }
            last = {"last_magnitude": torch.tensor([one.magnitude for one in best])}
        return Adjustment(
            x,
            {
                "iterations": self.updates,
                "restarts": self.restarts,
                "attempt": self.attempt,
                "first_magnitude": self.first_magnitude,
                **last,
                "loss": torch.tensor([one.loss for one in best]),
                "reached": self.reached,
                "failed": self.failed,
                "norm": row_norm(x),
                "moved": row_norm(x - self.start),
            },
        )


@register(
    "sail",
    paper="Jeon et al., ICML 2025, Algorithm 2",
    cost="4E + 2N - 2 and J backward passes: E evaluations, J = E - attempts updates",
)
class Sail(Mitigation):
    """Adam on each initial noise x until the loss is at most l_thres; a fresh noise when max_steps
    evaluations did not suffice.

    With e(x) = e(x, c) - e(x, "") and u = e(x) / ||e(x)||: loss = ||e(x + delta u)|| + alpha ||x||
    (the official code's; SD 2: alpha 0.01, l_thres 4 to 6, in units of its v quirk), or with s = -e
    / sigma the paper's ||s(x + delta s / ||s||) - s(x)||^2 + alpha ||x||^2, for which no threshold
    is published. The gradient flows through u. Differs from the code: every image optimises its own
    noise, so that images are paired with other methods' (code: eight candidates of one seed for a
    prompt, first come); u is that of the iterate (code: of the start); after the last restart the
    best noise is kept (code: goes on for ever). A fresh noise is drawn from SeedSequence([the
    image's seed, restart]); every third restart l_thres grows by 0.1. attempt in the figures: the
    restart whose noise is kept.
    """

    lr: float = flag(0.05, "learning rate of Adam, in unit-variance latents", above=0.0)
    max_steps: int = flag(10, "most evaluations of one noise", short="ms", at_least=1)
    l_thres: float = flag(8.2, "the loss at which a noise is accepted", above=0.0)
    alpha: float = flag(0.05, "weight of the noise's length", at_least=0.0)
    restarts: int = flag(
        8, "most fresh noises of one image, then its best one is kept", short="re", at_least=0
    )
    delta: float = flag(
        1.0, "length of the probe, in unit-variance latents", above=0.0, always_named=False
    )
    objective: str = flag(
        "code",
        "the official code's loss or the paper's",
        choices=("code", "paper"),
        always_named=False,
    )
    stop_gradient: bool = flag(
        False,
        "1: no gradient through the probe's direction",
        short="stopgrad",
        always_named=False,
    )
    budget: int = flag(
        8, "with --official same_candidates: candidates of a prompt", at_least=1, always_named=False
    )
    grad_rows: int = flag(
        0,
        "images per backward pass; 0: as many as fit into memory",
        at_least=0,
        changes_result=False,
    )
    official: str = quirks("fixed_direction", "same_candidates", "v_as_x0")

    def loss(
        self, predictor: NoisePredictor, x: torch.Tensor, start: torch.Tensor, t
    ) -> tuple[torch.Tensor, Prediction]:
        """Loss (k,) and the prediction that gave the direction: at x, under `fixed_direction` at
        start with the gradient handed to x.
        """
        sigma = alpha_sigma(predictor.scheduler, t)[1]
        factor = (
            -1 / sigma if "v_as_x0" in self.official and not predictor.is_epsilon else 1.0
        )  # e = (x - alpha v) / sigma, read so
        prediction = predictor.at(
            start + (x - x.detach()) if "fixed_direction" in self.official else x, t
        )
        e = factor * prediction.conditional
        u = unit(e.detach() if self.stop_gradient else e)
        if self.objective == "code":
            return row_norm(
                factor * predictor.conditional_noise(x + self.delta * u, t)
            ) + self.alpha * row_norm(x), prediction
        change = factor * predictor.conditional_noise(x - self.delta * u, t) - e
        return row_norm(change).square() / sigma**2 + self.alpha * row_norm(x).square(), prediction

    def threshold(self, attempt: int) -> float:
        return self.l_thres + THRESHOLD_STEP * (attempt // RESTARTS_PER_STEP)

    def adjust_initial_noise(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> Adjustment:
        with frozen(predictor.unet):
            kept = (self.fill if "same_candidates" in self.official else self.search)(
                predictor, x, t, batch
            )
        return kept.result(predictor, t, batch, known="fixed_direction" not in self.official)

    def search(self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch) -> Kept:
        """Every image for itself; those that are not done are evaluated together."""
        kept, active, size = Kept(x), torch.arange(len(x)), self.grad_rows or len(x)
        for restart in range(self.restarts + 1):
            kept.restarts[active] = restart
            start = (
                x[active]
                if restart == 0
                else fresh_noise(
                    [batch.seeds[i] for i in active.tolist()], restart, predictor, x, t
                )
            )
            attempt, going, threshold = (
                Attempt(self, predictor.select(active), start, t),
                torch.arange(len(active)),
                self.threshold(restart),
            )
            for k in range(self.max_steps):
                last, seen = k + 1 == self.max_steps, going.tolist()
                parts, size = in_parts(
                    partial(attempt.evaluate, threshold=threshold, differentiate=not last),
                    going,
                    size,
                )
                going = torch.cat([on for _, on in parts])
                for i in seen:
                    kept.take(
                        int(active[i]),
                        attempt.found[i],
                        restart,
                        accepted=attempt.found[i].loss <= threshold,
                    )
                if last or not len(going):
                    break
                attempt.step()
                kept.updates[active[going]] += 1
            active = active[going]
            if not len(active):
                break
        return kept

    def fill(self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch) -> Kept:
        """--official same_candidates: a prompt's images are filled from candidates of the prompt's
        seed.
        """
        kept = Kept(x)
        for group in batch.groups():
            owners = group[
                torch.arange(self.budget) % len(group)
            ]  # whose rows the candidates' count as
            pool = self.pool(
                predictor.select(owners), len(group), batch.prompt_seeds[int(group[0])], x, t
            )
            for image, (candidate, updates, restart, accepted) in zip(group.tolist(), pool):
                kept.take(image, candidate, restart, accepted=accepted)
                kept.updates[image], kept.restarts[image] = (
                    updates,
                    restart if accepted else self.restarts,
                )
        return kept

    def pool(
        self, predictor: NoisePredictor, wanted: int, seed: int, x: torch.Tensor, t
    ) -> list[tuple[Candidate, int, int, bool]]:
        """(candidate, its updates, restarts before it, accepted?) of up to `wanted` candidates,
        first come; then the best of the others.
        """
        pool: list[tuple[Candidate, int, int, bool]] = []
        others: list[tuple[Candidate, int, int, bool]] = []
        size = self.grad_rows or self.budget
        for restart in range(self.restarts + 1):
            generator, taken = stream(seed), set()
            noise = torch.randn((self.budget, *x.shape[1:]), generator=generator)
            attempt = Attempt(self, predictor, as_read(noise, predictor, x, t), t)
            for k in range(self.max_steps):
                last = k + 1 == self.max_steps
                _, size = in_parts(
                    partial(attempt.evaluate, threshold=-math.inf, differentiate=not last),
                    torch.arange(self.budget),
                    size,
                )
                fresh = [
                    i
                    for i, one in sorted(attempt.found.items())
                    if i not in taken and one.loss <= self.threshold(restart)
                ]
                pool += [(attempt.found[i], k, restart, True) for i in fresh]
                taken |= set(fresh)
                if len(pool) >= wanted:
                    return pool[:wanted]
                if not last:
                    attempt.step()
            others += [
                (one, k, restart, False)
                for i, one in attempt.found.items()
                if i not in taken and math.isfinite(one.loss)
            ]
            if (restart + 1) % RESTARTS_PER_STEP == 0:
                seed = int(torch.randint(0, SEEDS, (1,), generator=generator))
        return pool + sorted(others, key=lambda other: other[0].loss)[: wanted - len(pool)]


def fresh_noise(
    seeds: list[int], restart: int, predictor: NoisePredictor, like: torch.Tensor, t
) -> torch.Tensor:
    """Noise of images that start anew, as the UNet reads it, (len(seeds), 4, h, w)."""
    shape = (like.shape[1], like.shape[2], like.shape[3])
    drawn = initial_noise([derived(seed, restart) for seed in seeds], shape)
    return as_read(drawn, predictor, like, t)


def as_read(noise: torch.Tensor, predictor: NoisePredictor, like: torch.Tensor, t) -> torch.Tensor:
    """Drawn noise as the UNet reads it at the first timestep: Euler's is a quarter of a percent
    shorter.
    """
    return (
        noise.to(like)
        * float(predictor.scheduler.init_noise_sigma)
        / input_scale(predictor.scheduler, t)
    )
