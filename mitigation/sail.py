"""Sharpness-aware initialization (SAIL): Jeon et al., ICML 2025."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from memorization_suite.sampling import (
    Batch,
    NoisePredictor,
    Prediction,
    initial_noise,
)
from memorization_suite.sampling.gradients import Iterates, Parts
from memorization_suite.sampling.noise import derived, reseeded
from memorization_suite.sampling.noise_predictor import HALVES, row_norm, unit

# Every third restart the threshold grows; the official new seed is below 50000.
THRESHOLD_STEP = 0.1
RESTARTS_PER_STEP = 3
SEEDS = 50_000


@dataclass
class Candidate:
    """A noise as it was evaluated."""

    # (4, h, w).
    x: torch.Tensor
    loss: float
    # ||e(x, c) - e(x, "")||.
    magnitude: float
    # e(x, ...) by half, (4, h, w) each.
    halves: dict[str, torch.Tensor]
    # Before its noise was drawn.
    restart: int = 0
    # Of its noise.
    updates: int = 0
    # Is the loss low enough?
    accepted: bool = False


def candidates_of(prediction: Prediction, x: torch.Tensor, losses: list[float]) -> list[Candidate]:
    """One for each noise of x, (k, 4, h, w), which the prediction is of."""
    candidates = []
    for k, magnitude in enumerate(prediction.magnitude().tolist()):
        halves = {half: prediction.halves[half][k].detach() for half in HALVES}
        candidates.append(Candidate(x[k].detach(), losses[k], magnitude, halves))
    return candidates


class SailRestart:
    """Noises that are optimized from `start`, (k, 4, h, w).

    Row i belongs to image i of the predictor and has its own Adam state.
    """

    def __init__(
        self,
        method: Sail,
        predictor: NoisePredictor,
        start: torch.Tensor,
        t,
        restart: int,
    ):
        self.method = method
        self.predictor = predictor
        self.start = start
        self.t = t
        self.restart = restart
        # How many there were.
        self.updates = 0
        # e at the noise and at the probe.
        self.parts = Parts(predictor, method.grad_rows, kept=2 * len(HALVES))
        self.iterates = Iterates(start, torch.optim.Adam, lr=method.lr)
        # The newest evaluation of each row.
        self.candidates: dict[int, Candidate] = {}

    def evaluations(self) -> Iterator[list[int]]:
        """The rows of each evaluation, at most `max_steps`; between two of them lies an update.

        Where accepted noises go on, one follows the last, too.
        """
        rows = torch.arange(len(self.start))
        for updates in range(self.method.max_steps):
            last = updates + 1 == self.method.max_steps and not self.method.moving
            evaluate = partial(self.evaluate, differentiate=not last)
            going = torch.cat(self.parts.evaluate(evaluate, rows))
            yield rows.tolist()
            rows = going
            if last or not len(rows):
                return
            self.iterates.step()
            self.updates += 1

    def moved(self, i: int, candidate: Candidate) -> Candidate:
        """A candidate of row i with the noise as it is by now."""
        x = self.iterates.rows[i].detach().clone()
        return replace(candidate, x=x, updates=self.updates)

    def evaluate(self, part: torch.Tensor, *, differentiate: bool) -> torch.Tensor:
        """The rows of `part` that go on, with gradients: those whose loss is above the threshold,
        of a pool all.

        part, result: indices.
        """
        x = self.iterates.at(part, differentiate=differentiate)
        predictor = self.predictor.select(part)
        with torch.set_grad_enabled(differentiate):
            loss, prediction = self.method.loss(predictor, x, self.start[part], self.t)
        losses = loss.detach().cpu()
        accepted = losses <= self.method.threshold(self.restart)
        going = torch.isfinite(losses) & (~accepted | self.method.pooled)
        self.iterates.keep_gradients(loss, x, part, going)

        candidates = candidates_of(prediction, x, losses.tolist())
        for i, k_accepted, candidate in zip(part.tolist(), accepted.tolist(), candidates):
            candidate.restart = self.restart
            candidate.updates = self.updates
            candidate.accepted = k_accepted
            self.candidates[i] = candidate
        return part if self.method.pooled else part[going]


class SailState:
    """What each image of the batch has so far: its accepted noise, else its best one."""

    def __init__(self, x: torch.Tensor):
        n = len(x)
        self.start = x
        self.best: list[Candidate | None] = [None] * n
        self.first_magnitude = torch.full((n,), torch.nan)
        self.updates = torch.zeros(n, dtype=torch.long)
        self.restarts = torch.zeros(n, dtype=torch.long)
        # Whose loss was not finite once.
        self.failed = torch.zeros(n, dtype=torch.bool)

    def take(self, image: int, candidate: Candidate) -> None:
        """Notes a candidate of this image."""
        best = self.best[image]
        if best is None:
            self.first_magnitude[image] = candidate.magnitude
        if best is None or candidate.accepted or candidate.loss < best.loss:
            self.best[image] = candidate
        self.failed[image] |= not math.isfinite(candidate.loss)

    def restore_failed(self, predictor: NoisePredictor, t) -> None:
        """An image with a loss that was not finite, or without a candidate, gets its own noise
        back, evaluated once more.
        """
        images = [i for i, best in enumerate(self.best) if best is None or self.failed[i]]
        if not images:
            return
        rows = torch.tensor(images)
        x = self.start[rows]
        prediction = predictor.select(rows).at(x, t)
        for i, candidate in zip(images, candidates_of(prediction, x, [math.nan] * len(images))):
            self.best[i] = candidate

    def result(self, predictor: NoisePredictor, t, batch: Batch, *, known: bool) -> Adjustment:
        """The noises. known: whether what was evaluated is the prediction at them."""
        self.restore_failed(predictor, t)
        best = [candidate for candidate in self.best if candidate is not None]
        x = torch.stack([candidate.x for candidate in best])
        numbers = {
            "iterations": self.updates,
            "restarts": self.restarts,
            "attempt": torch.tensor([candidate.restart for candidate in best]),
            "first_magnitude": self.first_magnitude,
        }
        if known:
            batch.first = predictor.at(x, t)
            for half in HALVES:
                halves = [candidate.halves[half] for candidate in best]
                batch.first.halves[half] = torch.stack(halves)
            numbers["last_magnitude"] = torch.tensor([candidate.magnitude for candidate in best])
        numbers |= {
            "loss": torch.tensor([candidate.loss for candidate in best]),
            "reached": torch.tensor([candidate.accepted for candidate in best]),
            "failed": self.failed,
            "norm": row_norm(x),
            "moved": row_norm(x - self.start),
        }
        return Adjustment(x, numbers)


class SailPool:
    """--official same_candidates: up to `wanted` candidates of a prompt's seed, first come.

    as_official: the script's draws, in the network's dtype and on its device; else on the CPU in
    float32.
    """

    def __init__(
        self, method: Sail, predictor: NoisePredictor, wanted: int, t, *, as_official: bool
    ):
        self.method = method
        self.predictor = predictor
        self.wanted = wanted
        self.t = t
        self.as_official = as_official
        self.accepted: list[Candidate] = []
        # The last evaluations of candidates that were never good enough.
        self.others: list[Candidate] = []

    @property
    def is_full(self) -> bool:
        """Whether every image has a candidate."""
        return len(self.accepted) >= self.wanted

    def fill(self, seed: int, x: torch.Tensor) -> list[Candidate]:
        """The candidates, completed by the best of the others. x: of the images, for its shape."""
        shape = (self.method.budget, *x.shape[1:])
        for restart in range(self.method.restarts + 1):
            noise, generator = self.draw(seed, shape)
            self.try_noises(as_read(noise, self.predictor, x, self.t), restart)
            if self.is_full:
                return self.accepted[: self.wanted]
            if (restart + 1) % RESTARTS_PER_STEP == 0:
                seed = int(torch.randint(0, SEEDS, (1,), generator=generator))
        self.others.sort(key=lambda candidate: candidate.loss)
        return self.accepted + self.others[: self.wanted - len(self.accepted)]

    def draw(self, seed: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Generator]:
        """The noises of a seed, and what draws the next seed."""
        model = self.predictor.model
        if self.as_official:
            return reseeded(seed, shape, model.dtype, str(model.device))
        return reseeded(seed, shape, torch.float32, "cpu")

    def try_noises(self, start: torch.Tensor, restart: int) -> None:
        """Optimizes the candidates together, until there are enough."""
        run = SailRestart(self.method, self.predictor, start, self.t, restart)
        # Row -> where it stands among the accepted ones.
        taken: dict[int, int] = {}
        for rows in run.evaluations():
            for i in rows:
                if run.candidates[i].accepted and i not in taken:
                    taken[i] = len(self.accepted)
                    self.accepted.append(run.candidates[i])
            if self.is_full:
                break
        if self.method.moving:
            for i, place in taken.items():
                self.accepted[place] = run.moved(i, self.accepted[place])
        if self.is_full:
            return
        for i, candidate in run.candidates.items():
            if i not in taken and math.isfinite(candidate.loss):
                self.others.append(candidate)


@register(
    "sail",
    paper="Jeon et al., ICML 2025, Algorithm 2",
    cost="4E + 2N - 2 and J backward passes, E evaluations, J = E - attempts updates",
    code="Dongjae0324/sharpness_memorization_diffusion",
    compared="equal with --rng official and --official "
    "fixed_direction,moving_candidates,same_candidates,v_as_x0",
)
class Sail(Mitigation):
    """Adam on each initial noise x until the loss is at most l_thres. When max_steps evaluations do
    not suffice, a fresh noise is tried.

    With e(x) = e(x, c) - e(x, "") and u = e(x) / ||e(x)||, the official code's loss is
    ||e(x + delta u)|| + alpha ||x|| (SD 2: alpha 0.01, l_thres 4 to 6, in units of its v quirk).
    With s = -e / sigma, the paper's is ||s(x + delta s / ||s||) - s(x)||^2 + alpha ||x||^2; no
    threshold is published for it. The gradient flows through u.

    Differs from the code: every image optimizes its own noise, so that images are paired with other
    methods' (code: eight candidates of one seed for a prompt, first come, and a candidate that was
    accepted moves on until its round ends). u is that of the iterate (code: of the start). After
    the last restart the best noise is kept (code: goes on for ever). A fresh noise is drawn from
    SeedSequence([the image's seed, restart]); every third restart l_thres grows by 0.1. The figure
    `attempt` is the restart whose noise is kept. Candidates of --official same_candidates are drawn
    from the prompt's seed, with --rng official from --seed, for every prompt anew.
    """

    lr: float = flag(
        0.05, "learning rate of Adam, in unit-variance latents", above=0.0, at_most=1e30
    )
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
    official: str = quirks(
        fixed_direction="the probe's direction is that of the start, not of the iterate",
        moving_candidates="with same_candidates: an accepted candidate goes on with the optimizer "
        "until its round ends, and is kept as it is then; its loss stays that of its acceptance",
        same_candidates="a prompt's images share candidates of one seed, first come",
        v_as_x0="a v-prediction is read as x0",
    )

    @property
    def pooled(self) -> bool:
        """Whether a prompt's images share their candidates."""
        return "same_candidates" in self.official

    @property
    def pools_images(self) -> bool:
        return self.pooled

    @property
    def moving(self) -> bool:
        """Whether accepted candidates go on until their round ends."""
        return "moving_candidates" in self.official

    def loss(
        self, predictor: NoisePredictor, x: torch.Tensor, start: torch.Tensor, t
    ) -> tuple[torch.Tensor, Prediction]:
        """Loss (k,) and the prediction that gave the direction.

        It is at x, under `fixed_direction` at start with the gradient handed to x.
        """
        _, sigma = predictor.model.alpha_sigma(t)
        factor = 1.0
        if "v_as_x0" in self.official and predictor.model.predicts == "v":
            factor = -1 / sigma  # e = (x - alpha v) / sigma, read so
        at = x
        if "fixed_direction" in self.official:
            at = start + (x - x.detach())
        prediction = predictor.at(at, t)
        e = factor * prediction.conditional
        u = unit(e.detach() if self.stop_gradient else e)
        # With s = -e / sigma the paper's probe goes against u, and sigma^2 divides the square.
        delta = self.delta if self.objective == "code" else -self.delta
        e_probe = factor * predictor.conditional_noise(x + delta * u, t)
        length = row_norm(x)
        if self.objective == "code":
            return row_norm(e_probe) + self.alpha * length, prediction
        sharpness = row_norm(e_probe - e).square() / sigma**2
        return sharpness + self.alpha * length.square(), prediction

    def threshold(self, restart: int) -> float:
        """The loss at which a noise of this restart is accepted."""
        return self.l_thres + THRESHOLD_STEP * (restart // RESTARTS_PER_STEP)

    def check(self, num_steps: int) -> None:
        if self.moving and not self.pooled:
            raise ValueError(
                "--official moving_candidates needs same_candidates beside it: an image that "
                "optimizes its own noise ends there when the noise is accepted"
            )

    def derivatives(self, dtype: str) -> str:
        return dtype

    def most(self, ahead: Ahead) -> dict[str, float]:
        attempts = (self.restarts + 1) * (self.budget if self.pooled else 1)
        updates = self.max_steps - 1 + self.moving
        return {"E": attempts * self.max_steps, "J": attempts * updates}

    def adjust_initial_noise(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> Adjustment:
        with predictor.model.frozen():
            if self.pooled:
                state = self.fill_from_pools(predictor, x, t, batch)
            else:
                state = self.search(predictor, x, t, batch)
        known = "fixed_direction" not in self.official and not self.moving
        return state.result(predictor, t, batch, known=known)

    def search(self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch) -> SailState:
        """Every image for itself; those that are not done are evaluated together."""
        state = SailState(x)
        active = torch.arange(len(x))
        for restart in range(self.restarts + 1):
            state.restarts[active] = restart
            start = x[active]
            if restart > 0:
                seeds = [derived(batch.seeds[i], restart) for i in active.tolist()]
                channels, height, width = x.shape[1:]
                fresh = initial_noise(seeds, (channels, height, width))
                start = as_read(fresh, predictor, x, t)
            run = SailRestart(self, predictor.select(active), start, t, restart)
            going = self.optimize(run, state, active.tolist())
            active = torch.tensor(going, dtype=torch.long)
            if not going:
                break
        return state

    def optimize(self, run: SailRestart, state: SailState, images: list[int]) -> list[int]:
        """Those of the images whose noise did not become good enough. images: of the run's rows."""
        for rows in run.evaluations():
            for row in rows:
                state.take(images[row], run.candidates[row])
        going = []
        for row, candidate in run.candidates.items():
            state.updates[images[row]] += candidate.updates
            if math.isfinite(candidate.loss) and not candidate.accepted:
                going.append(images[row])
        return going

    def fill_from_pools(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> SailState:
        """--official same_candidates: a prompt's images are filled from candidates of the prompt's
        seed; with --rng official of the run's.
        """
        state = SailState(x)
        for group in batch.groups():
            # To whom the candidates' evaluations are counted.
            owners = group[torch.arange(self.budget) % len(group)]
            own = predictor.select(owners)
            official = batch.official_seed
            pool = SailPool(self, own, len(group), t, as_official=official is not None)
            seed = batch.prompt_seeds[int(group[0])] if official is None else official
            candidates = pool.fill(seed, x)
            for image, candidate in zip(group.tolist(), candidates):
                state.take(image, candidate)
                state.updates[image] = candidate.updates
                state.restarts[image] = candidate.restart if candidate.accepted else self.restarts
        return state


def as_read(noise: torch.Tensor, predictor: NoisePredictor, like: torch.Tensor, t) -> torch.Tensor:
    """Drawn noise as the UNet reads it at the first timestep.

    Euler's is a quarter of a percent shorter.
    """
    model = predictor.model
    return noise.to(like) * float(model.initial_scale) / model.input_scale(t)
