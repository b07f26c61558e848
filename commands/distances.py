"""FID, KID and CLIP-FID of a folder of images against real ones.

They tell the side effects of a mitigation on prompts that are not memorized.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from memorization_suite.metrics.base import Scoring
from memorization_suite.metrics.checkpoints import Checkpoint, check_required
from memorization_suite.metrics.fid import ClipImages, Inception, OfflineFeatures, frechet, kernel
from memorization_suite.metrics.listing import ending_of, images_of
from memorization_suite.metrics.listing import formats as known_formats
from memorization_suite.metrics.pictures import Embedder, Picture
from memorization_suite.metrics.runs import check_complete
from memorization_suite.runs import RunFolder
from memorization_suite.runs.cli import Parser, add_flags, command
from memorization_suite.runs.environment import choose_device, set_tf32
from memorization_suite.runs.foreign import holds_images, method_of, title_of
from memorization_suite.runs.hashes import content_hashes, hash_of_all
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.marks import FLAT, NOT_FINITE, Marks, is_flat, said
from memorization_suite.runs.progress import Progress, next_step
from memorization_suite.runs.settings import Settings, again, flag, frozen_settings
from memorization_suite.runs.table import Result, add_results, read_results
from memorization_suite.runs.text import counted, first_of
from memorization_suite.runs.whole import names_in

SCRIPT = "compute_fid.py"
DESCRIPTION = "FID, KID and CLIP-FID of a folder of images against real ones."
LEAST = 2  # images that a covariance needs


@frozen_settings
class Distances(Settings):
    """The flags of compute_fid.py."""

    gen_folder: Path = flag(MISSING, "run folder, or any folder of images")
    real_folder: Path = flag(MISSING, "real images; of one file format with the generated ones")
    inception_checkpoint: Path | None = flag(
        None, "inception-2015-12-05.pt (default: where download/ puts it)", metavar="FILE"
    )
    clip_checkpoint: Path | None = flag(
        None, "OpenAI's ViT-B-32 (default: where download/ puts it)", metavar="FILE"
    )
    num_samples: int | None = again(
        Scoring,
        "num_samples",
        text="of a run: the first so many images of each prompt (default: all)",
    )
    incomplete: bool = again(Scoring, "incomplete")
    quiet: bool = again(Scoring, "quiet")
    device: str = again(Scoring, "device")
    batch_size: int = again(Scoring, "batch_size")
    require: tuple[str, ...] = again(Scoring, "require")


@dataclass(frozen=True)
class Network:
    """Features between whose sets the distances are."""

    # Loads it, with device and batch_size.
    load: Callable[..., Embedder]
    # Quantities: the Fréchet and the kernel distance.
    frechet: str
    kernel: str


@dataclass(frozen=True)
class Sets:
    """The two sets of images."""

    # Of the generated ones.
    folder: Path
    generated: list[Path]
    real: list[Path]
    # Name of the real ones' folder, and what tells it from others of that name.
    real_name: str
    real_hash: str
    # What is said of generated images that are not finite, and left out.
    notes: list[str]


def distances(say: Callable[[str], None], **typed: Any) -> list[Result]:
    """The distances, stored in results.csv when the folder is a run's.

    say: takes notes, one by one. typed: flags of compute_fid.py by name. Raises ValueError for what
    the user can mend; a wrong argument is found before anything is said.
    """
    settings = Distances(**typed)
    sets = both_sets(settings)
    read_results(sets.folder)  # a broken table is found before the work
    inception = Checkpoint.of(settings, "inception_checkpoint", "inception_v3")
    clip = Checkpoint.of(settings, "clip_checkpoint", "clip_vit_b_32_openai")
    missing = {"fid": inception.missing, "clip_fid": clip.missing, "features": ""}
    check_required(SCRIPT, missing, settings.require)
    set_tf32(False)
    options = {"device": choose_device(settings.device), "batch_size": settings.batch_size}
    loaded = []
    for metric, network in networks(inception, clip).items():
        if not missing[metric]:
            loaded.append((network, network.load(**options)))
    for metric, why in missing.items():
        if why:
            say(f"{metric} is not computed: {why}")
    if formats(sets.generated) != formats(sets.real):
        say(
            "the two folders have different file formats: their compression alone changes these "
            "figures"
        )
    for note in sets.notes:
        say(note)
    results, flat = compute(sets, loaded, quiet=settings.quiet)
    if flat:
        images = counted(len(sets.generated), "generated image")
        are = "is" if len(flat) == 1 else "are"
        names = first_of([path.name for path in flat])
        say(f"{len(flat)} of {images} {are} {FLAT}, and counted: {names}")
    for row in results:
        if not math.isfinite(row.value):
            say(f"{row.quantity} ({row.variant}) is {NOT_FINITE} and left out")
    results = [row for row in results if math.isfinite(row.value)]
    if is_of_run(sets.folder):
        add_results(sets.folder, results)
    return results


def both_sets(settings: Distances) -> Sets:
    """The images to compare. Raises ValueError for folders that cannot be used."""
    folder = settings.gen_folder.resolve()
    generated, notes = generated_images(folder, settings)
    real = listed("--real_folder", settings.real_folder)
    check("--gen_folder", folder, generated, notes)
    check("--real_folder", settings.real_folder, real)
    hashes = {path.name: sha256 for path, sha256 in content_hashes(real).items()}
    real_hash = hash_of_all(hashes)[:8]
    return Sets(folder, generated, real, settings.real_folder.resolve().name, real_hash, notes)


def compute(
    sets: Sets, loaded: list[tuple[Network, Embedder]], *, quiet: bool = False
) -> tuple[list[Result], list[Path]]:
    """(both distances in the features of each network, the generated images of one color)."""
    embedders = [embedder for _, embedder in loaded]
    counts = (len(sets.generated), len(sets.real))
    names = ", ".join(embedder.name for embedder in embedders)
    what = f"features of {counts[0]} generated and {counts[1]} real images: {names}"
    with Progress(what, sum(counts), unit="image", quiet=quiet) as progress:
        generated, flat = features_of(embedders, sets.generated, progress)
        real, _ = features_of(embedders, sets.real, progress)
    results = []
    for (network, embedder), ours, theirs in zip(loaded, generated, real):
        sizes = f"n{len(ours)}_n{len(theirs)}"
        variant = f"{embedder.name}_to_{sets.real_name}_{sizes}@{sets.real_hash}"
        values = {network.frechet: frechet(ours, theirs), network.kernel: kernel(ours, theirs)}
        for quantity, value in values.items():
            results.append(
                Result(
                    run=sets.folder.name,
                    method=method_of(sets.folder),
                    prompt_index=None,
                    sample_index=None,
                    quantity=quantity,
                    variant=variant,
                    value=value,
                )
            )
    return results, flat


def generated_images(folder: Path, settings: Distances) -> tuple[list[Path], list[str]]:
    """Images of a run that are finite, and what is said of the others; or those of any folder.

    Raises ValueError for a run that cannot be scored.
    """
    store = RunFolder(folder)
    is_foreign = store.manifest() is None
    if is_foreign and not (is_of_run(folder) and settings.num_samples):
        if settings.num_samples or settings.incomplete:
            raise ValueError(
                f"--num_samples and --incomplete are for run folders; {folder} has no manifest.json"
            )
        return listed("--gen_folder", folder), []
    images = store.images()
    rows = store.costs()
    if not (settings.incomplete or is_foreign):
        check_complete(store, images, rows, num_samples=settings.num_samples)
    if settings.num_samples is not None:
        images = {key: path for key, path in images.items() if key.sample < settings.num_samples}
    broken = Marks.of(rows, images).not_finite
    notes = said(broken, len(images), title_of(folder), f"{NOT_FINITE} and left out")
    return [path for key, path in images.items() if key not in broken], notes


def is_of_run(folder: Path) -> bool:
    """Whether scores belong beside the images: of a run, and of images that are named as its."""
    return (folder / "manifest.json").exists() or holds_images(names_in(folder))


def listed(flag: str, folder: Path) -> list[Path]:
    """Pictures of a folder. Raises ValueError for one that cannot be listed."""
    try:
        return images_of(folder)
    except OSError as error:
        raise ValueError(f"{flag} {folder} cannot be listed ({error.strerror})") from error


def formats(paths: list[Path]) -> set[str]:
    """Those of the files, by their endings."""
    return {known_formats().get(ending_of(path), "") for path in paths}


def check(flag: str, folder: Path, images: list[Path], notes: Sequence[str] = ()) -> None:
    """Raises ValueError for what is no folder, and for too few images."""
    if not folder.is_dir():
        raise ValueError(f"{flag} {folder} is no folder")
    if len(images) < LEAST:
        raise ValueError(
            f"{flag} {folder} has {counted(len(images), 'image')}; {LEAST} or more are needed, "
            f"thousands for a stable figure{''.join(f' ({note})' for note in notes)}"
        )


def networks(inception: Checkpoint, clip: Checkpoint) -> dict[str, Network]:
    """Metric -> its network."""

    def load_inception(**options: Any) -> Inception:
        name = inception.variant("inception_v3_clean")
        return Inception(inception.path, name=name, **options)

    def load_clip(**options: Any) -> ClipImages:
        return ClipImages(clip.path, name=clip.variant("clip_vit_b_32_openai"), **options)

    return {
        "fid": Network(load_inception, "fid", "kid"),
        "clip_fid": Network(load_clip, "clip_fid", "clip_kid"),
        "features": Network(OfflineFeatures, "frechet_features", "kernel_features"),
    }


def features_of(
    embedders: list[Embedder], paths: list[Path], progress: Progress
) -> tuple[list[torch.Tensor], list[Path]]:
    """((n, d) for each network, the pictures of one color). A picture is decoded once."""
    chunks: list[list[torch.Tensor]] = [[] for _ in embedders]
    flat = []
    size = embedders[0].batch_size
    for first in range(0, len(paths), size):
        batch = paths[first : first + size]
        images = [Picture(path).image for path in batch]
        flat += [path for path, image in zip(batch, images) if is_flat(image)]
        for embedder, rows in zip(embedders, chunks):
            rows.append(embedder.features(images))
        progress.update(len(images))
    return [torch.cat(rows) for rows in chunks], flat


def build_parser() -> Parser:
    """All flags."""
    parser = Parser(SCRIPT, DESCRIPTION)
    add_flags(parser, Distances)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    typed = build_parser().typed(argv)

    def work() -> None:
        for row in distances(lambda line: print(line, file=sys.stderr), **typed):
            print(f"{row.quantity} ({row.variant}): {row.value:.6g}")
        run = typed["gen_folder"]
        if is_of_run(run):
            next_step(["python", "metrics/summarize.py", str(run)], typed.get("quiet", False))

    return command(SCRIPT, work)
