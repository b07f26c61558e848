"""NeMo's neurons: statistics of ordinary prompts, and the search for those of memorized ones."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from memorization_suite import tiny
from memorization_suite.commands.captions import say_cut
from memorization_suite.commands.generate_plan import OFFICIAL_PROMPTS
from memorization_suite.commands.neuron_controls import (
    ControlSettings,
    control,
    model_id_of,
)
from memorization_suite.commands.settings import (
    QUIET,
    Model,
    Sampling,
    check_out,
    check_prompts,
    check_range,
    command_words,
    load_model,
    on_device,
)
from memorization_suite.commands.study import asked
from memorization_suite.mitigation.base import quirks
from memorization_suite.mitigation.nemo.measures import (
    activations,
    mean_and_std,
    pair_similarities,
)
from memorization_suite.mitigation.nemo.ms_ssim import kernel_size
from memorization_suite.mitigation.nemo.search import (
    Maps,
    PromptSearch,
    SearchOptions,
    Statistics,
    localize,
)
from memorization_suite.mitigation.nemo.store import NeuronFile, read_statistics, write_statistics
from memorization_suite.mitigation.spikes import BLOCKS
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.flags import FORMATS, HUB_SET, caption_column
from memorization_suite.prompts.sets import other_column, prompt_file
from memorization_suite.runs.cli import NOTHING_WRITTEN, RESUMES, Parser, add_flags, command
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.identity import Content, same
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.places import check_names
from memorization_suite.runs.progress import Progress, next_step
from memorization_suite.runs.settings import (
    again,
    check_excluded,
    flag,
    frozen_settings,
    plain_values,
    unkeyed,
)
from memorization_suite.runs.text import counted, first_of
from memorization_suite.sampling import image_seed, initial_noise
from memorization_suite.sampling.noise import official_noise

if TYPE_CHECKING:
    from memorization_suite.sampling import Denoiser

SCRIPT = "mitigation/nemo/localize_neurons.py"
# The guidance that the official script of the pairs asks for. It takes the halves for each other:
# e(c) + 7 (e("") - e(c)) is a guidance of -6.
SWAPPED_GUIDANCE = 1.0 - 7.0
RAW_V = "on a v model the maps are of v less the noise, not of the predicted noise less it"

# --- settings ---


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
        chosen = ("tf32", "rng", "official")
        return {name: getattr(self, name) for name in names} | self.changed(chosen)

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


def prompts_of(settings: OrdinarySettings | SearchSettings) -> tuple[Path, list[Prompt]]:
    """(the prompt file, its prompts). Raises ValueError."""
    check_prompts(settings.prompts)
    column = settings.caption_column
    file = prompt_file(str(settings.prompts), settings.out.parent, column)
    return file, read_prompts(file, column)


# --- maps of a prompt ---


def where(settings: NoiseMaps) -> str:
    """The model, and on what it runs."""
    return f"{settings.model_id} on {settings.device}"


def make_maps(model: Denoiser, caption: str, settings: NoiseMaps, factor: float = 0.0) -> Maps:
    """Noise maps of one prompt. factor: what the values of blocked neurons are multiplied by.

    Raises ValueError for a model whose maps are too small.
    """
    shape = model.latent_shape(model.native_size, model.native_size)
    kernel_size(shape[-1])
    model.set_timesteps(settings.num_inference_steps)
    latents = noises(settings, shape).to(model.device) * model.initial_scale
    swapped = settings.repeats("swapped_guidance")
    return Maps(
        model,
        model.encode([caption]),
        x=model.scale_input(latents, model.timesteps[0]),
        t=model.timesteps[settings.t_index],
        factor=factor,
        rows=settings.rows,
        guidance=SWAPPED_GUIDANCE if swapped else 1.0,
        empty=model.encode([""]) if swapped else None,
        raw=settings.repeats("raw_v"),
    )


def noises(settings: NoiseMaps, shape: tuple[int, int, int]) -> torch.Tensor:
    """Those of every prompt, (seeds, *shape) float32 of unit variance, drawn on the CPU."""
    if settings.rng == "official":
        return next(official_noise(settings.seed, [settings.seeds], shape, torch.float32, "cpu"))
    seeds = [image_seed(settings.seed, 0, j) for j in range(settings.seeds)]
    return initial_noise(seeds, shape)


# --- statistics of ordinary prompts ---


@hearing
def ordinary(**typed: Any) -> str:
    """Writes the statistics of ordinary prompts, which the search needs. Returns what the file is
    of, in a line.

    typed: flags of localize_neurons.py statistics by name. Raises ValueError for what the user can
    mend, OSError.
    """
    settings, _ = asked(OrdinarySettings, typed, preset="none")
    if settings.official and not settings.threshold_prompts:
        raise ValueError(
            f"--official {settings.official} changes the threshold alone, and "
            "--threshold_prompts 0 asks for none: leave out one"
        )
    check_out(settings.out, prompts=settings.prompts)
    file, prompts = prompts_of(settings)
    column = other_column(file, settings.caption_column, prompts)
    captions = [prompt.caption for prompt in prompts]
    if len(captions) < 2:
        raise ValueError(
            f"statistics need at least two ordinary prompts; {settings.prompts} has {len(captions)}"
        )
    settings = on_device(settings)
    made_with = {
        "model": fingerprint(settings.model_id, settings.tokenizer),
        "prompts_sha256": content_hash(file),
        **({"caption_column": column} if column else {}),
        "prompts": len(captions),
    }
    model = load_model(settings, dtype=settings.dtype)
    say_cut(model, prompts)
    for_threshold = captions[: settings.threshold_prompts]
    statistics, pairs = ordinary_statistics(model, captions, for_threshold, settings)
    write_statistics(settings.out, statistics, {**made_with, "pairs": pairs, **settings.identity()})
    threshold = f"similarity threshold {statistics.threshold}"
    if pairs > 1 and math.isnan(statistics.threshold):
        threshold = "no similarity threshold, since noise predictions are not finite,"
    return f"{settings.out}: {len(captions)} prompts, {threshold} from {pairs} pairs of seeds"


def ordinary_statistics(
    model: Denoiser, captions: list[str], for_threshold: list[str], settings: NoiseMaps
) -> tuple[Statistics, int]:
    """Statistics of ordinary prompts, and from how many pairs of seeds the threshold is.

    threshold: mean + 1 std of the similarity of all pairs of seeds; nan without pairs.
    """
    starts = range(0, len(captions), settings.rows)
    parts = (captions[start : start + settings.rows] for start in starts)
    mean, std = mean_and_std(activations(model, model.encode(part).tokens) for part in parts)
    upper = torch.ones(settings.seeds, settings.seeds).triu(1).bool()
    values = [torch.empty(0)]
    total = len(for_threshold)
    what = f"similarity of {settings.seeds} seeds of {total} ordinary prompts: {where(settings)}"
    with Progress(what, total, unit="prompt", quiet=settings.quiet) as progress:
        for caption in for_threshold:
            maps = make_maps(model, caption, settings).of([[]])[0]
            values.append(pair_similarities(maps)[upper])
            progress.update(1)
    pairs = torch.cat(values)
    threshold = float(pairs.mean() + pairs.std()) if len(pairs) > 1 else math.nan
    return Statistics(mean, std, threshold), len(pairs)


# --- neurons of memorized prompts ---


@hearing
def search(**typed: Any) -> str:
    """Finds the neurons of memorized prompts, for --method nemo; a stopped search goes on. Returns
    how many prompts look memorized, and how many neurons they have, in a line.

    typed: flags of localize_neurons.py localize by name. Raises ValueError for what the user can
    mend, OSError.
    """
    settings, _ = asked(SearchSettings, typed, preset="none")
    options = settings.options
    check_excluded(SearchSettings, typed)
    check_out(settings.out, prompts=settings.prompts, statistics=settings.statistics)
    check_names(NeuronFile.work_of(settings.out), "--out")
    _, prompts = prompts_of(settings)
    end = check_range(settings.start, settings.end, len(prompts), settings.prompts)
    captions = list(dict.fromkeys(prompt.caption for prompt in prompts[settings.start : end]))
    model_name = fingerprint(settings.model_id, settings.tokenizer)
    statistics = statistics_for(settings, model_name)
    settings = on_device(settings)
    identity = {
        **settings.identity(),
        "threshold": statistics.threshold,
        "scaling_factor": settings.scaling_factor,
        "blocks": settings.blocks,
        "statistics_sha256": content_hash(settings.statistics),
        **settings.changed(name for name in SEARCH_FLAGS if name != "blocks"),
    }
    file = NeuronFile(settings.out, model_name, identity)
    file.open(overwrite=settings.overwrite)
    model = load_model(settings, dtype=settings.dtype)
    say_cut(model, prompts[settings.start : end])
    file.start(plain_values(settings))
    missing = [caption for caption in captions if caption not in file.searches]
    progress = Progress(
        f"neurons of {len(captions)} prompts, {settings.seeds} seeds each: {where(settings)}",
        len(captions),
        unit="prompt",
        there=len(captions) - len(missing),
        place=file.folder.path,
        quiet=settings.quiet,
    )
    broken = []
    with progress:
        for caption in missing:
            maps = make_maps(model, caption, settings, settings.scaling_factor)
            file.add(caption, localize(maps, statistics, options))
            if not maps.finite:
                broken.append(caption)
            progress.update(1)
    file.finish()
    if broken:
        print(unsearched(broken, len(missing)), file=sys.stderr)
    return summary(settings.out, [file.searches[caption] for caption in captions])


def unsearched(captions: list[str], total: int) -> str:
    """Which captions could not be searched, of so many."""
    named = first_of([repr(caption[:60]) for caption in captions])
    return (
        f"{len(captions)} of {counted(total, 'caption')} could not be searched, since their noise "
        f"predictions are not finite: {named}"
    )


def summary(path: Path, searches: list[PromptSearch]) -> str:
    """How many prompts look memorized, and how many neurons they have, in a line."""
    counts = sorted(search.count for search in searches if search.seeds)
    middle = f", {counts[len(counts) // 2]} neurons in the middle one" if counts else ""
    return f"{path}: {len(searches)} prompts, {len(counts)} look memorized{middle}"


def statistics_for(settings: SearchSettings, model: Content) -> Statistics:
    """The file's statistics, with the threshold that was typed if one was.

    Raises ValueError for those of another model, a threshold of other maps, and none at all.
    """
    path = settings.statistics
    statistics, made_with = read_statistics(path)
    if not same(made_with.get("model"), model):
        raise ValueError(
            f"{path} is of another model: {made_with.get('model')} there, {model.label} ({model}) "
            "now. Make those of this one: python mitigation/nemo/localize_neurons.py statistics"
        )
    if settings.threshold is not None:
        return replace(statistics, threshold=settings.threshold)
    for name in ("t_index", "scheduler"):
        if made_with.get(name) != getattr(settings, name):
            raise ValueError(
                f"{path} has the threshold of --{name} {made_with.get(name)}: "
                "use that, or give --threshold"
            )
    there = replace(settings, official=made_with.get("official", "")).repeats("raw_v")
    if there != settings.repeats("raw_v"):
        raise ValueError(
            f"{path} has the threshold {'with' if there else 'without'} --official raw_v: use "
            f"{'that' if there else 'none'}, or give --threshold"
        )
    if math.isnan(statistics.threshold):
        raise ValueError(f"{path} has no similarity threshold: give one with --threshold")
    return statistics


# --- the command line ---


def after_statistics(typed: Mapping[str, Any]) -> list[str]:
    """What one would type after `statistics`: the search. typed: as there."""
    names = ("model_id", "scheduler", "device", "seeds", "seed", "t_index", "rng", "dtype", "rows")
    shared = {name: typed[name] for name in names if name in typed}
    model_id = typed.get("model_id", "")
    prompts = tiny.prompts(model_id) if model_id in tiny.MODELS else OFFICIAL_PROMPTS
    files = {"prompts": prompts, "statistics": typed["out"], "out": "neurons.json"}
    return command_words(f"{SCRIPT} localize", {**shared, **files}, SearchSettings)


def after_search(typed: Mapping[str, Any]) -> list[str]:
    """What one would type after `localize`: images without the neurons.

    typed: as there.
    """
    names = ("model_id", "scheduler", "device", "dtype", "prompts", "caption_column")
    shared = {name: typed[name] for name in (*names, "start", "end") if name in typed}
    method = {"method": "nemo", "neurons": typed["out"]}
    return command_words("generate_images.py", {**shared, **method}, SearchSettings)


def after_control(typed: Mapping[str, Any]) -> list[str]:
    """What one would type after `control`: images without the neurons, of the model that has them.

    Nothing where it is not known what the model is called. typed: as there.
    """
    model_id = model_id_of(Path(typed["neurons"]))
    return after_search({"model_id": model_id, **typed}) if model_id else []


@dataclass(frozen=True)
class Job:
    """A subcommand."""

    settings: type[NoiseMaps] | type[ControlSettings]
    # Its result is printed.
    work: Callable[..., str]
    # What one would type next, from what was typed.
    following: Callable[[Mapping[str, Any]], list[str]]
    # What a fault leaves behind.
    after: tuple[str, str]


JOBS = {
    "statistics": Job(OrdinarySettings, ordinary, after_statistics, NOTHING_WRITTEN),
    "localize": Job(SearchSettings, search, after_search, RESUMES),
    "control": Job(ControlSettings, control, after_control, NOTHING_WRITTEN),
}


def build_parser() -> Parser:
    """One parser for each subcommand."""
    parser = Parser(
        SCRIPT, "Finds the neurons that memorized prompts need (NeMo), for --method nemo."
    )
    jobs = parser.add_subparsers(dest="job", required=True, metavar=f"{{{','.join(JOBS)}}}")
    for name, job in JOBS.items():
        add_flags(jobs.add_parser(name, help=job.settings.about), job.settings)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault."""
    typed = build_parser().typed(argv)
    job = JOBS[typed.pop("job")]

    def work() -> None:
        print(job.work(**typed))
        next_step(job.following(typed), typed.get("quiet", False))

    return command(SCRIPT, work, after=job.after, smaller="--rows")
