"""What localize_neurons.py is asked for: statistics of ordinary prompts, or a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from memorization_suite.commands.settings import QUIET, Model, Sampling
from memorization_suite.mitigation.base import quirks
from memorization_suite.mitigation.nemo.search import SearchOptions
from memorization_suite.mitigation.spikes import BLOCKS
from memorization_suite.prompts.flags import FORMATS, HUB_SET, caption_column
from memorization_suite.runs.identity import in_any_order
from memorization_suite.runs.settings import again, flag, frozen_settings, unkeyed

RAW_V = "on a v model the maps are of v less the noise, not of the predicted noise less it"


@frozen_settings
class NoiseMaps(Model):
    """How the noise maps of a prompt are made."""

    # What --help says of a subcommand with these flags.
    about: ClassVar[str]
    # Of the timestep grid whose first entries are used.
    num_inference_steps: ClassVar[int] = 50
    # The model's native size.
    image_length: ClassVar[int | None] = None

    scheduler: str = again(Model, "scheduler", text="its timesteps; keep: the model's own")
    seeds: int = flag(10, "noises, the same for every prompt", at_least=2, metavar="N")
    seed: int = again(Sampling, "seed", default=1, text="seed of the noises", at_most=None)
    t_index: int = flag(
        0,
        "timestep at which the noise is predicted: 0: the first; 1: the second, as the official "
        "code does by an oversight",
        at_least=0,
        at_most=1,
        metavar="{0,1}",
    )
    rng: str = flag(
        "per_image",
        "per_image: a seed for each noise; official: all noises in one draw",
        choices=("per_image", "official"),
    )
    official: str = quirks(raw_v=RAW_V)
    dtype: str = again(Sampling, "dtype")
    rows: int = unkeyed(
        64, "images in the UNet at once, or prompts to encode, at once", at_least=1, metavar="N"
    )
    quiet: bool = unkeyed(False, QUIET)

    def identity(self) -> dict[str, Any]:
        """What decides the maps, in the order of the files."""
        names = ("seed", "seeds", "t_index", "scheduler", "dtype")
        found = {name: getattr(self, name) for name in names} | self.changed(("tf32", "rng"))
        if self.official:
            found["official"] = in_any_order(self.official)
        return found

    def changed(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the flags that do not have their default."""
        values = {name: getattr(self, name) for name in names}
        defaults = {option.name: option.default for option in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != defaults[name]}

    def repeats(self, quirk: str) -> bool:
        """Whether --official names it."""
        return quirk in self.official.split(",")


def file_flag(text: str) -> Any:
    """A path that must be typed."""
    return unkeyed(dataclasses.MISSING, text, metavar="FILE")


@frozen_settings
class OrdinarySettings(NoiseMaps):
    """The flags of localize_neurons.py statistics."""

    about = "activations of ordinary prompts, and how alike their seeds are"

    prompts: Path = file_flag(f"ordinary prompts: {FORMATS}, or {HUB_SET}")
    caption_column: str = caption_column()
    out: Path = file_flag("file to write: statistics, .safetensors")
    threshold_prompts: int = flag(
        1000, "prompts for the threshold, the first ones; 0: none", at_least=0, metavar="N"
    )
    official: str = quirks(
        raw_v=RAW_V,
        swapped_guidance="the threshold is of maps with guidance 7 whose halves are taken for each "
        "other, e(c) + 7 (e(empty) - e(c)); the search is without guidance",
    )


# Fields of SearchOptions that are flags, all but two.
SEARCH_FLAGS = tuple(
    option.name
    for option in dataclasses.fields(SearchOptions)
    if option.name not in ("at_once", "doubles")
)


@frozen_settings
class SearchSettings(NoiseMaps):
    """The flags of localize_neurons.py localize."""

    about = "neurons of memorized prompts"

    prompts: Path = file_flag(f"memorized prompts: {FORMATS}, or {HUB_SET}")
    caption_column: str = caption_column()
    statistics: Path = file_flag("file of the subcommand statistics")
    out: Path = file_flag("file to write: neurons, .json")
    threshold: float | None = flag(
        None,
        "similarity above which seeds look memorized (default: that of the statistics)",
        at_least=0.0,
        metavar="S",
    )
    ssim_threshold_initial_selection: float | None = flag(
        None,
        "similarity that ends the initial selection (default: --threshold)",
        at_least=0.0,
        metavar="S",
    )
    ssim_threshold_refinement: float | None = flag(
        None,
        "similarity that the refinement stays below (default: --threshold)",
        at_least=0.0,
        metavar="S",
    )
    rel_threshold_refinement: float | None = flag(
        None,
        "relative change of the similarity that it stays below instead",
        at_least=0.0,
        excludes=("ssim_threshold_refinement",),
        metavar="S",
    )
    initial_theta: float = flag(
        SearchOptions.initial_theta,
        "z-score from which a neuron is selected, at first",
        at_least=0.0,
        metavar="Z",
    )
    theta_reduction_per_step: float = flag(
        SearchOptions.theta_reduction_per_step, "what each try takes off it", above=0.0, metavar="Z"
    )
    min_theta: float = flag(
        SearchOptions.min_theta,
        "a z-score this low is not lowered; the search ends at exactly 1, or at k = 1280",
        at_least=0.0,
        metavar="Z",
    )
    no_theta: bool = flag(
        False,
        "select none by z-score",
        excludes=("initial_theta", "theta_reduction_per_step", "min_theta"),
    )
    initial_k: int = flag(
        SearchOptions.initial_k,
        "the k largest activations of each layer are selected too; k at first, each try adds one",
        at_least=0,
        metavar="K",
    )
    no_top_k: bool = flag(False, "select none by size", excludes=("initial_k",))
    scaling_factor: float = flag(
        0.0, "what the values of blocked neurons are multiplied by", at_least=0.0, metavar="S"
    )
    blocks: str = flag(
        "early",
        "where neurons are looked for: early: down blocks and the middle, as published; all",
        choices=BLOCKS,
    )
    start: int = unkeyed(0, "first prompt, by row", at_least=0, metavar="ROW")
    end: int | None = unkeyed(None, "row after the last prompt", at_least=1, metavar="ROW")
    overwrite: bool = unkeyed(False, "start over instead of going on")
    official: str = quirks(
        doubles="a neuron that is selected twice is listed twice; unblocking takes one copy away, "
        "so the first try of such a neuron changes nothing",
        raw_v=RAW_V,
    )

    @property
    def options(self) -> SearchOptions:
        """What `localize` is told of all this. Raises ValueError when nothing would be selected."""
        if self.no_theta and self.no_top_k:
            raise ValueError("--no_theta and --no_top_k together select nothing: leave out one")
        values = {name: getattr(self, name) for name in SEARCH_FLAGS}
        at_once = max(1, self.rows // self.seeds)
        return SearchOptions(**values, at_once=at_once, doubles=self.repeats("doubles"))
