"""The search for a prompt's memorization neurons: initial selection, then refinement.

*Source:* Hintersdorf et al., NeurIPS 2024, Section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from memorization_suite.mitigation.nemo.measures import (
    activations,
    pair_similarities,
    scaled_maps,
    similarity,
)
from memorization_suite.mitigation.nemo.method import Neurons, scaled_values, value_factors
from memorization_suite.mitigation.spikes import names_in
from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling import Conditioning, Denoiser, NoisePredictor

# z-score from which a neuron is out of distribution, and how it is lowered.
THETA = 5.0
THETA_STEP = 0.25
THETA_END = 1.0

# A layer and a channel of it.
Neuron = tuple[str, int]
# Similarity of the blocked maps to the unblocked ones, for each candidate list of neurons.
Likeness = Callable[[list[list[Neuron]]], list[float]]


@dataclass
class Statistics:
    """Of ordinary prompts."""

    # Layer -> mean and std of its activations (width,).
    mean: dict[str, torch.Tensor]
    std: dict[str, torch.Tensor]
    # Similarity above which two seeds look memorized; nan: not measured.
    threshold: float


@dataclass
class PromptSearch:
    """What the search found for one prompt."""

    neurons: Neurons = field(default_factory=dict)
    # Noises that looked memorized.
    seeds: int = 0
    # Neurons before the refinement.
    initial: int = 0
    # Of the blocked maps to the unblocked ones, before and after the refinement; nan: not searched.
    initial_similarity: float = float("nan")
    similarity: float = float("nan")
    # What the refinement kept the similarity below.
    threshold: float = float("nan")
    # What it cost.
    unet_rows: int = 0

    @property
    def count(self) -> int:
        """How many neurons there are."""
        return sum(map(len, self.neurons.values()))


@dataclass
class Maps:
    """Noise maps of one prompt, with neurons blocked or not."""

    model: Denoiser
    # The encoded prompt, one row.
    prompt: Conditioning
    # What the UNet reads at t, (seeds, 4, h, w).
    x: torch.Tensor
    t: torch.Tensor
    # What the values of blocked neurons are multiplied by.
    factor: float = 0.0
    # UNet evaluations at once.
    rows: int = 64
    # UNet evaluations so far.
    unet_rows: int = field(default=0, init=False)
    # Whether those without blocked neurons could be compared.
    finite: bool = field(default=True, init=False)

    @no_grad
    def of(self, candidates: list[list[Neuron]]) -> torch.Tensor:
        """The maps for each candidate list of blocked neurons, (candidates, seeds, 4, h, w)."""
        blocked = [by_layer(neurons) for neurons in candidates]
        factors = value_factors(self.model, blocked, self.factor)
        # Seeds of the first candidate, then of the next.
        seeds = len(self.x)
        every = torch.arange(len(candidates) * seeds)
        parts = []
        for rows in every.split(self.rows):
            x = self.x[rows % seeds]
            parts.append(self.part(factors, rows // seeds, x))
        self.unet_rows += len(every)
        return torch.cat(parts).unflatten(0, (len(candidates), seeds))

    def part(
        self, factors: dict[str, torch.Tensor], candidates: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """Maps of some rows in one UNet call, (rows, 4, h, w).

        candidates: which of `factors` is for each row, (rows,). x: (rows, 4, h, w).
        """
        told = self.prompt[torch.zeros(len(x), dtype=torch.long)]
        predictor = NoisePredictor(self.model, told, told)

        def candidates_of_rows() -> torch.Tensor:
            return candidates[predictor.call.image_of_row()]

        with scaled_values(self.model, factors, candidates_of_rows):
            return scaled_maps(predictor.at(x, self.t).text, x)

    def keep(self, seeds: torch.Tensor) -> None:
        """From now on the maps of these seeds alone. seeds: (n,) bool."""
        self.x = self.x[seeds.to(self.x.device)]


def by_layer(neurons: list[Neuron]) -> Neurons:
    """Pairs (layer, channel) -> layer: channels."""
    layers: Neurons = {}
    for name, channel in neurons:
        layers.setdefault(name, []).append(channel)
    return layers


# --- initial selection ---


def selections(active: dict[str, torch.Tensor], statistics: Statistics) -> list[list[Neuron]]:
    """What the initial selection tries, in order.

    In every layer: neurons with |a - mean| / std > theta, and the k largest a. theta = 5, 4.75, ...
    and k = 0, 1, ...; theta = 1 ends the search untried, as in the official code. active: layer ->
    a (width,).
    """
    tries = []
    for k in range(round((THETA - THETA_END) / THETA_STEP)):
        theta = THETA - k * THETA_STEP
        chosen: dict[Neuron, None] = {}  # a set that keeps its order
        for name, a in active.items():
            z = (a - statistics.mean[name]).abs() / statistics.std[name]
            odd = (z > theta).nonzero().flatten().tolist()
            largest = a.topk(min(k, len(a))).indices.tolist()
            for channel in odd + largest:
                chosen[name, channel] = None
        tries.append(list(chosen))
    return tries


def first_good(
    tries: list[list[Neuron]], likeness: Likeness, *, threshold: float, at_once: int
) -> tuple[list[Neuron], float]:
    """(neurons, similarity) of the first try that is not above the threshold, else of the last."""
    width = 1
    while True:
        part = tries[:width]
        tries = tries[width:]
        values = likeness(part)
        for neurons, value in zip(part, values):
            if value <= threshold:
                return neurons, value
        if not tries:
            return part[-1], values[-1]
        width = min(2 * width, at_once)


# --- refinement ---


def drop(
    blocked: list[Neuron],
    parts: list[list[Neuron]],
    likeness: Likeness,
    *,
    threshold: float,
    at_once: int,
) -> tuple[list[Neuron], float | None]:
    """What is left of `blocked` when its parts are unblocked one after the other.

    A part stays unblocked if the similarity stays below the threshold. Also the similarity of what
    is left, None if nothing was dropped. Several unblockings are evaluated together on the guess
    that all of them go the way the last one went; what comes after a wrong guess is evaluated
    again, so the result is that of one after the other.
    """
    guess = True
    width = 1
    last = None
    while parts:
        tries = unblockings(blocked, parts[:width], guess)
        for left, value in zip(tries, likeness(tries)):
            dropped = value < threshold
            parts = parts[1:]
            if dropped:
                blocked = left
                last = value
            if dropped != guess:
                break
        width = min(2 * width, at_once) if dropped == guess else max(1, width // 2)
        guess = dropped
    return blocked, last


def unblockings(
    blocked: list[Neuron], parts: list[list[Neuron]], dropped: bool
) -> list[list[Neuron]]:
    """What is blocked as each part is tried. dropped: whether the parts before it stay dropped."""
    tries = []
    for part in parts:
        left = without(blocked, part)
        tries.append(left)
        if dropped:
            blocked = left
    return tries


def without(neurons: list[Neuron], part: list[Neuron]) -> list[Neuron]:
    """The neurons that are not in part, in their order."""
    gone = set(part)
    return [neuron for neuron in neurons if neuron not in gone]


def refined(
    initial: list[Neuron],
    order: list[str],
    likeness: Likeness,
    *,
    threshold: float,
    at_once: int,
) -> tuple[list[Neuron], float | None]:
    """What is left of the initial selection: layers are unblocked whole, then neuron by neuron.

    Also the similarity of what is left, None if nothing was dropped. order: of the layers.
    """
    layers = [[neuron for neuron in initial if neuron[0] == name] for name in order]
    layers = [layer for layer in layers if layer]
    blocked, after_layers = drop(initial, layers, likeness, threshold=threshold, at_once=at_once)
    left = set(blocked)
    single = [[neuron] for layer in layers for neuron in layer if neuron in left]
    blocked, after_neurons = drop(blocked, single, likeness, threshold=threshold, at_once=at_once)
    return blocked, after_layers if after_neurons is None else after_neurons


# --- the whole search ---


def localize(
    maps: Maps, statistics: Statistics, *, blocks: str = "early", at_once: int = 8
) -> PromptSearch:
    """The neurons of one prompt; none when no seed looks memorized.

    blocks: where they are looked for, 'early' (down and middle) or 'all'. at_once: candidates that
    are evaluated together at most. Differs from the official code: a neuron that is chosen twice is
    one neuron, and each map takes one UNet evaluation instead of two.
    """
    unblocked = maps.of([[]])[0]
    maps.finite = bool(unblocked.isfinite().all())
    memorized = likeness_of_seeds(unblocked) > statistics.threshold  # nan is not above
    if not memorized.any():
        return PromptSearch(unet_rows=maps.unet_rows)
    unblocked = unblocked[memorized.to(unblocked.device)]
    maps.keep(memorized)

    def likeness(candidates: list[list[Neuron]]) -> list[float]:
        """The largest similarity over the seeds, for each candidate."""
        return [float(similarity(unblocked, made).max()) for made in maps.of(candidates)]

    every = activations(maps.model, maps.prompt.tokens)
    active = {name: every[name][0].cpu() for name in names_in(maps.model, blocks)}
    tries = selections(active, statistics)
    initial, reached = first_good(tries, likeness, threshold=statistics.threshold, at_once=at_once)
    threshold = max(reached, statistics.threshold)
    blocked, value = refined(
        initial, list(reversed(active)), likeness, threshold=threshold, at_once=at_once
    )
    return PromptSearch(
        neurons=by_layer(blocked),
        seeds=int(memorized.sum()),
        initial=len(initial),
        initial_similarity=reached,
        similarity=reached if value is None else value,
        threshold=threshold,
        unet_rows=maps.unet_rows,
    )


def likeness_of_seeds(maps: torch.Tensor) -> torch.Tensor:
    """How like each seed's map is to the most similar other's, (n,); nan for maps with nan."""
    if not torch.isfinite(maps).all():
        return torch.full((len(maps),), torch.nan)
    return pair_similarities(maps).amax(1)
