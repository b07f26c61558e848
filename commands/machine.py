"""How a run uses the machine: rows in one pass, compilation, and what would have been faster."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable
from typing import Any

from memorization_suite.commands.hints import HALVES, batch_size_hint, compile_hint
from memorization_suite.detection.base import Detector
from memorization_suite.mitigation.base import Mitigation
from memorization_suite.runs.store import Store
from memorization_suite.sampling import Hooks
from memorization_suite.sampling.denoiser import Denoiser
from memorization_suite.sampling.memory import Limits, choose_limits
from memorization_suite.sampling.passes import items_in_pass

Part = Mitigation | Detector


def choose_memory(
    model: Denoiser,
    settings: Any,
    *,
    gradients: bool,
    stores: Collection[Store] = (),
) -> dict[str, Any]:
    """Rows in one pass, for the manifest: as it has them already, so that a busier device changes
    nothing when a run goes on, else what the memory allows.

    settings: with image_length, num_inference_steps and memory_budget. gradients: whether some will
    be taken. stores: that go on. Raises ValueError for a budget that is too small.
    """
    for store in stores:
        memory = (store.manifest() or {}).get("memory")
        if memory and settings.memory_budget in (None, memory["budget_gib"]):
            return memory
    limits = choose_limits(
        model,
        settings.image_length,
        settings.memory_budget,
        gradients=gradients,
        num_inference_steps=settings.num_inference_steps,
    )
    return {"budget_gib": settings.memory_budget, **limits.as_dict()}


def memory_facts(settings: Any, memory: dict[str, Any]) -> dict[str, Any]:
    """For `Store.start`: what is noted there already stays, unless a budget was typed."""
    if settings.memory_budget is None:
        return {"once": {"memory": memory}}
    return {"memory": memory}


def use_machine(model: Denoiser, settings: Any, memory: dict[str, Any], prompts: int) -> None:
    """Sets the model's limits, and compiles it where that is asked for.

    memory: of the manifest. prompts: that there are. Raises ValueError for a model that cannot be
    compiled.
    """
    model.limits = limits_of(memory)
    if not settings.compile:
        model.compiled = None  # a sweep's runs share the model
    else:
        start = time.perf_counter()
        model.compile_for(
            rows_in_flight(settings, prompts, model.limits),
            settings.image_length,
            settings.num_inference_steps,
        )
        print(f"compiled in {time.perf_counter() - start:.0f} s", file=sys.stderr)


def limits_of(memory: dict[str, Any]) -> Limits:
    """Of what a manifest has."""
    return Limits(memory["forward"], memory["backward"])


def rows_in_flight(settings: Any, prompts: int, limits: Limits) -> int:
    """Rows of a guided step of a full batch through the network at once."""
    images = min(settings.batch_size, prompts) * settings.n_samples_per_prompt
    return HALVES * items_in_pass(images, HALVES, limits.forward)


def say_hints(
    settings: Any, parts: Collection[Part], prompts: int, limits: Limits, seconds: float
) -> None:
    """Says on stderr what would have been faster on a GPU, of a run that took so many seconds.

    parts: its methods and detectors; where they take gradients, or change the network, compilation
    helps little. prompts: that were asked for. limits: the model's.
    """
    if settings.quiet or not settings.device.startswith("cuda"):
        return
    size = (settings.batch_size, settings.n_samples_per_prompt)
    hints = [batch_size_hint(*size, prompts, limits.forward)]
    plain = all(getattr(type(part), "patch", Hooks.patch) is Hooks.patch for part in parts)
    if plain and not settings.compile and not derivatives(parts, settings.dtype):
        hints.append(compile_hint(seconds))
    for hint in filter(None, hints):
        print(hint, file=sys.stderr)


def derivatives(parts: Iterable[Part], dtype: str) -> dict[str, str]:
    """Of each method and detector that differentiates the precision in which it does, by name."""
    found = {part.name: part.derivatives(dtype) for part in parts}
    return {name: precision for name, precision in found.items() if precision}


def say_derivatives(parts: Iterable[Part], dtype: str) -> None:
    """Says on stderr in which precision derivatives are taken, of a network that is not float32."""
    found = derivatives(parts, dtype)
    if found and dtype != "fp32":
        said = ", ".join(f"{name} in {precision}" for name, precision in found.items())
        print(f"derivatives: {said}", file=sys.stderr)


def rounding(settings: Any, parts: Iterable[Part]) -> dict[str, Any]:
    """How numbers are rounded beside the dtype, for the identity of a run: what is not the same
    everywhere.
    """
    found: dict[str, Any] = {}
    precisions = derivatives(parts, settings.dtype)
    if settings.device.startswith("cuda") and "fp32" in (settings.dtype, *precisions.values()):
        found["tf32"] = settings.tf32
    if settings.compile:
        found["compile"] = True
    finer = {name: dtype for name, dtype in precisions.items() if dtype != settings.dtype}
    if finer:
        found["derivatives"] = finer
    return found
