"""Controls of NeMo: one set of neurons for every prompt, made of those that many prompts have.

*Source:* Hintersdorf et al., NeurIPS 2024, and their `4_generate_images.py`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from memorization_suite.mitigation.nemo.method import Neurons
from memorization_suite.mitigation.nemo.search import Neuron, by_layer

# Each prompt's neurons -> how many to take -> neurons.
Choice = Callable[[Iterable[Neurons], int], Neurons]


def pairs(neurons: Neurons) -> list[Neuron]:
    """Layer: channels -> (layer, channel), sorted; a neuron that is listed twice is there twice."""
    return sorted((name, channel) for name, channels in neurons.items() for channel in channels)


def most_frequent(found: Iterable[Neurons]) -> list[Neuron]:
    """All neurons, the most frequent first; of equals the first layer's, then the first found."""
    counts: Counter[Neuron] = Counter()
    for neurons in found:
        for name, channels in neurons.items():
            counts.update((name, channel) for channel in channels)
    return sorted(
        sorted(counts, key=lambda neuron: neuron[0]), key=counts.__getitem__, reverse=True
    )


def top(found: Iterable[Neurons], k: int) -> Neurons:
    """The k most frequent neurons."""
    return by_layer(most_frequent(found)[:k])


def top_per_layer(found: Iterable[Neurons], k: int) -> Neurons:
    """The k most frequent neurons of each layer."""
    layers = by_layer(most_frequent(found))
    return {name: channels[:k] for name, channels in layers.items()}


def subgroups(found: Iterable[Neurons], k: int) -> Neurons:
    """The neurons of the k most frequent whole lists; of equals the first found.

    As in the official code, the empty list of prompts that do not look memorized counts too.
    """
    counts = Counter(tuple(pairs(neurons)) for neurons in found)
    joined: dict[Neuron, None] = {}
    for group, _ in counts.most_common(k):
        joined |= dict.fromkeys(group)
    return by_layer(list(joined))


CHOICES: dict[str, Choice] = {"top": top, "top_per_layer": top_per_layer, "subgroups": subgroups}


def at_random(chosen: Neurons, widths: Mapping[str, int], seed: int) -> Neurons:
    """As many neurons of each layer, drawn from all that it has.

    widths: layer -> its neurons. Each layer begins the seed's stream anew, as the official code
    does for subgroups; it draws single neurons without a seed.
    """
    drawn = {}
    for name, channels in chosen.items():
        drawn[name] = random.Random(seed).sample(range(widths[name]), len(channels))
    return drawn
