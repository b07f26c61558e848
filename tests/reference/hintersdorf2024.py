"""Hintersdorf et al., NeurIPS 2024 (NeMo), told in loops: one prompt, one set of blocked neurons at
a time. Imports nothing of the suite.

Its repairs: blocked neurons are sets unless `doubles` is asked for (the official lists may hold one
twice, and then unblock one copy of it), and a noise map takes one evaluation of the UNet (official:
two, the first of them unused).
"""

import ast
import math
import random

import numpy as np
import torch

from tests.reference.han2025 import alpha_bars, ddim_step, ddim_timesteps, encode


def layers_of(unet, *, up: bool = False) -> dict:
    """Cross-attentions: name -> to_v, down blocks, middle, and then up blocks if asked for."""
    found = {}
    parts = ("down_blocks", "mid_block", "up_blocks") if up else ("down_blocks", "mid_block")
    for part in parts:
        for name, module in unet.named_modules():
            if name.startswith(part) and name.endswith("attn2"):
                found[name] = module.to_v
    return found


@torch.no_grad()
def activation(to_v, embedding: torch.Tensor) -> list[float]:
    """Mean over tokens of |V| for each neuron. embedding: (tokens, dim)."""
    values = to_v(embedding)
    return [sum(abs(float(v)) for v in values[:, j]) / len(values) for j in range(values.shape[1])]


def mean_and_std(samples: list[list[float]]) -> tuple[list[float], list[float]]:
    """Mean and unbiased std of each neuron over prompts."""
    means = []
    stds = []
    for column in zip(*samples):
        mean = sum(column) / len(column)
        means.append(mean)
        stds.append(math.sqrt(sum((value - mean) ** 2 for value in column) / (len(column) - 1)))
    return means, stds


class Blocked:
    """Multiplies the neurons of each layer by a factor inside the block, those that are listed
    twice once: the official assignment to a list of columns does so.
    """

    def __init__(self, unet, neurons: dict, factor: float):
        self.unet = unet
        self.neurons = neurons
        self.factor = factor
        self.handles = []

    def __enter__(self):
        for name, channels in self.neurons.items():
            once = tuple(dict.fromkeys(channels))

            def scale(module, args, output, channels=once):
                for channel in channels:
                    output[:, :, channel] = output[:, :, channel] * self.factor
                return output

            self.handles.append(
                self.unet.get_submodule(name + ".to_v").register_forward_hook(scale)
            )

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def noise_maps(
    unet, embedding: torch.Tensor, x: torch.Tensor, t: int, blocked: dict, factor: float = 0.0
) -> np.ndarray:
    """e - x for each seed, each channel stretched to 0..1; (seeds, 4, h, w). embedding:
    (1, tokens, dim).
    """
    with Blocked(unet, blocked, factor):
        e = unet(x, t, encoder_hidden_states=embedding.repeat(len(x), 1, 1)).sample
    return stretched(e, x)


@torch.no_grad()
def swapped_maps(
    unet, embedding: torch.Tensor, empty: torch.Tensor, x: torch.Tensor, t: int, scale: float
) -> np.ndarray:
    """The maps with guidance. The empty prompt is put first, and what comes out first is taken for
    that of the text. embedding, empty: (1, tokens, dim).
    """
    both = torch.cat([empty] * len(x) + [embedding] * len(x))
    output = unet(torch.cat([x, x]), t, encoder_hidden_states=both).sample
    taken_for_text, taken_for_empty = output.chunk(2)
    return stretched(taken_for_empty + scale * (taken_for_text - taken_for_empty), x)


def official_noises(seed: int, shape: tuple) -> torch.Tensor:
    """All noises of a prompt in one draw. shape: (seeds, 4, h, w)."""
    return torch.randn(shape, generator=torch.manual_seed(seed))


def stretched(e: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """e - x, each channel stretched to 0..1, (seeds, 4, h, w)."""
    y = (e - x).numpy().astype(np.float32)
    for seed in range(len(y)):
        for channel in range(y.shape[1]):
            low = y[seed, channel].min()
            high = y[seed, channel].max()
            y[seed, channel] = (y[seed, channel] - low) / (high - low)
    return y


def ms_ssim(a: np.ndarray, b: np.ndarray, kernel: int = 11, sigma: float = 1.5) -> list[float]:
    """Multi-scale structural similarity of a[i] and b[i], (n, channels, h, w): three scales,
    exponents 0.33, negative parts cut at zero.

    At each scale the data range is that of all maps, maps are continued by reflection, and means
    leave out the pixels whose window reaches beyond the map, kernel // 2 a side.
    """
    half = kernel // 2
    window = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-half, half + 1)]
    window = [w / sum(window) for w in window]

    def smooth(image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, half, mode="reflect")
        result = np.zeros_like(image)
        for i, row_weight in enumerate(window):
            for j, column_weight in enumerate(window):
                result += (
                    row_weight
                    * column_weight
                    * padded[i : i + image.shape[0], j : j + image.shape[1]]
                )
        return result

    def halve(images: np.ndarray) -> np.ndarray:
        images = images[..., : images.shape[-2] // 2 * 2, : images.shape[-1] // 2 * 2]
        return (
            images[..., ::2, ::2]
            + images[..., 1::2, ::2]
            + images[..., ::2, 1::2]
            + images[..., 1::2, 1::2]
        ) / 4

    a = a.astype(np.float64)
    b = b.astype(np.float64)
    scores = [1.0] * len(a)
    for scale in range(3):
        size = max(a.max() - a.min(), b.max() - b.min())
        c1 = (0.01 * size) ** 2
        c2 = (0.03 * size) ** 2
        for i in range(len(a)):
            contrasts = []
            similarities = []
            for one, two in zip(a[i], b[i]):
                mean_1 = smooth(one)
                mean_2 = smooth(two)
                var_1 = np.maximum(smooth(one**2) - mean_1**2, 0)
                var_2 = np.maximum(smooth(two**2) - mean_2**2, 0)
                contrast = (2 * (smooth(one * two) - mean_1 * mean_2) + c2) / (var_1 + var_2 + c2)
                luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
                similarities.append((luminance * contrast)[half:-half, half:-half])
                contrasts.append(contrast[half:-half, half:-half])
            term = np.mean(similarities) if scale == 2 else np.mean(contrasts)
            scores[i] *= max(float(term), 0.0) ** 0.33
        a = halve(a)
        b = halve(b)
    return scores


def memorized_seeds(maps: np.ndarray, threshold: float, **window) -> list[int]:
    """Seeds that look like another seed of the same prompt."""
    pairs = [(i, j) for i in range(len(maps)) for j in range(i + 1, len(maps))]
    values = ms_ssim(
        np.stack([maps[i] for i, _ in pairs]), np.stack([maps[j] for _, j in pairs]), **window
    )
    return [
        seed
        for seed in range(len(maps))
        if max(value for pair, value in zip(pairs, values) if seed in pair) > threshold
    ]


def initial_selection(
    active: dict,
    statistics: dict,
    likeness,
    threshold: float,
    *,
    theta: float = 5.0,
    theta_step: float = 0.25,
    least_theta: float = 1.0,
    k: int = 0,
    no_theta: bool = False,
    no_top_k: bool = False,
    doubles: bool = False,
) -> tuple[dict, float, bool]:
    """(neurons, similarity, whether theta or k is at its end). There the similarity, low or high,
    is the threshold of the refinement. active: name -> activations; statistics: name -> (means,
    stds).
    """
    if no_theta:
        theta = math.inf
    if no_top_k:
        k = 0
    while True:
        chosen = {}
        for name, a in active.items():
            means, stds = statistics[name]
            neurons = [j for j in range(len(a)) if abs(a[j] - means[j]) / stds[j] > theta]
            for j in sorted(range(len(a)), key=lambda j: -a[j])[:k]:
                if doubles or j not in neurons:
                    neurons.append(j)
            chosen[name] = neurons
        value = likeness(chosen)
        if value > threshold:
            if theta > least_theta and not no_theta:
                theta -= theta_step
            if not no_top_k:
                k += 1
        ended = theta == 1 or k >= 1280
        if ended or value <= threshold:
            return chosen, value, ended


def refinement(chosen: dict, likeness, threshold: float) -> dict:
    """Unblocks whole layers, last to first, then single neurons of those that are left; for good
    where the likeness stays below. Of a neuron that is listed twice, one copy is taken out.
    """
    kept = {name: list(neurons) for name, neurons in chosen.items()}
    for name in reversed(list(kept)):
        if kept[name] and likeness({**kept, name: []}) < threshold:
            kept[name] = []
    for name in reversed(list(kept)):
        for neuron in list(kept[name]):
            rest = list(kept[name])
            rest.remove(neuron)
            if likeness({**kept, name: rest}) < threshold:
                kept[name] = rest
    return kept


def find(
    unet,
    embedding: torch.Tensor,
    x: torch.Tensor,
    t: int,
    statistics: dict,
    threshold: float,
    *,
    initial_threshold: float | None = None,
    refinement_threshold: float | None = None,
    relative_threshold: float | None = None,
    selection: dict | None = None,
    up: bool = False,
    **window,
) -> dict:
    """The neurons of one prompt. embedding: (1, tokens, dim); x: (seeds, 4, h, w)."""
    if initial_threshold is None:
        initial_threshold = threshold
    if refinement_threshold is None:
        refinement_threshold = threshold
    unblocked = noise_maps(unet, embedding, x, t, {})
    seeds = memorized_seeds(unblocked, threshold, **window)
    if not seeds:
        return {}

    def similarities(neurons: dict) -> list[float]:
        return ms_ssim(
            unblocked[seeds], noise_maps(unet, embedding, x[seeds], t, neurons), **window
        )

    def likeness(neurons: dict) -> float:
        return max(similarities(neurons))

    active = {name: activation(to_v, embedding[0]) for name, to_v in layers_of(unet, up=up).items()}
    chosen, reached, ended = initial_selection(
        active, statistics, likeness, initial_threshold, **(selection or {})
    )
    if ended:
        refinement_threshold = reached
    if relative_threshold is None:
        kept = refinement(chosen, likeness, refinement_threshold)
    else:
        before = similarities(chosen)

        def change(neurons: dict) -> float:
            now = similarities(neurons)
            return max(abs(b - a) / (abs(a) + 1e-9) for a, b in zip(before, now))

        kept = refinement(chosen, change, relative_threshold)
    return {name: neurons for name, neurons in kept.items() if neurons}


@torch.no_grad()
def generate(
    unet,
    text_encoder,
    tokenizer,
    prompt: str,
    x: torch.Tensor,
    neurons: dict,
    factor: float,
    *,
    num_steps: int,
    guidance_scale: float,
) -> torch.Tensor:
    """Final latents of one prompt's images with its neurons blocked. x: (n, 4, h, w)."""
    stacked = torch.cat(
        [encode(tokenizer, text_encoder, "")] * len(x)
        + [encode(tokenizer, text_encoder, prompt)] * len(x)
    )
    with Blocked(unet, neurons, factor):
        for t in ddim_timesteps(num_steps):
            uncond, text = unet(torch.cat([x, x]), t, encoder_hidden_states=stacked).sample.chunk(2)
            x = ddim_step(x, uncond + guidance_scale * (text - uncond), t, num_steps, alpha_bars())
    return x


# --- controls: rows of lists, one list of channels a layer ---


def top_neurons(rows: list[list[list[int]]], k: int) -> list[list[int]]:
    """The k neurons that most rows have, in all layers together."""
    layers = len(rows[0])
    counts = []
    for layer in range(layers):
        of_layer = {}
        for row in rows:
            for neuron in row[layer]:
                of_layer[neuron] = of_layer.get(neuron, 0) + 1
        counts += [((layer, neuron), count) for neuron, count in of_layer.items()]
    counts.sort(key=lambda pair: -pair[1])
    chosen = [[] for _ in range(layers)]
    for (layer, neuron), _ in counts[:k]:
        chosen[layer].append(neuron)
    return chosen


def top_neurons_of_each_layer(rows: list[list[list[int]]], k: int) -> list[list[int]]:
    """The k neurons of each layer that most rows have."""
    chosen = []
    for layer in range(len(rows[0])):
        only = [[row[layer]] for row in rows]
        chosen.append(top_neurons(only, k)[0])
    return chosen


def top_subgroups(rows: list[list[list[int]]], k: int) -> list[list[int]]:
    """All neurons of the k most frequent rows; the order within a layer is of no account."""
    counts = {}
    for row in rows:
        text = str([sorted(layer) for layer in row])
        counts[text] = counts.get(text, 0) + 1
    chosen = [set() for _ in rows[0]]
    for text, _ in sorted(counts.items(), key=lambda pair: -pair[1])[:k]:
        for layer, neurons in enumerate(ast.literal_eval(text)):
            chosen[layer].update(neurons)
    return [sorted(layer) for layer in chosen]


def random_instead(chosen: list[list[int]], widths: list[int], seed: int) -> list[list[int]]:
    """As many neurons of each layer, at random."""
    drawn = []
    for neurons, width in zip(chosen, widths):
        random.seed(seed)
        drawn.append(random.sample(range(width), len(neurons)))
    return drawn
