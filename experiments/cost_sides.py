"""The suite and a plain transcription of the official procedure on the same work, in turns."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from memorization_suite.experiments.cost_tables import Cost, Rate
from memorization_suite.mitigation import Mitigation
from memorization_suite.prompts.files import Prompt
from memorization_suite.sampling import Batch
from memorization_suite.sampling.denoiser import Denoiser
from memorization_suite.sampling.memory import held_bytes, peak_bytes
from memorization_suite.sampling.sample import noise_of, sample, to_pictures
from tests.reference import han2025

# Methods that the official code has.
OFFICIAL = ("no_mitigation", "batch_wise", "per_sample")
GUIDANCE = 7.0
SEED = 2

clock = time.perf_counter


@dataclass(frozen=True)
class Work:
    """What both sides sample."""

    model: Denoiser
    prompts: list[Prompt]
    # Of each prompt.
    images: int
    steps: int

    @property
    def total(self) -> int:
        """Images of all prompts."""
        return self.images * len(self.prompts)


class Suite:
    """The suite's way: all prompts in one batch."""

    code = "suite"

    def __init__(self, work: Work, method: Mitigation):
        self.work = work
        self.method = method
        # Of an image; known once sampling has ended.
        self.nfe = float("nan")

    def sample(self) -> torch.Tensor:
        """Final latents."""
        model = self.work.model
        batch = Batch.of(self.work.prompts, self.work.images, SEED)
        made = sample(
            model,
            batch,
            noise_of(model, batch, model.native_size),
            self.method,
            num_inference_steps=self.work.steps,
            guidance_scale=GUIDANCE,
        )
        self.nfe = float(made.unet_evals.float().mean())
        return made.final

    def decode(self, latents: torch.Tensor) -> list:
        """Pictures of them."""
        return to_pictures(self.work.model.decode(latents))


class Official:
    """The official procedure: prompt after prompt, per-sample image after image."""

    code = "official procedure"

    def __init__(self, work: Work, method: Mitigation):
        self.work = work
        self.method = method
        self.network = work.model.network
        self.rows = 0

    @property
    def nfe(self) -> float:
        """Of an image, of the last sampling."""
        return self.rows / self.work.total

    def sample(self) -> list[torch.Tensor]:
        """Final latents of each prompt."""
        model = self.work.model
        self.rows = 0
        network = self.network
        if model.predicts == "v":
            network = han2025.NoiseOfVelocity(network)
        with self.as_the_script(), self.counted():
            latents, _ = han2025.official_generate(
                network,
                model.text_encoder,
                model.tokenizer,
                [prompt.caption for prompt in self.work.prompts],
                n=self.work.images,
                shape=model.latent_shape(model.native_size, model.native_size),
                seed=SEED,
                num_steps=self.work.steps,
                guidance_scale=GUIDANCE,
                **official_settings(self.method),
            )
        return latents

    def decode(self, latents: list[torch.Tensor]) -> list:
        """Pictures of them, a prompt's at once."""
        vae = self.work.model.vae
        with self.as_the_script():
            return [han2025.official_pictures(vae, each) for each in latents]

    @contextlib.contextmanager
    def as_the_script(self) -> Iterator[None]:
        """Weights take part in gradients, and cuDNN chooses freely."""
        before = torch.backends.cudnn.deterministic
        torch.backends.cudnn.deterministic = False
        self.network.requires_grad_(True)
        try:
            yield
        finally:
            self.network.requires_grad_(False)
            torch.backends.cudnn.deterministic = before

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Counts the rows that pass through the network."""

        def count(network, arguments) -> None:
            self.rows += len(arguments[0])

        hook = self.network.register_forward_pre_hook(count)
        try:
            yield
        finally:
            hook.remove()


def official_settings(method: Mitigation) -> dict[str, Any]:
    """What the transcription takes for a method that it has."""
    names = {
        "batch_wise": ("rho", "gamma", "adj_iters"),
        "per_sample": ("lr", "target_loss", "optim_iters"),
    }.get(method.name)
    if names is None:
        return {}
    made: dict[str, Any] = {method.name: {name: getattr(method, name) for name in names}}
    if method.name == "batch_wise":
        made["apply_cfg_step"] = method.apply_cfg_step
    return made


# --- measuring ---


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Times:
    """Of one side, in seconds, a run each."""

    sampling: list[float] = field(default_factory=list)
    # Sampling and decoding.
    whole: list[float] = field(default_factory=list)

    def add(self, side: Suite | Official, device: torch.device) -> None:
        """Times one run."""
        synchronize(device)
        start = clock()
        latents = side.sample()
        synchronize(device)
        sampled = clock()
        side.decode(latents)
        synchronize(device)
        self.sampling.append(sampled - start)
        self.whole.append(clock() - start)


def sides_of(work: Work, method: Mitigation) -> list[Suite | Official]:
    """The suite, then the official procedure if it has the method."""
    if method.name in OFFICIAL:
        return [Suite(work, method), Official(work, method)]
    return [Suite(work, method)]


def peaks(side: Suite | Official, model: Denoiser) -> dict[str, int]:
    """The most bytes at once of a run's sampling and of its decoding, weights included."""
    device = torch.device(model.device)
    latents: list[Any] = []

    def peak(function: Callable[[], object]) -> int:
        return held_bytes(model) + peak_bytes(device, function)

    return {
        "peak_sampling": peak(lambda: latents.append(side.sample())),
        "peak_decoding": peak(lambda: side.decode(latents[0])),
    }


def measure(
    sides: list[Suite | Official], work: Work, *, repeats: int, compiling: float | None = None
) -> list[Cost]:
    """The costs of each side. compiling: seconds that it took, if the suite's network is compiled.

    Memory is measured in a run that is not timed. Raises ValueError for a method that cannot run
    here.
    """
    device = torch.device(work.model.device)
    memory = [peaks(side, work.model) for side in sides]
    times = [Times() for _ in sides]
    for _ in range(repeats):
        for side, taken in zip(sides, times):
            taken.add(side, device)
    costs = []
    for side, taken, peak in zip(sides, times, memory):
        cost = Cost(
            method=side.method.name,
            code=side.code,
            images=work.total,
            nfe=side.nfe,
            sampling=statistics.median(taken.sampling),
            seconds=statistics.median(taken.whole),
            **peak,
        )
        costs.append(cost)
    if len(sides) == 2:
        pairs = zip(times[0].whole, times[1].whole)
        costs[0].time_ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        costs[0].peak_ratio = costs[0].peak / costs[1].peak
    costs[0].compiling = compiling
    return costs


def measure_rows(
    model: Denoiser, counts: list[int], repeats: int, *, compiled: bool = False
) -> list[Rate]:
    """Rows a second through the network, by rows in flight."""
    device = torch.device(model.device)
    steps = 50
    model.set_timesteps(steps)
    t = model.timesteps[0]
    told = model.encode(["a picture of a dog"])
    rates = []
    for rows in counts:
        shape = (rows, *model.latent_shape(model.native_size, model.native_size))
        x = torch.randn(shape).to(device, model.dtype)
        conditioning = told[torch.zeros(rows, dtype=torch.long)]
        calls = max(1, max(counts) // rows // 4)
        if compiled:
            model.compile_for(rows, model.native_size, steps)
        found = []
        for _ in range(repeats + 1):
            synchronize(device)
            start = clock()
            with torch.no_grad():
                for _ in range(calls):
                    model.predict(x, t, conditioning)
            synchronize(device)
            found.append(rows * calls / (clock() - start))
        rates.append(Rate(rows, statistics.median(found[1:])))
    return rates
