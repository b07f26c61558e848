"""Optimisation of prompt embeddings until a loss is low enough: what the embedding methods
share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from memorization_suite.lazy import torch
from memorization_suite.mitigation.base import Mitigation, flag
from memorization_suite.runs.settings import frozen_settings
from memorization_suite.sampling import Batch, NoisePredictor, Prediction
from memorization_suite.sampling.gradients import frozen, in_parts
from memorization_suite.sampling.noise_predictor import HALVES

Loss = Callable[
    [list[Prediction], "torch.Tensor"], "torch.Tensor"
]  # predictions at the search's timesteps, and of which images (k,) -> (k,)


class Search:
    """State of the embeddings under optimisation: each group of images has one, with its own AdamW
    state, best iterate and counters.

    The loss of a group is its image's, or of several images the root of their sum of squares. The
    unconditional halves do not depend on the embedding; they are computed once, in one call with
    the first text halves, so an image that is left alone is as without a method. The begin token's
    row is no part of what is optimised; with decay_begin it is, without a gradient: weight decay
    alone moves it.
    """

    def __init__(
        self,
        predictor: NoisePredictor,
        x: torch.Tensor,
        times: list,
        loss: Loss,
        groups: list[torch.Tensor],
        *,
        target: float,
        decay_begin: bool = False,
        keep_last: bool = False,
        known: Prediction | None = None,
        **adamw,
    ):
        self.predictor, self.x, self.times, self.loss = predictor, x, times, loss
        self.groups, self.target, self.decay_begin, self.keep_last = (
            groups,
            target,
            decay_begin,
            keep_last,
        )
        self.start = predictor.embeds["text"]
        rows = self.start[torch.stack([group[0] for group in groups])].float()
        self.begin, self.kept = (
            part.clone() for part in rows.tensor_split([0 if decay_begin else 1], dim=1)
        )
        self.free = [row.clone().requires_grad_() for row in self.kept]
        self.optimizer = torch.optim.AdamW(self.free, **adamw)
        self.first = [known or predictor.at(x, times[0]), *(predictor.at(x, t) for t in times[1:])]
        for prediction in self.first:
            prediction.need(*HALVES)
        self.first_losses = loss(self.first, torch.arange(len(x)))
        self.losses, self.text = self.first_losses.clone(), self.first[0].text.clone()
        everyone = torch.arange(len(groups))
        self.total = joint(self.losses[self.images(everyone)], self.sizes(everyone)).cpu()
        self.updates, self.failed = torch.zeros_like(everyone), ~torch.isfinite(self.total)
        self.active = everyone[self.total > target]

    def evaluate(self, part: torch.Tensor, *, differentiate: bool) -> torch.Tensor:
        """Losses of the groups `part` at their embeddings, and gradients of those that go on, which
        it returns. part, result: indices.
        """
        images, sizes = self.images(part), self.sizes(part)
        owner = torch.arange(len(part)).repeat_interleave(torch.tensor(sizes))
        free = torch.stack([self.free[g].detach() for g in part.tolist()]).requires_grad_(
            differentiate
        )
        some = self.predictor.select(images)
        with torch.set_grad_enabled(differentiate):
            some.embeds["text"] = torch.cat([self.begin[part], free], 1)[owner].to(self.start.dtype)
            predictions = [some.at(self.x[images], t) for t in self.times]
            for prediction, first in zip(predictions, self.first):
                prediction.halves["uncond"] = first.uncond[images]
            losses = self.loss(predictions, images)
            total = joint(losses, sizes)
        now = total.detach().cpu()
        going = torch.isfinite(now) & (now > self.target)
        if differentiate and going.any():
            (gradient,) = torch.autograd.grad(total, free, grad_outputs=going.to(total))
            if self.decay_begin:
                gradient[:, 0] = 0
            for g, one in zip(part[going].tolist(), gradient[going.to(gradient.device)]):
                self.free[g].grad = one
        self.failed[part] |= ~torch.isfinite(now)
        better = (now < self.total[part]) | self.keep_last
        self.total[part[better]], self.kept[part[better]] = now[better], free.detach()[better]
        better = better[owner]
        self.losses[images[better]], self.text[images[better]] = (
            losses.detach()[better],
            predictions[0].text.detach()[better],
        )
        return part[going]

    def step(self, going: torch.Tensor) -> None:
        """One AdamW update of the groups `going`; the others have no gradient, so the optimizer
        passes them over.
        """
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates[going] += 1

    def result(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Gives the predictor the best embeddings and the batch its step 0; figures of every image.

        What was not updated is left as it came, and a group with a non-finite loss gets its own
        embedding back.
        """
        embeds, failed = self.start.clone(), self.per_image(self.failed)
        self.text[failed], self.losses[failed] = (
            self.first[0].text[failed],
            self.first_losses[failed],
        )
        for g in (self.updates.bool() & ~self.failed).nonzero().flatten().tolist():
            embeds[self.groups[g]] = torch.cat([self.begin[g], self.kept[g]]).to(embeds.dtype)
        self.predictor.embeds["text"] = embeds
        known = self.predictor.at(self.x, self.times[0])
        known.halves = {"uncond": self.first[0].uncond, "text": self.text}
        batch.first = known
        reached = self.per_image((self.total <= self.target) & ~self.failed)
        return {
            "iterations": self.per_image(self.updates),
            "first_magnitude": self.first[0].magnitude(),
            "last_magnitude": known.magnitude(),
            "first_loss": self.first_losses,
            "last_loss": self.losses,
            "reached": reached,
            "failed": failed,
        }

    def images(self, part: torch.Tensor) -> torch.Tensor:
        """The images of these groups, one group after the other."""
        return torch.cat([self.groups[g] for g in part.tolist()])

    def sizes(self, part: torch.Tensor) -> list[int]:
        """How many images each of these groups has."""
        return [len(self.groups[g]) for g in part.tolist()]

    def per_image(self, values: torch.Tensor) -> torch.Tensor:
        """(groups,) -> (n,)."""
        spread = values.new_empty(len(self.x))
        for value, group in zip(values, self.groups):
            spread[group] = value
        return spread


def joint(losses: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Loss of each group from those of its images, one group after the other. (k,) -> (groups,)."""
    return torch.stack(
        [one[0] if len(one) == 1 else torch.linalg.vector_norm(one) for one in losses.split(sizes)]
    )


@frozen_settings
class EmbeddingSearch(Mitigation):
    """Flags of the methods that optimise the prompt embedding, and the loop. Source: Wen et al.,
    ICLR 2024, official code.

    The target is checked before an update. All images of a batch are optimised together, each with
    its own embedding, AdamW state and end.
    Differs from the official code: the last embedding is evaluated too, at no cost, since that
    evaluation is step 0 of sampling, and at the cap the best embedding is kept, not the last.
    """

    optim_target_loss: float = flag(1.5, "target of the loss of one image", short="tl")
    optim_lr: float = flag(
        0.05, "learning rate of AdamW on the prompt embedding", short="lr", above=0.0
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

    def optimise(
        self,
        predictor: NoisePredictor,
        x: torch.Tensor,
        times: list,
        loss: Loss,
        batch: Batch,
        *,
        official: str = "",
        known: Prediction | None = None,
    ) -> dict[str, torch.Tensor]:
        """Lowers loss(predictions at (x, t) for t in times) of each image; times[0] is the first
        timestep. Returns figures of every image.

        official: joint_norm: one embedding for all images of a prompt, and decay of the begin
        token's row; last_iterate: kept at the cap.
        known: the prediction at times[0], if there is one.
        """
        shared = "joint_norm" in official
        groups = batch.groups() if shared else list(torch.arange(len(x)).split(1))
        search = Search(
            predictor,
            x,
            times,
            loss,
            groups,
            target=self.optim_target_loss,
            decay_begin=shared,
            keep_last="last_iterate" in official,
            known=known,
            lr=self.optim_lr,
            weight_decay=self.weight_decay,
        )
        active, size = search.active, self.grad_rows or len(groups)
        with frozen(predictor.unet):
            for update in range(self.optim_iters + 1):
                if not len(active) or not self.optim_iters:
                    break
                last = update == self.optim_iters
                parts, size = in_parts(
                    partial(search.evaluate, differentiate=not last), active, size
                )
                active = torch.cat([going for _, going in parts])
                if not last:
                    search.step(active)
        return search.result(batch)
