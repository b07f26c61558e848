"""NeMo's controls: a file of neurons in which every prompt has the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from memorization_suite.commands.settings import QUIET, check_out, check_prompts, split
from memorization_suite.mitigation.nemo.controls import CHOICES, at_random
from memorization_suite.mitigation.nemo.method import Neurons, read_neurons
from memorization_suite.mitigation.nemo.store import read_statistics
from memorization_suite.prompts.files import read_prompts
from memorization_suite.prompts.flags import FORMATS, HUB_SET, caption_column
from memorization_suite.prompts.sets import prompt_file
from memorization_suite.runs.files import write_json
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.settings import Settings, flag, frozen_settings, unkeyed
from memorization_suite.runs.text import counted


@frozen_settings
class ControlSettings(Settings):
    """The flags of localize_neurons.py control."""

    about: ClassVar[str] = "one set of neurons for every prompt, of those that were found"

    neurons: Path = unkeyed(dataclasses.MISSING, "file of the subcommand localize", metavar="FILE")
    out: Path = unkeyed(dataclasses.MISSING, "file to write: neurons, .json", metavar="FILE")
    prompts: Path | None = unkeyed(
        None,
        f"prompts that get them: {FORMATS}, or {HUB_SET} (default: those of --neurons)",
        metavar="FILE",
    )
    caption_column: str = caption_column()
    choose: str = flag(
        "top",
        "top: the most frequent neurons; top_per_layer: those of each layer; subgroups: all of the "
        "most frequent whole lists",
        choices=tuple(CHOICES),
    )
    k: int = flag(10, "how many of them", at_least=1, metavar="K")
    random: bool = flag(False, "as many of each layer, at random instead; needs --statistics")
    seed: int = flag(2, "seed of --random", at_least=0, metavar="N")
    statistics: Path | None = unkeyed(
        None, "file of the subcommand statistics, for --random", metavar="FILE"
    )
    quiet: bool = unkeyed(False, QUIET)


def control(**typed: Any) -> str:
    """Writes one set of neurons for all prompts, the controls of the paper. Returns how many, in a
    line.

    typed: flags of localize_neurons.py control by name. Raises ValueError, OSError.
    """
    split(typed, ControlSettings)
    settings = ControlSettings(**typed)
    check_out(settings.out)
    found = read_neurons(settings.neurons)
    captions = list(found)
    if settings.prompts is not None:
        check_prompts(settings.prompts)
        column = settings.caption_column
        file = prompt_file(str(settings.prompts), settings.out.parent, column)
        captions = list(dict.fromkeys(prompt.caption for prompt in read_prompts(file, column)))
    chosen = CHOICES[settings.choose](found.values(), settings.k)
    made_with = {"choose": settings.choose, "k": settings.k}
    if settings.random:
        chosen = at_random(chosen, widths_for(settings, chosen), settings.seed)
        made_with["seed"] = settings.seed
    whole = {
        "model": json_of(settings.neurons.read_text(encoding="utf-8")).get("model"),
        "settings": {"neurons_sha256": content_hash(settings.neurons), **made_with},
        "prompts": dict.fromkeys(captions, chosen),
    }
    write_json(settings.out, whole)
    count = sum(map(len, chosen.values()))
    return f"{settings.out}: {counted(len(captions), 'prompt')}, the same {count} neurons for each"


def widths_for(settings: ControlSettings, neurons: Neurons) -> dict[str, int]:
    """Layer -> how many neurons it has. Raises ValueError where that is not known."""
    if settings.statistics is None:
        raise ValueError("--random needs --statistics FILE: it says how many neurons there are")
    widths = {
        name: len(mean) for name, mean in read_statistics(settings.statistics)[0].mean.items()
    }
    for name in neurons:
        if name not in widths:
            raise ValueError(f"{settings.statistics} is of another model: it has no layer {name}")
    return widths
