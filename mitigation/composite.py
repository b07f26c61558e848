"""Several methods at once, `A+B`: their hooks must not collide."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from memorization_suite.mitigation.base import HOOKS, Adjustment, Mitigation
from memorization_suite.sampling import Batch, GuidanceSchedule, NoisePredictor


def owner(methods: tuple[Mitigation, ...], hook: str) -> Mitigation:
    """The method that overrides this hook, or one that does nothing."""
    return next((method for method in methods if overrides(method, hook)), Mitigation())


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

    def edit_prompts(self, batch: Batch) -> list[str]:
        return owner(self.methods, "edit_prompts").edit_prompts(batch)

    def edit_embeddings(self, predictor: NoisePredictor, x, t, batch: Batch) -> dict:
        return self.labelled(
            "edit_embeddings",
            owner(self.methods, "edit_embeddings").edit_embeddings(predictor, x, t, batch),
        )

    def adjust_initial_noise(self, predictor: NoisePredictor, x, t, batch: Batch) -> Adjustment:
        adjustment = owner(self.methods, "adjust_initial_noise").adjust_initial_noise(
            predictor, x, t, batch
        )
        return Adjustment(
            adjustment.x,
            self.labelled("adjust_initial_noise", adjustment.numbers),
        )

    def guidance(self, batch: Batch) -> GuidanceSchedule:
        return owner(self.methods, "guidance").guidance(batch)

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        return owner(self.methods, "patch").patch(predictor, batch)

    def labelled(self, hook: str, numbers: dict) -> dict:
        """Figures under the method's name where two methods adjust something, since both may call
        theirs `iterations`.
        """
        clash = all(
            any(overrides(method, one) for method in self.methods)
            for one in ("edit_embeddings", "adjust_initial_noise")
        )
        return (
            {f"{owner(self.methods, hook).name}.{name}": value for name, value in numbers.items()}
            if clash
            else numbers
        )

    def check(self, num_steps: int) -> None:
        for method in self.methods:
            method.check(num_steps)

    def check_run(self, identity: dict) -> None:
        for method in self.methods:
            method.check_run(identity)

    def settings(self) -> dict:
        used: dict = {}
        for i, method in enumerate(self.methods, 1):
            used |= {
                name if name not in used else f"{name}{i}": value
                for name, value in method.settings().items()
            }
        return used
