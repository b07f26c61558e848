"""Statistics and searches over prompt files, with a loaded model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from memorization_suite.localization.activations import activations, mean_and_std
from memorization_suite.localization.search import Maps, Statistics, localize
from memorization_suite.localization.similarity import kernel_size, pair_similarities
from memorization_suite.localization.store import NeuronFile
from memorization_suite.sampling import image_seed, initial_noise

STEPS = 50  # of the timestep grid whose first entries are used


@dataclass(frozen=True)
class Setup:
    """seeds noises from seed, the same for every prompt, read at timestep number t_index; factor:
    what values of blocked neurons are multiplied
    by; rows: UNet rows, or prompts to encode, at once; blocks: where neurons are looked for."""

    seed: int = 1
    seeds: int = 10
    t_index: int = 0
    factor: float = 0.0
    rows: int = 64
    blocks: str = "early"


def make_maps(pipe, caption: str, setup: Setup) -> Maps:
    """Noise maps of one prompt. Raises ValueError for a model whose maps are too small."""
    side = pipe.unet.config.sample_size
    kernel_size(side)
    pipe.scheduler.set_timesteps(STEPS, device=pipe.device)
    noise = initial_noise(
        [image_seed(setup.seed, 0, j) for j in range(setup.seeds)],
        (pipe.unet.config.in_channels, side, side),
    ).to(pipe.device)
    x = pipe.scheduler.scale_model_input(
        noise * pipe.scheduler.init_noise_sigma, pipe.scheduler.timesteps[0]
    )
    return Maps(
        pipe.unet,
        pipe.scheduler,
        pipe.encode([caption]),
        x,
        pipe.scheduler.timesteps[setup.t_index],
        factor=setup.factor,
        rows=setup.rows,
    )


def ordinary_statistics(
    pipe, captions: list[str], for_threshold: list[str], setup: Setup
) -> tuple[Statistics, int]:
    """Statistics of ordinary prompts, and from how many pairs of seeds the threshold is.

    threshold: mean + 1 std of the similarity of all pairs of seeds; nan without pairs. Official:
    the same, on maps with guidance 7 although the search runs without guidance.
    """
    parts = (captions[i : i + setup.rows] for i in range(0, len(captions), setup.rows))
    mean, std = mean_and_std(activations(pipe.unet, pipe.encode(part)) for part in parts)
    upper = torch.ones(setup.seeds, setup.seeds).triu(1).bool()
    pairs = [
        pair_similarities(make_maps(pipe, caption, setup).of([[]])[0])[upper]
        for caption in for_threshold
    ]
    values = torch.cat(pairs) if pairs else torch.empty(0)
    threshold = float(values.mean() + values.std()) if len(values) > 1 else float("nan")
    return Statistics(mean, std, threshold), len(values)


def search(
    pipe,
    captions: list[str],
    statistics: Statistics,
    file: NeuronFile,
    setup: Setup,
    *,
    quiet: bool = False,
) -> None:
    """Searches prompt after prompt; each is kept in the file at once."""
    from tqdm import tqdm

    for caption in tqdm(captions, unit="prompt", disable=quiet):
        found = localize(
            make_maps(pipe, caption, setup),
            statistics,
            blocks=setup.blocks,
            at_once=max(1, setup.rows // setup.seeds),
        )
        file.add(caption, found)
