"""Prompt embeddings are optimized until a loss is low enough: what the embedding methods share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from memorization_suite.mitigation.base import Ahead, Mitigation, flag
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.settings import frozen_settings
from memorization_suite.sampling import Batch, NoisePredictor, Prediction
from memorization_suite.sampling.gradients import Iterates, Parts
from memorization_suite.sampling.noise_predictor import HALVES

# Of predictions at the objective's timesteps, and of which images (k,) they are -> (k,).
Loss = Callable[[list[Prediction], "torch.Tensor"], "torch.Tensor"]


@dataclass
class Objective:
    """What is lowered for each image."""

    # Where the network is evaluated, (n, 4, h, w) as it reads it.
    x: torch.Tensor
    # And when: the first timestep of sampling, then others that the loss looks at.
    times: list
    loss: Loss


class Search:
    """The embeddings under optimization: each group of images has one, with its own AdamW state,
    best iterate and counters.

    The loss of a group is its image's, or of several images the root of their sum of squares. The
    unconditional halves do not depend on the embedding; they are computed once, in one call with
    the first text halves, so an image that is left alone is as without a method.

    official: joint_norm: one embedding for all images of a prompt; last_iterate: the last one is
    kept, not the best.
    """

    def __init__(
        self,
        method: EmbeddingSearch,
        predictor: NoisePredictor,
        batch: Batch,
        objective: Objective,
        official: str,
    ):
        n = len(objective.x)
        self.predictor = predictor
        self.objective = objective
        self.target = method.optim_target_loss
        self.keep_last = "last_iterate" in official
        # Under joint_norm the begin token's row is optimized too, but without a gradient: weight
        # decay alone moves it.
        self.decay_begin = "joint_norm" in official
        # Images of each embedding.
        self.groups = batch.groups() if self.decay_begin else list(torch.arange(n).split(1))
        # The embedding of each image.
        self.group_of = torch.zeros(n, dtype=torch.long)
        for g, group in enumerate(self.groups):
            self.group_of[group] = g

        # Embeddings of the images as they came; of each group the rows that stay as they are, and
        # the best of those that are optimized.
        self.start = predictor.tokens("text")
        embeds = self.start[torch.stack([group[0] for group in self.groups])].float()
        fixed, optimized = embeds.tensor_split([0 if self.decay_begin else 1], dim=1)
        self.fixed = fixed.clone()
        self.best = optimized.clone()
        self.iterates = Iterates(
            self.best, torch.optim.AdamW, lr=method.optim_lr, weight_decay=method.weight_decay
        )

        # Predictions and losses at the start, of every image.
        self.first = [predictor.at(objective.x, t) for t in objective.times]
        self.first[0] = batch.first or self.first[0]
        for prediction in self.first:
            prediction.need(*HALVES)
        self.first_losses = objective.loss(self.first, torch.arange(n))

        # Loss, and the text half of step 0, of every image with the best embedding so far.
        self.losses = self.first_losses.clone()
        self.text = self.first[0].text.clone()

        # Of every group: its loss with that embedding, updates, whether a loss was not finite.
        everyone = torch.arange(len(self.groups))
        images, sizes = self.images(everyone)
        self.totals = joint(self.losses[images], sizes).cpu()
        self.updates = torch.zeros_like(everyone)
        self.failed = ~torch.isfinite(self.totals)
        self.active = everyone[self.totals > self.target]

    def evaluate(self, part: torch.Tensor, *, differentiate: bool) -> torch.Tensor:
        """The groups of `part` that go on after an evaluation at their iterates, with gradients.

        part, result: indices.
        """
        images, sizes = self.images(part)
        # Place in `part` of each image's group.
        owner = torch.arange(len(part)).repeat_interleave(torch.tensor(sizes))
        iterates = self.iterates.at(part, differentiate=differentiate)
        with torch.set_grad_enabled(differentiate):
            embeds = torch.cat([self.fixed[part], iterates], 1)
            predictions = self.predictions(images, embeds[owner])
            losses = self.objective.loss(predictions, images)
            totals = joint(losses, sizes)

        now = totals.detach().cpu()
        finite = torch.isfinite(now)
        going = finite & (now > self.target)
        self.iterates.keep_gradients(totals, iterates, part, going)
        self.failed[part] |= ~finite

        better = (now < self.totals[part]) | self.keep_last
        groups = part[better]
        self.totals[groups] = now[better]
        self.best[groups] = iterates.detach()[better]
        better = better[owner]
        images = images[better]
        self.losses[images] = losses.detach()[better]
        self.text[images] = predictions[0].text.detach()[better]
        return part[going]

    def predictions(self, images: torch.Tensor, embeds: torch.Tensor) -> list[Prediction]:
        """Predictions of these images at the objective's timesteps with other embeddings."""
        predictor = self.predictor.select(images)
        predictor.set_tokens("text", embeds.to(self.start.dtype))
        predictions = [predictor.at(self.objective.x[images], t) for t in self.objective.times]
        for prediction, first in zip(predictions, self.first):
            prediction.halves["uncond"] = first.uncond[images]
        return predictions

    def step(self, going: torch.Tensor) -> None:
        """One AdamW update of the groups `going`, which have gradients."""
        if self.decay_begin:
            for g in going.tolist():
                self.iterates.rows[g].grad[0] = 0
        self.iterates.step()
        self.updates[going] += 1

    def result(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Figures of every image; the predictor gets the best embeddings and the batch its step 0.

        What was not updated is left as it came, and a group with a non-finite loss gets its own
        embedding back.
        """
        first = self.first[0]
        failed = self.failed[self.group_of]
        self.text[failed] = first.text[failed]
        self.losses[failed] = self.first_losses[failed]

        embeds = self.start.clone()
        changed = self.updates.bool() & ~self.failed
        for g in changed.nonzero().flatten().tolist():
            embeds[self.groups[g]] = torch.cat([self.fixed[g], self.best[g]]).to(embeds.dtype)
        self.predictor.set_tokens("text", embeds)

        last = self.predictor.at(self.objective.x, self.objective.times[0])
        last.halves = {"uncond": first.uncond, "text": self.text}
        batch.first = last
        return {
            "iterations": self.updates[self.group_of],
            "first_magnitude": first.magnitude(),
            "last_magnitude": last.magnitude(),
            "first_loss": self.first_losses,
            "last_loss": self.losses,
            "reached": (self.totals <= self.target)[self.group_of] & ~failed,
            "failed": failed,
        }

    def parts(self, asked: int) -> Parts:
        """Of the groups. asked: groups in a part; 0: as many as memory allows."""
        largest = max(len(group) for group in self.groups)

        def images_of(part: torch.Tensor) -> torch.Tensor:
            return self.images(part)[0]

        kept = len(self.objective.times) * largest
        return Parts(self.predictor, asked, kept=kept, images_of=images_of)

    def images(self, part: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """The images of these groups, one group after the other, and how many each has."""
        groups = [self.groups[g] for g in part.tolist()]
        return torch.cat(groups), [len(group) for group in groups]


def joint(losses: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Loss of each group from those of its images, one group after the other. (k,) -> (groups,)."""
    totals = []
    for group in losses.split(sizes):
        totals.append(group[0] if len(group) == 1 else torch.linalg.vector_norm(group))
    return torch.stack(totals)


@frozen_settings
class EmbeddingSearch(Mitigation):
    """Flags of the methods that optimize the prompt embedding, and the loop.

    The target is checked before an update. All images of a batch are optimized together, each with
    its own embedding, AdamW state and end.

    Source: Wen et al., ICLR 2024, official code. Differs from it: the last embedding is evaluated
    too, at no cost, since that evaluation is step 0 of sampling, and at the cap the best embedding
    is kept, not the last.
    """

    optim_target_loss: float = flag(1.5, "target of the loss of one image", short="tl")
    optim_lr: float = flag(
        0.05, "learning rate of AdamW on the prompt embedding", short="lr", above=0.0, at_most=1e30
    )
    optim_iters: int = flag(10, "most updates of one embedding", short="oi", at_least=0)
    weight_decay: float = flag(
        0.01, "decoupled weight decay of AdamW", short="wd", at_least=0.0, always_named=False
    )
    grad_rows: int = flag(
        0,
        "embeddings per backward pass; 0: as many as fit into memory",
        short="gr",
        at_least=0,
        changes_result=False,
    )

    @property
    def pools_images(self) -> bool:
        return "joint_norm" in getattr(self, "official", "")

    def derivatives(self, dtype: str) -> str:
        return dtype

    def most(self, ahead: Ahead) -> dict[str, float]:
        return {"J": self.optim_iters}

    def optimize(
        self, predictor: NoisePredictor, batch: Batch, objective: Objective, official: str = ""
    ) -> dict[str, torch.Tensor]:
        """Lowers the loss of each image; figures of every image.

        batch.first is the prediction at the first timestep, if there is one. official: as of
        `Search`.
        """
        search = Search(self, predictor, batch, objective, official)
        active = search.active
        parts = search.parts(self.grad_rows)
        with predictor.model.frozen():
            for update in range(self.optim_iters + 1):
                if not len(active) or not self.optim_iters:
                    break
                last = update == self.optim_iters
                evaluate = partial(search.evaluate, differentiate=not last)
                active = torch.cat(parts.evaluate(evaluate, active))
                if not last:
                    search.step(active)
        return search.result(batch)
