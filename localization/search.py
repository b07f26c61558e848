"""The search for a prompt's memorization neurons: initial selection, then refinement. Hintersdorf
et al., NeurIPS 2024, Section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from memorization_suite.localization.activations import activations
from memorization_suite.localization.similarity import pair_similarities, scaled_maps, similarity
from memorization_suite.mitigation.neurons import Neurons, scaled_values, value_factors
from memorization_suite.mitigation.spikes import names_in
from memorization_suite.sampling import NoisePredictor

THETA, THETA_STEP, THETA_END = (
    5.0,
    0.25,
    1.0,
)  # z-score from which a neuron is out of distribution, and how it is lowered
Neuron = tuple[str, int]


@dataclass
class Statistics:
    """Of ordinary prompts: layer -> mean and std of activations (width,); threshold: similarity
    above which two seeds look memorized.
    """

    mean: dict[str, torch.Tensor]
    std: dict[str, torch.Tensor]
    threshold: float


@dataclass
class Found:
    """A prompt's neurons. seeds: noises that looked memorized; initial: neurons before the
    refinement; similarity: of the blocked maps to
    the unblocked ones, after either (nan: not searched); threshold: what the refinement kept it
    below.
    """

    neurons: Neurons = field(default_factory=dict)
    seeds: int = 0
    initial: int = 0
    initial_similarity: float = float("nan")
    similarity: float = float("nan")
    threshold: float = float("nan")
    unet_rows: int = 0


class Maps:
    """Noise maps of one prompt, with neurons blocked or not. embeds: (1, tokens, dim); x: (seeds,
    4, h, w), what the UNet reads at t.
    """

    def __init__(
        self,
        unet,
        scheduler,
        embeds: torch.Tensor,
        x: torch.Tensor,
        t,
        *,
        factor: float = 0.0,
        rows: int = 64,
    ):
        self.unet, self.scheduler, self.embeds, self.x, self.t, self.factor, self.rows = (
            unet,
            scheduler,
            embeds,
            x,
            t,
            factor,
            rows,
        )
        self.unet_rows = 0

    @torch.no_grad()
    def of(self, candidates: list[list[Neuron]]) -> torch.Tensor:
        """The maps for each candidate list of blocked neurons, (candidates, seeds, 4, h, w); `rows`
        UNet rows at once.
        """
        factors = value_factors(
            self.unet, [by_layer(neurons) for neurons in candidates], self.factor
        )
        every = torch.arange(
            len(candidates) * len(self.x)
        )  # seeds of the first candidate, then of the next
        maps = torch.cat(
            [
                self.part(factors, rows // len(self.x), self.x[rows % len(self.x)])
                for rows in every.split(self.rows)
            ]
        )
        self.unet_rows += len(every)
        return maps.unflatten(0, (len(candidates), len(self.x)))

    def part(
        self, factors: dict[str, torch.Tensor], candidates: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """Maps of some rows in one UNet call. candidates: which of `factors` is for each row,
        (rows,); x: (rows, 4, h, w).
        """
        predictor = NoisePredictor(
            self.unet, self.scheduler, self.embeds.expand(len(x), -1, -1), self.embeds[:0]
        )
        with scaled_values(self.unet, factors, lambda: candidates):
            return scaled_maps(predictor.at(x, self.t).text, x)


def by_layer(neurons: list[Neuron]) -> Neurons:
    """Pairs (layer, channel) -> layer: channels."""
    layers: Neurons = {}
    for name, channel in neurons:
        layers.setdefault(name, []).append(channel)
    return layers


def selections(active: dict[str, torch.Tensor], statistics: Statistics) -> list[list[Neuron]]:
    """What the initial selection tries, in order: in every layer, neurons with |a - mean| / std >
    theta, and the k largest a.

    theta = 5, 4.75, ... and k = 0, 1, ...; theta = 1 ends the search untried, as in the official
    code. active: layer -> a (width,).
    """
    tries = []
    for k in range(round((THETA - THETA_END) / THETA_STEP)):
        chosen: dict[Neuron, None] = {}  # a set that keeps its order
        for name, a in active.items():
            z = (a - statistics.mean[name]).abs() / statistics.std[name]
            channels = (z > THETA - k * THETA_STEP).nonzero().flatten().tolist() + a.topk(
                min(k, len(a))
            ).indices.tolist()
            chosen |= dict.fromkeys((name, channel) for channel in channels)
        tries.append(list(chosen))
    return tries


def first_good(
    tries: list[list[Neuron]],
    likeness: Callable[[list[list[Neuron]]], list[float]],
    threshold: float,
    at_once: int,
) -> tuple[list[Neuron], float]:
    """(neurons, similarity) of the first try that is not above the threshold, else of the last."""
    width = 1
    while True:
        part, tries = tries[:width], tries[width:]
        values = likeness(part)
        for neurons, value in zip(part, values):
            if value <= threshold:
                return neurons, value
        if not tries:
            return part[-1], values[-1]
        width = min(2 * width, at_once)


def drop(
    kept: list[Neuron],
    parts: list[list[Neuron]],
    likeness: Callable[[list[list[Neuron]]], list[float]],
    threshold: float,
    at_once: int,
) -> tuple[list[Neuron], float | None]:
    """What is left of `kept` when its parts are unblocked one after the other, each for good if the
    similarity stays below the threshold.

    Also the similarity of what is left, None if nothing was dropped. Several unblockings are
    evaluated together on the guess that all of them go the way the last one went; what comes after
    a wrong guess is evaluated again, so the result is that of one after the other.
    """
    guess, width, last = True, 1, None
    while parts:
        tries, current = [], kept
        for part in parts[:width]:
            tries.append(without(current, part))
            current = tries[-1] if guess else current
        for left, value in zip(tries, likeness(tries)):
            dropped, parts = value < threshold, parts[1:]
            if dropped:
                kept, last = left, value
            if dropped != guess:
                break
        width = min(2 * width, at_once) if dropped == guess else max(1, width // 2)
        guess = dropped
    return kept, last


def without(neurons: list[Neuron], part: list[Neuron]) -> list[Neuron]:
    """The neurons that are not in part, in their order."""
    gone = set(part)
    return [neuron for neuron in neurons if neuron not in gone]


def localize(
    maps: Maps, statistics: Statistics, *, blocks: str = "early", at_once: int = 8
) -> Found:
    """The neurons of one prompt; none when no seed looks memorized. blocks: where they are looked
    for, 'early' (down and middle) or 'all'.

    Differs from the official code: a neuron that is chosen twice is one neuron, and each map takes
    one UNet evaluation instead of two.
    """
    unblocked = maps.of([[]])[0]
    likes = (
        pair_similarities(unblocked).amax(1)
        if bool(torch.isfinite(unblocked).all())
        else torch.full((len(unblocked),), torch.nan)
    )
    memorized = likes > statistics.threshold
    if not memorized.any():
        return Found(unet_rows=maps.unet_rows)
    unblocked, maps.x = (
        unblocked[memorized.to(unblocked.device)],
        maps.x[memorized.to(maps.x.device)],
    )

    def likeness(candidates: list[list[Neuron]]) -> list[float]:
        """Largest similarity over the seeds, for each candidate."""
        return [float(similarity(unblocked, blocked).max()) for blocked in maps.of(candidates)]

    every = activations(maps.unet, maps.embeds)
    active = {name: every[name][0].cpu() for name in names_in(maps.unet, blocks)}
    initial, value = first_good(
        selections(active, statistics), likeness, statistics.threshold, at_once
    )
    threshold = max(value, statistics.threshold)
    found = Found(
        seeds=int(memorized.sum()),
        initial=len(initial),
        initial_similarity=value,
        threshold=threshold,
    )
    layers = [[neuron for neuron in initial if neuron[0] == name] for name in reversed(active)]
    kept, after_layers = drop(
        initial, [layer for layer in layers if layer], likeness, threshold, at_once
    )
    left = set(kept)
    single = [[neuron] for layer in layers for neuron in layer if neuron in left]
    kept, after_neurons = drop(kept, single, likeness, threshold, at_once)
    found.similarity = next(v for v in (after_neurons, after_layers, value) if v is not None)
    found.neurons, found.unet_rows = by_layer(kept), maps.unet_rows
    return found
