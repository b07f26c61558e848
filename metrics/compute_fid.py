"""FID, KID and CLIP-FID of a folder of images against real ones; for the side effects of a
mitigation on prompts that are not memorized.

python metrics/compute_fid.py --gen_folder DIR --real_folder DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from memorization_suite.metrics.command import (
    Parser,
    add_common_flags,
    available,
    checkpoint,
    guarded,
    positive,
    variant_of,
)
from memorization_suite.metrics.references import SUFFIXES
from memorization_suite.metrics.runs import check_complete, keys_of
from memorization_suite.runs import RunFolder
from memorization_suite.runs.environment import choose_device
from memorization_suite.runs.table import Result, add_results, read_results

if TYPE_CHECKING:
    import torch

    from memorization_suite.metrics.pictures import Embedder

PROG = "compute_fid.py"
LEAST = 2  # images that a covariance needs


def build_parser() -> Parser:
    """All flags."""
    parser = Parser(prog=PROG, description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--gen_folder", type=Path, required=True, help="run folder, or any folder of images"
    )
    parser.add_argument(
        "--real_folder",
        type=Path,
        required=True,
        help="real images; of one file format with the generated ones",
    )
    parser.add_argument(
        "--inception_checkpoint",
        type=Path,
        help="inception-2015-12-05.pt (default: where download/ puts it)",
    )
    parser.add_argument(
        "--clip_checkpoint", type=Path, help="OpenAI's ViT-B-32 (default: where download/ puts it)"
    )
    parser.add_argument(
        "--num_samples",
        type=positive,
        help="of a run: the first so many images of each prompt (default: all)",
    )
    parser.add_argument(
        "--incomplete", action="store_true", help="score the images of an unfinished run"
    )
    add_common_flags(parser)
    return parser


def files(args: argparse.Namespace) -> dict[str, dict[Path, str]]:
    """What each metric needs; fills in the default places."""
    args.inception_checkpoint, inception = checkpoint(
        args.inception_checkpoint, "--inception_checkpoint", "inception_v3"
    )
    args.clip_checkpoint, clip = checkpoint(
        args.clip_checkpoint, "--clip_checkpoint", "clip_vit_b_32_openai"
    )
    return {"fid": inception, "clip_fid": clip, "features": {}}


def generated_images(folder: Path, num_samples: int | None, *, incomplete: bool) -> list[Path]:
    """Images of a run, or of any other folder. Raises ValueError for a run that cannot be
    scored.
    """
    manifest = RunFolder(folder).manifest()
    if manifest is None:
        if num_samples or incomplete:
            raise ValueError(
                f"--num_samples and --incomplete are for run folders; {folder} has no manifest.json"
            )
        return images_of(folder)
    keys = keys_of(folder)
    if not incomplete:
        check_complete(folder, keys, manifest, num_samples=num_samples)
    return [path for key, path in keys.items() if num_samples is None or key.sample < num_samples]


def images_of(folder: Path) -> list[Path]:
    """Image files of a folder, by name."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def check(flag: str, folder: Path, images: list[Path]) -> None:
    """Raises ValueError for what is no folder, and for too few images."""
    if not folder.is_dir():
        raise ValueError(f"{flag} {folder} is no folder")
    if len(images) < LEAST:
        raise ValueError(
            f"{flag} {folder} has {len(images)} images; {LEAST} or more are needed, thousands for "
            "a stable figure"
        )


def embedders(args: argparse.Namespace, metrics: set[str]) -> list[tuple[Embedder, str, str]]:
    """(network, quantity of the Fréchet distance, quantity of the kernel distance) of the metrics
    that can be computed.
    """
    from memorization_suite.metrics.fid import ClipImages, Inception, OfflineFeatures

    options = {"device": args.device, "batch_size": args.batch_size}
    choices: dict[str, tuple[Callable, str, str]] = {
        "fid": (
            lambda: Inception(
                args.inception_checkpoint,
                name=variant_of("inception_v3_clean", args.inception_checkpoint, "inception_v3"),
                **options,
            ),
            "fid",
            "kid",
        ),
        "clip_fid": (
            lambda: ClipImages(
                args.clip_checkpoint,
                name=variant_of(
                    "clip_vit_b_32_openai", args.clip_checkpoint, "clip_vit_b_32_openai"
                ),
                **options,
            ),
            "clip_fid",
            "clip_kid",
        ),
        "features": (lambda: OfflineFeatures(**options), "frechet_features", "kernel_features"),
    }
    return [
        (build(), frechet, kernel)
        for metric, (build, frechet, kernel) in choices.items()
        if metric in metrics
    ]


def features_of(networks: list[Embedder], paths: list[Path], batch_size: int) -> list[torch.Tensor]:
    """(n, d) for each network. A picture is decoded once."""
    import torch

    from memorization_suite.metrics.pictures import Picture

    found: list[list[torch.Tensor]] = [[] for _ in networks]
    for first in range(0, len(paths), batch_size):
        images = [Picture(path).image for path in paths[first : first + batch_size]]
        for network, chunks in zip(networks, found):
            chunks.append(network.features(images))
    return [torch.cat(chunks) for chunks in found]


def compute(args: argparse.Namespace) -> None:
    """Computes, stores in a run folder, and prints. Raises ValueError for what the user can
    mend.
    """
    args.gen_folder, args.device = args.gen_folder.resolve(), choose_device(args.device)
    generated, real = (
        generated_images(args.gen_folder, args.num_samples, incomplete=args.incomplete),
        images_of(args.real_folder),
    )
    check("--gen_folder", args.gen_folder, generated)
    check("--real_folder", args.real_folder, real)
    read_results(args.gen_folder)  # a broken table is found before the work
    metrics, left_out = available(PROG, files(args), args.require)
    chosen, found = embedders(args, metrics), []
    for line in left_out:  # from here on nothing is wrong with the arguments
        print(line, file=sys.stderr)
    if {path.suffix.lower() for path in generated} != {path.suffix.lower() for path in real}:
        print(
            "the two folders have different file formats: their compression alone changes these "
            "figures",
            file=sys.stderr,
        )
    from memorization_suite.metrics.fid import frechet, kernel

    networks = [network for network, _, _ in chosen]
    features = zip(*(features_of(networks, paths, args.batch_size) for paths in (generated, real)))
    for (network, frechet_name, kernel_name), (first, second) in zip(chosen, features):
        variant = (
            f"{network.name}_to_{args.real_folder.resolve().name}_n{len(first)}_n{len(second)}"
        )
        for quantity, value in (
            (frechet_name, frechet(first, second)),
            (kernel_name, kernel(first, second)),
        ):
            found.append(
                Result(
                    args.gen_folder.name,
                    args.gen_folder.parent.name,
                    None,
                    None,
                    quantity,
                    variant,
                    value,
                )
            )
            print(f"{quantity} ({variant}): {value:.6g}")
    if (args.gen_folder / "manifest.json").exists():
        add_results(args.gen_folder, found)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    return guarded(
        PROG, lambda: compute(build_parser().parse_args(sys.argv[1:] if argv is None else argv))
    )


if __name__ == "__main__":
    sys.exit(main())
