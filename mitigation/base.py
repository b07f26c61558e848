"""What a mitigation is: hooks of the sampler, and flags declared beside the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from memorization_suite.runs.registry import Registry
from memorization_suite.runs.settings import Settings, flag, flags, quirks, value_type
from memorization_suite.sampling import Adjustment, BelowTimestep, Hooks

__all__ = [
    "METHODS",
    "Adjustment",
    "Ahead",
    "Mitigation",
    "check_guided_step",
    "flag",
    "flags",
    "quirks",
    "register",
    "value_type",
]


@dataclass(frozen=True)
class Ahead:
    """What is known of a run before it begins, and tells what it will cost."""

    # Of the sampler, the noisiest first.
    timesteps: tuple[float, ...]
    # Captions of the same meaning that a prompt has, in the mean.
    alternatives: float = 0.0

    def above(self, tau: float) -> int:
        """Steps with t > tau, as guidance counts them."""
        return sum(t > tau + BelowTimestep.tolerance for t in self.timesteps)


@dataclass(frozen=True)
class Mitigation(Settings, Hooks):
    """A method: hooks of the sampler, and settings. This one does nothing."""

    name: ClassVar[str]
    paper: ClassVar[str]
    cost: ClassVar[str] = "2N"  # NFE per image, N steps
    # For the documents: owner/name of the official code on GitHub, and how the method compares.
    code: ClassVar[str] = ""
    compared: ClassVar[str] = ""
    # Of a new method: flag -> values that are tried on the tuning split (experiments/compare.toml).
    grid: ClassVar[Mapping[str, Sequence]] = {}
    # Whether it reads a prompt's other captions.
    reads_alternatives: ClassVar[bool] = False

    @property
    def pools_images(self) -> bool:
        """Whether a prompt's images depend on how many it has."""
        return False

    def derivatives(self, dtype: str) -> str:
        """The precision in which it differentiates a network of this dtype, in its words (fp32,
        bf16, fp16); empty when it does not differentiate.
        """
        return ""

    def letters(self, ahead: Ahead) -> dict[str, float]:
        """The letters of `cost` beside N that the settings fix; `k = --NAME` there says itself
        which flag k is.
        """
        return {}

    def most(self, ahead: Ahead) -> dict[str, float]:
        """The letters of `cost` that each image decides: the most that they can be."""
        return {}

    def check_run(self, identity: dict) -> None:
        """Raises ValueError when a file that the method reads was made for another run.

        identity: model_id, scheduler, guidance_scale, ...
        """


def check_guided_step(flag_name: str, last_off: int, num_steps: int) -> None:
    """Raises ValueError when no step would be guided."""
    if last_off >= num_steps - 1:
        raise ValueError(
            f"--{flag_name} {last_off} leaves no step with guidance: the run has {num_steps} steps "
            f"(0..{num_steps - 1}). "
            f"Use at most {num_steps - 2}, or --guidance_scale 0 for an unconditional run."
        )


METHODS: Registry[Mitigation] = Registry("method", "mitigation")


def register(
    name: str, *, paper: str, cost: str = Mitigation.cost, code: str = "", compared: str = ""
):
    """Class decorator: makes a frozen dataclass of the method and lists it under `name`.

    cost: NFE per image, N steps: a sum of letters, then words (see `commands/sweeps/nfe.py`). code:
    owner/name of the official code on GitHub. compared: how the method compares with it; both stand
    in mitigation/README.md.
    """
    return METHODS.register(name, paper=paper, cost=cost, code=code, compared=compared)
