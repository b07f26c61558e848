"""The search for a prompt's memorization neurons: initial selection, then refinement.

*Source:* Hintersdorf et al., NeurIPS 2024, Section 3.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from memorization_suite.mitigation.nemo.measures import (
    activations,
    pair_similarities,
    scaled_maps,
)
from memorization_suite.mitigation.nemo.method import Neurons, scaled_values, value_factors
from memorization_suite.mitigation.nemo.ms_ssim import ms_ssim
from memorization_suite.mitigation.spikes import names_in
from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.sampling import Conditioning, Denoiser, NoisePredictor

# Most neurons of a layer that the initial selection takes by their size.
MOST_K = 1280

# A layer and a channel of it.
Neuron = tuple[str, int]
# A number for each candidate list of blocked neurons: how like the unblocked maps are theirs.
Likeness = Callable[[list[list[Neuron]]], list[float]]


@dataclass(frozen=True)
class SearchOptions:
    """How a search goes. What has an official flag is called like it."""

    # Where neurons are looked for: 'early' (down and middle) or 'all'.
    blocks: str = "early"
    # Candidates that are evaluated together at most.
    at_once: int = 8
    # z-score from which a neuron is out of distribution, and how it is lowered.
    initial_theta: float = 5.0
    theta_reduction_per_step: float = 0.25
    min_theta: float = 1.0
    no_theta: bool = False
    # How many of the largest activations of each layer are taken too; one more with every try.
    initial_k: int = 0
    no_top_k: bool = False
    # Similarities that end the selection and that the refinement stays below; None: that above
    # which seeds look memorized.
    ssim_threshold_initial_selection: float | None = None
    ssim_threshold_refinement: float | None = None
    # The refinement stays below this relative change of every seed's similarity, in their place.
    rel_threshold_refinement: float | None = None
    # Whether a neuron that is chosen twice is listed twice, as the official code does by an
    # oversight: a refinement then unblocks one copy, and the neuron stays blocked.
    doubles: bool = False


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
    # What the refinement kept the similarity, or its relative change, below.
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
    # Of the noise; 1: the prompt's alone.
    guidance: float = 1.0
    # The encoded empty prompt, for another guidance.
    empty: Conditioning | None = None
    # Whether a map is of what the network predicts, also where that is not the noise.
    raw: bool = False
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
        return torch.cat(parts).unflatten(0, (len(candidates), seeds))

    def part(
        self, factors: dict[str, torch.Tensor], candidates: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """Maps of some rows in one UNet call, (rows, 4, h, w).

        candidates: which of `factors` is for each row, (rows,). x: (rows, 4, h, w).
        """
        same = torch.zeros(len(x), dtype=torch.long)
        told = self.prompt[same]
        predictor = NoisePredictor(self.model, told, (self.empty or self.prompt)[same])

        def candidates_of_rows() -> torch.Tensor:
            return candidates[predictor.call.image_of_row()]

        with scaled_values(self.model, factors, candidates_of_rows):
            predicted = predictor.at(x, self.t).guided(self.guidance)
        self.unet_rows += int(predictor.unet_evals.sum())
        if self.raw:
            predicted = self.model.to_output(predicted, x, self.t)
        return scaled_maps(predicted, x)

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


def is_last(theta: float, k: int) -> bool:
    """Whether the selection ends here, in the official code: similar or not."""
    return theta == 1 or k >= MOST_K


def steps(options: SearchOptions) -> Iterator[tuple[float, int]]:
    """(theta, k) of every try.

    By default (5, 0), (4.75, 1), ... (1.25, 15). A theta of 1 ends the search untried, as in the
    official code, and so does k = 1280. A smallest theta above 1 is kept while k grows.
    """
    theta = math.inf if options.no_theta else options.initial_theta
    k = 0 if options.no_top_k else options.initial_k
    while True:
        yield theta, k
        before = theta, k
        if theta > options.min_theta and not options.no_theta:
            theta -= options.theta_reduction_per_step
        if not options.no_top_k:
            k += 1
        if is_last(theta, k) or (theta, k) == before:
            return


def selections(
    active: dict[str, torch.Tensor], statistics: Statistics, options: SearchOptions
) -> Iterator[list[Neuron]]:
    """What the initial selection tries, in order.

    In every layer: neurons with |a - mean| / std > theta, and the k largest a. active: layer ->
    a (width,).
    """
    z = {
        name: (a - statistics.mean[name]).abs() / statistics.std[name] for name, a in active.items()
    }
    for theta, k in steps(options):
        chosen = []
        for name, a in active.items():
            odd = (z[name] > theta).nonzero().flatten().tolist()
            largest = a.topk(min(k, len(a))).indices.tolist()
            chosen += [(name, channel) for channel in odd + largest]
        yield chosen if options.doubles else list(dict.fromkeys(chosen))


def first_good(
    tries: Iterable[list[Neuron]], likeness: Likeness, *, threshold: float, at_once: int
) -> tuple[list[Neuron], float]:
    """(neurons, similarity) of the first try that is not above the threshold, else of the last."""
    tries = iter(tries)
    width = 1
    while part := list(itertools.islice(tries, width)):
        values = likeness(part)
        for neurons, value in zip(part, values):
            if value <= threshold:
                return neurons, value
        width = min(2 * width, at_once)
    return neurons, value


# --- refinement ---


def drop(
    blocked: list[Neuron],
    parts: list[list[Neuron]],
    likeness: Likeness,
    *,
    threshold: float,
    at_once: int,
) -> list[Neuron]:
    """What is left of `blocked` when its parts are unblocked one after the other.

    A part stays unblocked if the similarity stays below the threshold. Several unblockings are
    evaluated together on the guess that all of them go the way the last one went; what comes after
    a wrong guess is evaluated again, so the result is that of one after the other.
    """
    guess = True
    width = 1
    while parts:
        tries = unblockings(blocked, parts[:width], guess)
        for left, value in zip(tries, likeness(tries)):
            dropped = value < threshold
            parts = parts[1:]
            if dropped:
                blocked = left
            if dropped != guess:
                break
        width = min(2 * width, at_once) if dropped == guess else max(1, width // 2)
        guess = dropped
    return blocked


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
    """The neurons without those of the part, in their order; of one that is twice, one copy goes
    with each copy in the part.
    """
    left = list(neurons)
    for neuron in part:
        left.remove(neuron)
    return left


def refined(
    initial: list[Neuron],
    order: list[str],
    likeness: Likeness,
    *,
    threshold: float,
    at_once: int,
) -> list[Neuron]:
    """What is left of the initial selection: layers are unblocked whole, then neuron by neuron.

    order: of the layers.
    """
    layers = [[neuron for neuron in initial if neuron[0] == name] for name in order]
    layers = [layer for layer in layers if layer]
    blocked = drop(initial, layers, likeness, threshold=threshold, at_once=at_once)
    left = set(blocked)
    single = [[neuron] for layer in layers for neuron in layer if neuron in left]
    return drop(blocked, single, likeness, threshold=threshold, at_once=at_once)


# --- the whole search ---


@dataclass
class Likenesses:
    """How like the maps with neurons blocked are to those without, of the seeds that look
    memorized.
    """

    maps: Maps
    # Without blocked neurons, (seeds, 4, h, w).
    unblocked: torch.Tensor
    # `digest` of blocked neurons -> similarity of each seed, (seeds,).
    known: dict[bytes, torch.Tensor] = field(default_factory=dict)

    def of(self, candidates: list[list[Neuron]]) -> list[torch.Tensor]:
        """Similarity of each seed, (seeds,), for each candidate."""
        keys = [digest(neurons) for neurons in candidates]
        new = {key: neurons for key, neurons in zip(keys, candidates) if key not in self.known}
        if new:
            for key, made in zip(new, self.maps.of(list(new.values()))):
                self.known[key] = ms_ssim(self.unblocked, made)
        return [self.known[key] for key in keys]

    def largest(self, candidates: list[list[Neuron]]) -> list[float]:
        """The largest similarity over the seeds, for each candidate."""
        return [float(values.max()) for values in self.of(candidates)]

    def largest_change(self, start: list[Neuron]) -> Likeness:
        """The largest relative change over the seeds, for each candidate. start: where it is 0."""
        (before,) = self.of([start])

        def change(candidates: list[list[Neuron]]) -> list[float]:
            changes = [(values - before) / (before.abs() + 1e-9) for values in self.of(candidates)]
            return [float(values.abs().max()) for values in changes]

        return change


def digest(neurons: list[Neuron]) -> bytes:
    """32 bytes in the place of a list of thousands: the same in any order, and for a neuron that is
    listed once or twice.
    """
    return hashlib.sha256(repr(sorted(set(neurons))).encode()).digest()


def localize(
    maps: Maps, statistics: Statistics, options: SearchOptions = SearchOptions()
) -> PromptSearch:
    """The neurons of one prompt; none when no seed looks memorized.

    The refinement gets the similarity that was reached for its threshold when the selection failed,
    and also when it began where it ends (`is_last`), as in the official code.

    Differs from the official code: a neuron that is chosen twice is one neuron (but for `doubles`),
    and each map takes one UNet evaluation instead of two.
    """
    unblocked = maps.of([[]])[0]
    maps.finite = bool(unblocked.isfinite().all())
    memorized = likeness_of_seeds(unblocked) > statistics.threshold  # nan is not above
    if not memorized.any():
        return PromptSearch(unet_rows=maps.unet_rows)
    maps.keep(memorized)
    likenesses = Likenesses(maps, unblocked[memorized.to(unblocked.device)])

    every = activations(maps.model, maps.prompt.tokens)
    active = {name: every[name][0].cpu() for name in names_in(maps.model, options.blocks)}
    initial_threshold = given(options.ssim_threshold_initial_selection, statistics.threshold)
    initial, reached = first_good(
        selections(active, statistics, options),
        likenesses.largest,
        threshold=initial_threshold,
        at_once=options.at_once,
    )
    threshold = given(options.ssim_threshold_refinement, statistics.threshold)
    if reached > initial_threshold or is_last(*next(steps(options))):
        threshold = reached
    likeness: Likeness = likenesses.largest
    if options.rel_threshold_refinement is not None:
        threshold = options.rel_threshold_refinement
        likeness = likenesses.largest_change(initial)
    order = list(reversed(active))
    blocked = refined(initial, order, likeness, threshold=threshold, at_once=options.at_once)
    return PromptSearch(
        neurons=by_layer(blocked),
        seeds=int(memorized.sum()),
        initial=len(initial),
        initial_similarity=reached,
        similarity=likenesses.largest([blocked])[0],
        threshold=threshold,
        unet_rows=maps.unet_rows,
    )


def given(value: float | None, default: float) -> float:
    """The value, or the default where there is none."""
    return default if value is None else value


def likeness_of_seeds(maps: torch.Tensor) -> torch.Tensor:
    """How like each seed's map is to the most similar other's, (n,); nan for maps with nan."""
    if not torch.isfinite(maps).all():
        return torch.full((len(maps),), torch.nan)
    return pair_similarities(maps).amax(1)
