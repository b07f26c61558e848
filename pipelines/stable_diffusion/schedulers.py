"""The samplers that --scheduler names."""

from __future__ import annotations

import inspect
from typing import Any

from memorization_suite.runs.lazy import Lazy

diffusers = Lazy("diffusers")

# --scheduler -> class, and what its grid and steps must be whatever the model's config says or
# omits.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": (
        "DDIMScheduler",
        {
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "timestep_spacing": "leading",
        },
    ),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
}


def scheduler_named(name: str, own: Any) -> Any:
    """The sampler of a name of SCHEDULERS. own: the model's, whose noise schedule it gets."""
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers, kind).from_config(own.config, **settings)


def name_of(own: Any) -> str:
    """The name of SCHEDULERS that makes the same of a model's sampler; `keep` where none does."""
    for name, (kind, _) in SCHEDULERS.items():
        if type(own).__name__ == kind and settings_of(scheduler_named(name, own)) == settings_of(
            own
        ):
            return name
    return "keep"


def settings_of(scheduler: Any) -> dict[str, Any]:
    """What a sampler was built with. Others that its file may have are ignored."""
    parameters = inspect.signature(type(scheduler)).parameters
    return {name: scheduler.config[name] for name in parameters if name in scheduler.config}
