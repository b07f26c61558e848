"""What generate_images.py --screen needs typed beside a threshold, so that scores are those that
the threshold is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memorization_suite.commands.generate_plan import Generation
from memorization_suite.commands.settings import fill
from memorization_suite.detection import DETECTORS, Detector, build_detector
from memorization_suite.pipelines.models import load_preset
from memorization_suite.runs.settings import plain_values

# What decides the first step, and what else decides later ones.
FIRST = ("scheduler", "num_inference_steps", "image_length", "dtype")
LATER = ("guidance_scale",)
# What is typed only where it was typed for the scores: it follows from the model or the machine.
FOLLOWS = ("image_length", "dtype")


def flags_of_scores(config: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Flags of the sampler that generate_images.py would not choose itself. command: the one that
    made the scores.

    config: of the detector; nothing is known without it, or without its model.
    """
    detector = screening(config)
    if detector is None:
        return {}
    usual = fill(Generation, {}, (preset_of(config) or {}).get("generate", {}))
    first_alone = detector.steps(config["num_inference_steps"]) == 1 and not detector.needs_final
    typed = {}
    for name in (*FIRST, *(() if first_alone else LATER)):
        differs = name in config and config[name] != getattr(usual, name)
        if differs and (name not in FOLLOWS or f"--{name}" in command):
            typed[name] = config[name]
    return typed


def untypable(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of the detector, which --screen takes from presets alone, that its scores were not
    made with: name -> (of the scores, of --screen).
    """
    detector = screening(config)
    if detector is None:
        return {}
    here = plain_values(detector)
    return {
        name: (config[name], value)
        for name, value in here.items()
        if name in config and config[name] != value
    }


def screening(config: Mapping[str, Any]) -> Detector | None:
    """The detector as --screen builds it; None where its scores do not tell which it is, or the
    model is not here, as that of another machine.
    """
    name = config.get("detector")
    if name not in DETECTORS or not {"model_id", "num_inference_steps"} <= set(config):
        return None
    preset = preset_of(config)
    return None if preset is None else build_detector(str(name), **preset.get(str(name), {}))


def preset_of(config: Mapping[str, Any]) -> dict[str, dict] | None:
    """The values of the model's own preset; None where they cannot be read here."""
    try:
        return load_preset("auto", str(config["model_id"]))[1]
    except ValueError:
        return None
