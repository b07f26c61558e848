"""The command line of localize_neurons.py."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from memorization_suite.mitigation.spikes import BLOCKS
from memorization_suite.pipelines.models import EMBEDDED, fingerprint, resolve_model
from memorization_suite.prompts.files import read_prompts, sha256_of
from memorization_suite.runs.environment import choose_device


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def whole(least: int):
    """Parser of a whole number of at least this."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return int(text)

    return parse


def number(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number of at least 0")
    return value


def build_parser() -> Parser:
    """Flags of both subcommands; those of both come first."""
    parser = Parser(
        prog="localize_neurons.py",
        allow_abbrev=False,
        description="Finds the neurons that memorized prompts need (NeMo), for --method nemo.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{statistics,localize}")
    statistics = commands.add_parser(
        "statistics",
        help="activations of ordinary prompts, and how alike their seeds are",
        allow_abbrev=False,
    )
    localize = commands.add_parser(
        "localize", help="neurons of memorized prompts", allow_abbrev=False
    )
    for command, kind, out in (
        (statistics, "ordinary", "statistics, .safetensors"),
        (localize, "memorized", "neurons, .json"),
    ):
        command.add_argument(
            "--model_id",
            default="CompVis/stable-diffusion-v1-4",
            help=f"hub id, local diffusers folder, or an embedded model: {', '.join(EMBEDDED)} "
            "(default %(default)s)",
        )
        command.add_argument(
            "--prompts",
            type=Path,
            required=True,
            help=f"file of {kind} prompts: .csv, .txt or .jsonl",
        )
        command.add_argument("--out", type=Path, required=True, help=f"file to write: {out}")
        command.add_argument(
            "--seeds",
            type=whole(2),
            default=10,
            metavar="N",
            help="noises, the same for every prompt (default %(default)s)",
        )
        command.add_argument(
            "--seed", type=whole(0), default=1, help="seed of the noises (default %(default)s)"
        )
        command.add_argument(
            "--t_index",
            type=int,
            choices=(0, 1),
            default=0,
            help="timestep at which the noise is predicted: 0: the first; 1: the second, as the "
            "official code does by an oversight",
        )
        command.add_argument(
            "--scheduler",
            choices=("ddim", "euler", "keep"),
            default="ddim",
            help="its timesteps (default %(default)s)",
        )
        command.add_argument(
            "--dtype",
            choices=("fp32", "bf16", "fp16"),
            default="",
            help="default: bf16 on CUDA, fp32 on the CPU",
        )
        command.add_argument("--device", default="", help="default: cuda if there is one")
        command.add_argument(
            "--rows",
            type=whole(1),
            default=64,
            help="UNet rows, or prompts to encode, at once (default %(default)s)",
        )
    statistics.add_argument(
        "--threshold_prompts",
        type=whole(0),
        default=1000,
        metavar="N",
        help="prompts for the threshold, the first ones; 0: none (default %(default)s)",
    )
    localize.add_argument(
        "--statistics", type=Path, required=True, help="file of the subcommand statistics"
    )
    localize.add_argument(
        "--threshold",
        type=number,
        help="similarity above which seeds look memorized (default: that of the statistics)",
    )
    localize.add_argument(
        "--scaling_factor",
        type=number,
        default=0.0,
        help="what the values of blocked neurons are multiplied by (default %(default)s)",
    )
    localize.add_argument(
        "--blocks",
        choices=BLOCKS,
        default="early",
        help="where neurons are looked for: early: down blocks and the middle, as published; all "
        "(default %(default)s)",
    )
    localize.add_argument("--start", type=whole(0), default=0, help="first prompt, by row")
    localize.add_argument("--end", type=whole(1), help="row after the last prompt")
    localize.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    localize.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def prepare(args: argparse.Namespace) -> dict:
    """Settings that decide the noise maps. Checks what both subcommands share, before a model is
    loaded. Raises ValueError.
    """
    resolve_model(args.model_id)
    args.device = choose_device(args.device)
    args.dtype = args.dtype or ("bf16" if args.device.startswith("cuda") else "fp32")
    return {
        "seed": args.seed,
        "seeds": args.seeds,
        "t_index": args.t_index,
        "scheduler": args.scheduler,
        "dtype": args.dtype,
    }


def make_statistics(args: argparse.Namespace) -> str:
    """Writes the statistics of ordinary prompts; returns what to print. Raises ValueError."""
    settings = prepare(args)
    captions = [prompt.caption for prompt in read_prompts(args.prompts)]
    if len(captions) < 2:
        raise ValueError(
            f"statistics need at least two ordinary prompts; {args.prompts} has {len(captions)}"
        )
    if not args.out.parent.is_dir() or args.out.is_dir():
        raise ValueError(f"--out {args.out} is no file name in a folder that exists")
    from memorization_suite.localization.run import Setup, ordinary_statistics
    from memorization_suite.localization.store import write_statistics
    from memorization_suite.pipelines.loading import load_pipeline

    model = fingerprint(args.model_id)
    pipe = load_pipeline(
        args.model_id, dtype=args.dtype, device=args.device, scheduler=args.scheduler
    )
    statistics, pairs = ordinary_statistics(
        pipe,
        captions,
        captions[: args.threshold_prompts],
        Setup(args.seed, args.seeds, args.t_index, rows=args.rows),
    )
    write_statistics(
        args.out,
        statistics,
        {
            "model": model,
            "prompts_sha256": sha256_of(args.prompts),
            "prompts": len(captions),
            "pairs": pairs,
            **settings,
        },
    )
    return (
        f"{args.out}: {len(captions)} prompts, similarity threshold {statistics.threshold:.3f} "
        f"from {pairs} pairs of seeds"
    )


def find_neurons(args: argparse.Namespace) -> str:
    """Searches the neurons of memorized prompts and writes them; returns what to print. Raises
    ValueError.
    """
    settings = prepare(args)
    prompts = read_prompts(args.prompts)
    end = len(prompts) if args.end is None else args.end
    if not args.start < end <= len(prompts):
        raise ValueError(
            f"--start {args.start} --end {end} is no range of the {len(prompts)} rows of "
            f"{args.prompts}"
        )
    from memorization_suite.localization.run import Setup, search
    from memorization_suite.localization.store import NeuronFile, read_statistics

    statistics, made = read_statistics(args.statistics)
    model = fingerprint(args.model_id)
    check_statistics(args, made, model, settings)
    statistics.threshold = statistics.threshold if args.threshold is None else args.threshold
    if math.isnan(statistics.threshold):
        raise ValueError(
            f"{args.statistics} has no similarity threshold: give one with --threshold"
        )
    file = NeuronFile(
        args.out,
        model,
        {
            **settings,
            "threshold": statistics.threshold,
            "scaling_factor": args.scaling_factor,
            "blocks": args.blocks,
            "statistics_sha256": sha256_of(args.statistics),
        },
    )
    file.open(overwrite=args.overwrite)
    captions = list(dict.fromkeys(prompt.caption for prompt in prompts[args.start : end]))
    from memorization_suite.pipelines.loading import load_pipeline

    pipe = load_pipeline(
        args.model_id, dtype=args.dtype, device=args.device, scheduler=args.scheduler
    )
    search(
        pipe,
        [caption for caption in captions if caption not in file.found],
        statistics,
        file,
        Setup(args.seed, args.seeds, args.t_index, args.scaling_factor, args.rows, args.blocks),
        quiet=args.quiet,
    )
    file.finish()
    entries = [file.found[caption] for caption in captions]
    counts = sorted(sum(map(len, entry["neurons"].values())) for entry in entries if entry["seeds"])
    middle = f", {counts[len(counts) // 2]} neurons in the middle one" if counts else ""
    return f"{args.out}: {len(captions)} prompts, {len(counts)} look memorized{middle}"


def check_statistics(args: argparse.Namespace, made: dict, model: str, settings: dict) -> None:
    """Raises ValueError when the statistics are of another model, or their threshold of other
    maps.
    """
    if made.get("model") != model:
        raise ValueError(
            f"{args.statistics} is of another model: {made.get('model')} there, {model} now"
        )
    differing = [name for name in ("t_index", "scheduler") if made.get(name) != settings[name]]
    if differing and args.threshold is None:
        raise ValueError(
            f"{args.statistics} has the threshold of --{differing[0]} {made.get(differing[0])}: "
            "use that, or give --threshold"
        )


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running.
    """
    args = build_parser().parse_args(argv)
    try:
        print(make_statistics(args) if args.command == "statistics" else find_neurons(args))
    except ValueError as error:
        print(f"localize_neurons.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"localize_neurons.py: {error}. What is finished stays; the same command goes on.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "localize_neurons.py: interrupted; the same command goes on where it stopped.",
            file=sys.stderr,
        )
        return 1
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        print(
            f"localize_neurons.py: {str(error).splitlines()[0]} Use a smaller --rows.",
            file=sys.stderr,
        )
        return 1
    return 0
