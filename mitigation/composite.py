"""Several methods at once, `A+B`: their hooks must not collide."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from memorization_suite.mitigation.base import Mitigation
from memorization_suite.sampling import Adjustment, Batch, GuidanceSchedule, NoisePredictor
from memorization_suite.sampling.hooks import HOOKS


def overrides(method: Mitigation, hook: str) -> bool:
    """Does the method's class define the hook itself?"""
    return getattr(type(method), hook) is not getattr(Mitigation, hook)


@dataclass(frozen=True)
class Composite(Mitigation):
    """Each hook is the one method's that has it. Raises ValueError when two have the same."""

    methods: tuple[Mitigation, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", "+".join(method.name for method in self.methods))
        for hook in HOOKS:
            owners = [method.name for method in self.methods if overrides(method, hook)]
            if len(owners) > 1:
                raise ValueError(
                    f"{' and '.join(owners)} cannot be combined: both have the hook {hook}"
                )

    def owner(self, hook: str) -> Mitigation:
        """The method that overrides this hook, or one that does nothing."""
        owners = (method for method in self.methods if overrides(method, hook))
        return next(owners, Mitigation())

    def edit_prompts(self, batch: Batch) -> list[str]:
        return self.owner("edit_prompts").edit_prompts(batch)

    def edit_embeddings(self, predictor: NoisePredictor, x, t, batch: Batch) -> dict:
        numbers = self.owner("edit_embeddings").edit_embeddings(predictor, x, t, batch)
        return self.labeled("edit_embeddings", numbers)

    def adjust_initial_noise(self, predictor: NoisePredictor, x, t, batch: Batch) -> Adjustment:
        owner = self.owner("adjust_initial_noise")
        adjustment = owner.adjust_initial_noise(predictor, x, t, batch)
        numbers = self.labeled("adjust_initial_noise", adjustment.numbers)
        return Adjustment(adjustment.x, numbers)

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        return self.owner("guidance").guidance(batch)

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        return self.owner("patch").patch(predictor, batch)

    def labeled(self, hook: str, numbers: dict) -> dict:
        """Figures under the method's name where two methods adjust something.

        Both may call theirs `iterations`.
        """
        adjusting = ("edit_embeddings", "adjust_initial_noise")
        if not all(self.has(name) for name in adjusting):
            return numbers
        label = self.owner(hook).name
        return {f"{label}.{name}": value for name, value in numbers.items()}

    def has(self, hook: str) -> bool:
        """Whether one of the methods overrides this hook."""
        return any(overrides(method, hook) for method in self.methods)

    @property
    def pools_images(self) -> bool:
        return any(method.pools_images for method in self.methods)

    def check(self, num_steps: int) -> None:
        for method in self.methods:
            method.check(num_steps)

    def check_run(self, identity: dict) -> None:
        for method in self.methods:
            method.check_run(identity)

    def named_values(self) -> dict:
        used: dict = {}
        for i, method in enumerate(self.methods, 1):
            taken = set(used)
            for name, value in method.named_values().items():
                used[f"{name}{i}" if name in taken else name] = value
        return used
