"""The command line of generate_images.py."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from memorization_suite.generation.plan import CHOICES, Plan, Settings, plan_run
from memorization_suite.generation.run import Run
from memorization_suite.mitigation.cli import add_method_arguments, list_methods
from memorization_suite.pipelines.models import EMBEDDED
from memorization_suite.runs import RunFolder
from memorization_suite.runs.files import write_json

HELP = {
    "model_id": f"hub id, local diffusers folder, or an embedded model: {', '.join(EMBEDDED)}",
    "unet_id": "folder or hub id of another UNet",
    "prompts": "prompt file: .csv, .txt or .jsonl",
    "start": "first prompt, by row",
    "end": "row after the last prompt",
    "image_length": "height and width in pixels",
    "batch_size": "prompts per batch",
    "n_samples_per_prompt": "images per prompt",
    "num_inference_steps": "sampling steps",
    "guidance_scale": "classifier-free guidance",
    "seed": "seed of the run",
    "scheduler": "keep: the model's own",
    "dtype": "default: bf16 on CUDA, fp32 on the CPU",
    "device": "default: cuda if there is one",
    "rng": "per_image: a seed for each image; official: the official script's one stream, in file "
    "order",
    "output_path": "folder of all runs",
}


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def build_parser() -> argparse.ArgumentParser:
    """All flags; what is not typed is absent from the namespace, so that a preset can fill it."""
    parser = Parser(
        prog="generate_images.py",
        description="Images for the prompts of a file, with one mitigation or none.",
        allow_abbrev=False,
    )
    kinds = {"int": int, "float": float, "str": str}
    for name, field in Settings.__dataclass_fields__.items():
        options = [f"--{name}"] + (["-b"] if name == "batch_size" else [])
        shown = f" (default {field.default})" if field.default not in ("", None) else ""
        kind = kinds[str(field.type).split(" ")[0]]
        parser.add_argument(
            *options,
            type=kind,
            choices=CHOICES.get(name),
            help=HELP[name] + shown,
            default=argparse.SUPPRESS,
        )
    parser.add_argument(
        "--preset",
        default="auto",
        metavar="{auto,none,FILE}",
        help="values for flags that were not typed (default auto: the model's own); none: the "
        "official defaults",
    )
    parser.add_argument(
        "--screen",
        metavar="DETECTOR:THRESHOLD",
        help="mitigate only images whose score is above the threshold",
    )
    parser.add_argument(
        "--save_latents",
        action="store_true",
        help="also write latents/img_PPPP_SS.safetensors: initial, adjusted, final",
    )
    parser.add_argument(
        "--trace",
        action="store_true",
        help="also write trace.csv: magnitude and guidance of each step; runs both halves",
    )
    parser.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--list_methods", action="store_true", help="print every method and leave")
    add_method_arguments(parser)
    return parser


def plan_of(argv: list[str]) -> Plan:
    """What a command line would do. Raises ValueError."""
    return plan_run(build_parser().parse_args(argv))


def prepare(args: argparse.Namespace, argv: list[str], load: Callable | None = None) -> Run | None:
    """Plan, folder, model, in the order in which they can go wrong; the folder is changed last.
    Raises ValueError for what the user can mend.

    load: in the place of `load_pipeline`. None when a finished folder has all that is asked for:
    then no model is loaded.
    """
    plan = plan_run(args)
    from accelerate import PartialState

    settings, folder, identity = plan.settings, RunFolder(plan.folder), plan.identity()
    state = PartialState(
        cpu=settings.device == "cpu", timeout=timedelta(days=7)
    )  # per-sample work is uneven
    if state.is_main_process:
        folder.check(identity, overwrite=args.overwrite)
        describe(plan)
    config = {
        "command": shlex.join(["python", "generate_images.py", *argv]),
        "preset": plan.preset,
        **asdict(settings),
        "prompts": str(Path(settings.prompts).resolve()),
        "method": plan.mitigation.name,
        **asdict(plan.mitigation),
        "screen": args.screen,
        "save_latents": plan.save_latents,
        "trace": plan.trace,
    }
    if not args.overwrite and plan.is_finished(folder):
        if state.is_main_process:
            write_json(folder.path / "config.json", config)  # files may have moved
            print(f"{len(plan.wanted(plan.prompts))} images in {folder.path} (nothing to make)")
        if state.num_processes > 1:
            state.destroy_process_group()
        return None
    from memorization_suite.pipelines import loading

    device = str(state.device) if state.num_processes > 1 else settings.device
    load = load or loading.load_pipeline
    pipe = load(
        settings.model_id,
        unet_id=settings.unet_id,
        dtype=settings.dtype,
        device=device,
        scheduler=settings.scheduler,
    )
    if state.is_main_process:
        folder.start(identity, overwrite=args.overwrite, config=config)
    state.wait_for_everyone()
    return Run(plan, pipe, folder, state)


def generate(run: Run, *, quiet: bool) -> None:
    """Makes what is missing and prints the summary."""
    from tqdm import tqdm

    start, main_process = time.perf_counter(), run.state.is_main_process
    with tqdm(total=len(run.mine()), unit="image", disable=quiet or not main_process) as bar:
        run.go(bar)
    run.state.wait_for_everyone()
    if main_process:
        print(run.finish(time.perf_counter() - start))
    if run.state.num_processes > 1:
        run.state.destroy_process_group()


def describe(plan: Plan) -> None:
    """Says on stderr what is used, so that a preset's values are seen."""
    used = {**asdict(plan.settings), **plan.mitigation.settings()}
    shown = " ".join(f"{name}={value}" for name, value in used.items() if value not in (None, ""))
    print(f"method {plan.mitigation.name}, preset {plan.preset}: {shown}", file=sys.stderr)


def main(argv: list[str] | None = None, load: Callable | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running. load: see `prepare`.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    if args.list_methods:
        print(list_methods())
        return 0
    try:
        try:
            run = prepare(args, argv, load)
        except ValueError as error:
            print(f"generate_images.py: {error}", file=sys.stderr)
            return 2
        if run:
            generate(run, quiet=args.quiet)
    except OSError as error:
        print(
            f"generate_images.py: {error}. What is finished stays; the same command goes on.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "generate_images.py: interrupted; the same command goes on where it stopped.",
            file=sys.stderr,
        )
        return 1
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        print(
            f"generate_images.py: {str(error).splitlines()[0]} Use a smaller --batch_size or "
            "--n_samples_per_prompt.",
            file=sys.stderr,
        )
        return 1
    return 0
