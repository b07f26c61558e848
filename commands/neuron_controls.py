"""NeMo's controls: a file of neurons in which every prompt has the same."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from memorization_suite import tiny
from memorization_suite.commands.settings import QUIET, check_out, check_prompts, split
from memorization_suite.mitigation.nemo.controls import CHOICES, at_random
from memorization_suite.mitigation.nemo.method import Neurons, read_neurons
from memorization_suite.mitigation.nemo.store import read_statistics
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.prompts.files import read_prompts
from memorization_suite.prompts.flags import FORMATS, HUB_SET, caption_column
from memorization_suite.prompts.sets import prompt_file
from memorization_suite.runs.files import write_json
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.identity import same
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.settings import Settings, flag, frozen_settings, unkeyed
from memorization_suite.runs.text import counted

# Flag -> the flag without which it does nothing.
NEEDS = {"seed": "random", "statistics": "random", "caption_column": "prompts"}


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
    overwrite: bool = unkeyed(False, "replace a file of other neurons")
    quiet: bool = unkeyed(False, QUIET)


def control(**typed: Any) -> str:
    """Writes one set of neurons for all prompts, the controls of the paper. Returns how many, in a
    line.

    typed: flags of localize_neurons.py control by name. Raises ValueError, OSError.
    """
    split(typed, ControlSettings)
    settings = ControlSettings(**typed)
    check_needs(settings, typed)
    check_out(
        settings.out,
        neurons=settings.neurons,
        prompts=settings.prompts,
        statistics=settings.statistics,
    )
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
        "model": stored_model(settings.neurons),
        "settings": {"neurons_sha256": content_hash(settings.neurons), **made_with},
        "prompts": dict.fromkeys(captions, chosen),
    }
    if not settings.overwrite:
        check_same(settings.out, whole)
    write_json(settings.out, whole)
    count = sum(map(len, chosen.values()))
    return f"{settings.out}: {counted(len(captions), 'prompt')}, the same {count} neurons for each"


def check_same(path: Path, whole: Mapping[str, Any]) -> None:
    """Raises ValueError for a file with other contents than these, which are about to be written.

    A search takes hours, and its file is not made again in passing.
    """
    if not path.exists():
        return
    try:
        there = json_of(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = {}
    if there == whole:
        return
    is_search = isinstance(there, dict) and "figures" in there
    held = "the neurons of a search" if is_search else "something else"
    raise ValueError(f"{path} holds {held}. Give another --out, or --overwrite to replace it.")


def check_needs(settings: ControlSettings, typed: Mapping[str, Any]) -> None:
    """Raises ValueError for a flag that does nothing without another."""
    for name, other in NEEDS.items():
        if typed.get(name) not in (None, "") and not getattr(settings, other):
            raise ValueError(f"--{name} does nothing without --{other}: type both or none")


def stored_model(path: Path) -> str | None:
    """The model of a file of neurons, as it stands in identities; None where it does not say."""
    return json_of(path.read_text(encoding="utf-8")).get("model")


def model_id_of(path: Path) -> str:
    """What one types as --model_id for the model of a file of neurons: an embedded model, or a hub
    id. Empty for others: the file knows their content, not their place.
    """
    stored = stored_model(path)
    for name, folder in tiny.MODELS.items():
        if folder.is_dir() and same(stored, fingerprint(name)):
            return name
    hub_id = re.match(r"[\w.-]+/[\w.-]+(?=@|$)", str(stored))
    return hub_id[0] if hub_id else ""


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
