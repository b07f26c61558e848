"""Initial noise: it belongs to the image, not to the process that draws it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch


def image_seed(seed: int, prompt_index: int, sample_index: int) -> int:
    """Seed of one image, independent of batch size, order and number of processes."""
    return int(
        np.random.SeedSequence([seed, prompt_index, sample_index]).generate_state(1, np.uint64)[0]
        >> 1
    )


def prompt_seed(seed: int, prompt_index: int) -> int:
    """Seed of what all images of a prompt share."""
    return int(np.random.SeedSequence([seed, prompt_index]).generate_state(1, np.uint64)[0] >> 1)


def initial_noise(seeds: list[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Unit-variance noise, drawn on the CPU in float32 with one generator per image. (len(seeds),
    *shape).
    """
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


def official_noise(
    seed: int, batch_rows: list[int], shape: tuple[int, int, int], dtype: torch.dtype, device: str
) -> Iterator[torch.Tensor]:
    """Replays the official script's draws: one seed, then one draw per prompt batch in file order.

    batch_rows: images in each batch. Yields (rows, *shape) in the pipeline's dtype, drawn on its
    device.
    """
    generator = torch.Generator(device).manual_seed(seed)
    for rows in batch_rows:
        yield torch.randn((rows, *shape), generator=generator, dtype=dtype, device=device)
