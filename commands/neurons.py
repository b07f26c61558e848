"""NeMo's neurons: statistics of ordinary prompts, and the search for those of memorized ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorization_suite import tiny
from memorization_suite.commands.captions import say_cut
from memorization_suite.commands.generate_plan import OFFICIAL_PROMPTS
from memorization_suite.commands.neuron_controls import (
    ControlSettings,
    control,
    model_id_of,
)
from memorization_suite.commands.neuron_settings import (
    SEARCH_FLAGS,
    NoiseMaps,
    OrdinarySettings,
    SearchSettings,
)
from memorization_suite.commands.settings import (
    check_out,
    check_prompts,
    check_range,
    command_words,
    load_model,
    on_device,
)
from memorization_suite.commands.study import asked
from memorization_suite.mitigation.nemo.measures import (
    activations,
    mean_and_std,
    pair_similarities,
)
from memorization_suite.mitigation.nemo.ms_ssim import kernel_size
from memorization_suite.mitigation.nemo.search import (
    Maps,
    PromptSearch,
    Statistics,
    localize,
)
from memorization_suite.mitigation.nemo.store import NeuronFile, read_statistics, write_statistics
from memorization_suite.pipelines.fingerprints import fingerprint
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.prompts.sets import other_column, prompt_file
from memorization_suite.runs.cli import NOTHING_WRITTEN, RESUMES, Parser, add_flags, command
from memorization_suite.runs.hashes import content_hash
from memorization_suite.runs.identity import Content, same
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.library_warnings import hearing
from memorization_suite.runs.places import check_names
from memorization_suite.runs.progress import Progress, next_step
from memorization_suite.runs.settings import (
    check_excluded,
    plain_values,
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
