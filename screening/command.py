"""The command line of detect_memorization.py."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import asdict

from memorization_suite.detection import detectors
from memorization_suite.pipelines.models import EMBEDDED
from memorization_suite.sampling.flags import add_flags, listing
from memorization_suite.screening.plan import CHOICES, Plan, Settings, plan_detection

HELP = {
    "model_id": f"hub id, local diffusers folder, or an embedded model: {', '.join(EMBEDDED)}",
    "prompts": "prompts that are looked at: .csv, .txt, .jsonl, or hub:NAME:COLUMN[:SPLIT]",
    "nonmem_prompts": "ordinary prompts to compare with: a file or hub:NAME:COLUMN[:SPLIT]",
    "nonmem_count": "prompts drawn from a hub data set",
    "end": "row after the last prompt of each set",
    "image_length": "height and width in pixels",
    "n_samples_per_prompt": "images per prompt",
    "batch_size": "prompts per batch",
    "num_inference_steps": "steps of the sampler",
    "guidance_scale": "guidance of the trajectory",
    "seed": "seed of the run",
    "scheduler": "keep: the model's own",
    "dtype": "default: bf16 on CUDA, fp32 on the CPU",
    "device": "default: cuda if there is one",
    "output_path": "folder of all detectors' scores",
    "rng": "per_image: a seed for each image; official: the same draws for every prompt",
}


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def build_parser() -> argparse.ArgumentParser:
    """All flags; what is not typed is absent from the namespace, so that a preset can fill it."""
    parser = Parser(
        prog="detect_memorization.py",
        description="A memorization score for every image of a prompt set; larger means more "
        "memorized. "
        "Subcommands with flags of their own: evaluate, spectrum, tokens.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--detector",
        default="noise_norm",
        metavar="NAME",
        help=f"all, or some of {', '.join(detectors())}, joined by commas",
    )
    kinds = {"int": int, "float": float, "str": str}
    short = {"n_samples_per_prompt": ["-n"], "batch_size": ["-b"]}
    for name, field in Settings.__dataclass_fields__.items():
        shown = f" (default {field.default})" if field.default not in ("", None) else ""
        parser.add_argument(
            f"--{name}",
            *short.get(name, []),
            type=kinds[str(field.type).split(" ")[0]],
            choices=CHOICES.get(name),
            help=HELP[name] + shown,
            default=argparse.SUPPRESS,
        )
    parser.add_argument(
        "--preset",
        default="auto",
        metavar="{auto,none,FILE}",
        help="values for flags that were not typed (the model's own)",
    )
    parser.add_argument(
        "--save_masks",
        action="store_true",
        help="also write the masks of spatial detectors, as arrays and over the images",
    )
    parser.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--list_detectors", action="store_true", help="print every detector and leave"
    )
    add_flags(parser.add_argument_group("flags of the detectors"), detectors())
    return parser


def detect_command(args: argparse.Namespace, argv: list[str]) -> None:
    """Plan, folders, model, scores, summary. Raises ValueError for what the user can mend."""
    from tqdm import tqdm

    plan = plan_detection(args)
    for name, reason in plan.left_out.items():
        print(f"left out of all: {name} {reason}", file=sys.stderr)
    for detector in plan.detectors:
        plan.folder(detector).check(plan.identity(detector), overwrite=args.overwrite)
    from memorization_suite.pipelines.loading import load_pipeline
    from memorization_suite.screening.run import Detection

    settings = plan.settings
    pipe = load_pipeline(
        settings.model_id,
        dtype=settings.dtype,
        device=settings.device,
        scheduler=settings.scheduler,
    )
    for detector in plan.detectors:
        plan.folder(detector).start(
            plan.identity(detector),
            overwrite=args.overwrite,
            config={
                "command": shlex.join(["python", "detect_memorization.py", *argv]),
                **asdict(settings),
                "detector": detector.name,
                **asdict(detector),
            },
        )
    with tqdm(
        total=sum(len(prompts) for prompts in plan.sets.values()), unit="prompt", disable=args.quiet
    ) as bar:
        Detection(plan, pipe).go(bar)
    report(plan)


def report(plan: Plan) -> None:
    """Prints, for each detector, where its scores are and how well they tell the sets apart."""
    from memorization_suite.screening.evaluate import report_line

    for detector in plan.detectors:
        folder = plan.folder(detector)
        print(f"{folder.path / 'scores.csv'}: {report_line(folder.path / 'scores.csv')}")


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("evaluate", "spectrum", "tokens"):
        import importlib

        return importlib.import_module(f"memorization_suite.screening.{argv[0]}").main(argv[1:])
    args = build_parser().parse_args(argv)
    if args.list_detectors:
        print(listing(detectors()))
        return 0
    try:
        detect_command(args, argv)
    except ValueError as error:
        print(f"detect_memorization.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"detect_memorization.py: {error}. What is finished stays; the same command goes on.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "detect_memorization.py: interrupted; the same command goes on where it stopped.",
            file=sys.stderr,
        )
        return 1
    return 0
