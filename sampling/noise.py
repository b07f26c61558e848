"""Random numbers: they belong to the image, not to the process that draws them.

Every seed is derived here, and every stream is made here. So an image is the same on any batch
size, order and number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator

from memorization_suite.runs.lazy import np, torch

# Streams of one image's seed; their place in this tuple tells them apart.
STREAMS = ("initial noise", "scheduler", "probes", "krylov start")


def derived(seed: int, *parts: int) -> int:
    """Seed of a part of what `seed` is for, e.g. of a prompt's image: (prompt row, sample)."""
    return int(np.random.SeedSequence([seed, *parts]).generate_state(1, np.uint64)[0] >> 1)


def image_seed(seed: int, prompt_index: int, sample_index: int) -> int:
    """Seed of one image, independent of batch size, order and number of processes."""
    return derived(seed, prompt_index, sample_index)


def prompt_seed(seed: int, prompt_index: int) -> int:
    """Seed of what all images of a prompt share."""
    return derived(seed, prompt_index)


def stream(seed: int, purpose: str = "initial noise") -> torch.Generator:
    """The stream of one image for one purpose, any of STREAMS, on the CPU."""
    return torch.Generator().manual_seed(seed ^ STREAMS.index(purpose))


def numpy_stream(seed: int) -> np.random.Generator:
    """The stream of what a method draws for one image or prompt: words, embeddings."""
    return np.random.default_rng(seed)


def initial_noise(seeds: list[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Unit-variance noise (n, *shape), drawn on the CPU in float32 with one stream an image."""
    return torch.stack([torch.randn(shape, generator=stream(seed)) for seed in seeds])


def official_noise(
    seed: int,
    batch_rows: list[int],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: str,
) -> Iterator[torch.Tensor]:
    """Replays the official script's draws: one seed, then one draw per prompt batch in file order.

    batch_rows: images in each batch. Yields (rows, *shape) in the pipeline's dtype, drawn on its
    device.
    """
    generator = torch.Generator(device).manual_seed(seed)
    for rows in batch_rows:
        yield torch.randn((rows, *shape), generator=generator, dtype=dtype, device=device)


def reseeded(
    seed: int, shape: tuple[int, ...], dtype: torch.dtype, device: str
) -> tuple[torch.Tensor, torch.Generator]:
    """What a script draws right after `torch.manual_seed(seed)`, and the CPU's generator then.

    Tensor of this shape, dtype and device. On a CPU the generator has drawn it; on another device
    it is as it was seeded.
    """
    on_cpu = torch.Generator().manual_seed(seed)
    generator = on_cpu
    if torch.device(device).type != "cpu":
        generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype, device=device), on_cpu
