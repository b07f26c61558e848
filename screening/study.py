"""What the subcommands spectrum and tokens share: general flags, checks before a model is loaded,
folder, exit codes.
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from memorization_suite.pipelines.models import fingerprint, load_preset, resolve_model
from memorization_suite.prompts.files import Prompt, read_prompts
from memorization_suite.runs.environment import choose_device
from memorization_suite.runs.files import read_csv, write_bytes
from memorization_suite.runs.run_folder import RunFolder
from memorization_suite.screening.command import HELP, Parser
from memorization_suite.screening.plan import CHOICES, Settings, prompt_sources, text_hash

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from memorization_suite.sampling import NoisePredictor

T = TypeVar("T")
GENERAL = (
    "model_id",
    "prompts",
    "end",
    "image_length",
    "n_samples_per_prompt",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "scheduler",
    "device",
    "output_path",
)
OWN_HELP = {
    "prompts": "prompt file: .csv, .txt or .jsonl",
    "end": "row after the last prompt",
    "output_path": "folder of the study's folder",
}
IDENTITY = ("image_length", "num_inference_steps", "guidance_scale", "seed", "scheduler")
FROM_PRESET = ("image_length", "scheduler", "num_inference_steps")


def study_parser(name: str, description: str, samples: int) -> Parser:
    """The general flags; what is not typed is absent from the namespace. samples: default of images
    per prompt.
    """
    parser = Parser(
        prog=f"detect_memorization.py {name}", description=description, allow_abbrev=False
    )
    kinds = {"int": int, "float": float, "str": str}
    for flag in GENERAL:
        field = Settings.__dataclass_fields__[flag]
        default = samples if flag == "n_samples_per_prompt" else field.default
        shown = f" (default {default})" if default not in ("", None) else ""
        parser.add_argument(
            *(["-n"] if flag == "n_samples_per_prompt" else []),
            f"--{flag}",
            type=kinds[str(field.type).split(" ")[0]],
            choices=CHOICES.get(flag),
            help=OWN_HELP.get(flag, HELP[flag]) + shown,
            default=argparse.SUPPRESS,
        )
    parser.add_argument("--start", type=int, default=0, help="first prompt, by row (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


class StudyFolder(RunFolder):
    """Tables and pictures of a study; a prompt is saved whole, so a stopped run goes on with the
    next.
    """

    own = (
        "manifest.json",
        "config.json",
        "spectrum.csv",
        "summary.csv",
        "histogram_*.png",
        "counts.png",
        "tokens.csv",
        "tokens_*.png",
        ".*.part",
    )

    def table(self, name: str) -> list[dict[str, str]]:
        """Rows of a table. Raises ValueError when it has none of the columns that tell whose they
        are.
        """
        rows = read_csv(self.path / f"{name}.csv")
        if rows and not all((row.get("prompt_index") or "").isdigit() for row in rows):
            raise ValueError(
                f"{self.path / name}.csv is no table of this command: mend it or move it away"
            )
        return rows

    def save_figure(self, name: str, figure: Figure) -> None:
        """A PNG, whole or not at all. Characters that the font lacks are drawn as boxes."""
        data = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(data, format="png", dpi=120)
        write_bytes(self.path / name, data.getvalue())


@dataclass
class Study:
    """A study that was checked as far as is possible without a model. prompts: all of the file;
    wanted: those of --start and --end.
    """

    name: str
    settings: Settings
    prompts: list[Prompt]
    wanted: list[Prompt]
    folder: StudyFolder

    def identity(self, own: dict) -> dict:
        """Everything that decides the numbers of an image. own: the study's settings."""
        general = {name: value for name, value in asdict(self.settings).items() if name in IDENTITY}
        return {
            "study": self.name,
            "model_id": fingerprint(self.settings.model_id),
            **general,
            "device": self.settings.device.split(":")[0],
            "prompts": text_hash([prompt.caption for prompt in self.prompts]),
            **own,
        }

    def begin(self, args: argparse.Namespace, argv: list[str], own: dict):
        """The pipeline, float32, once the folder is found usable. Raises ValueError for what the
        user can mend.
        """
        import torch

        from memorization_suite.pipelines.loading import load_pipeline

        identity, settings = self.identity(own), self.settings
        self.folder.check(identity, overwrite=args.overwrite)
        pipe = load_pipeline(
            settings.model_id, dtype="fp32", device=settings.device, scheduler=settings.scheduler
        )
        torch.backends.cudnn.allow_tf32 = False  # convolutions keep float32's digits
        self.folder.start(
            identity,
            overwrite=args.overwrite,
            config={
                "command": shlex.join(["python", "detect_memorization.py", self.name, *argv]),
                **vars(args),
                **asdict(settings),
            },
        )
        return pipe

    def sample_start(self, pipe, prompt: Prompt) -> tuple[NoisePredictor, torch.Tensor, list[int]]:
        """Predictor, noise (n, 4, h, w) and seeds of a prompt's images; the same noise as in other
        runs with this seed.
        """
        from memorization_suite.sampling import NoisePredictor, image_seed, initial_noise

        settings, n = self.settings, self.settings.n_samples_per_prompt
        seeds = [image_seed(settings.seed, prompt.row, k) for k in range(n)]
        side = settings.image_length // pipe.vae_scale_factor
        pipe.scheduler.set_timesteps(settings.num_inference_steps, device=pipe.device)
        predictor = NoisePredictor(
            pipe.unet, pipe.scheduler, pipe.encode([prompt.caption] * n), pipe.encode([""] * n)
        )
        return (
            predictor,
            initial_noise(seeds, (pipe.unet.config.in_channels, side, side)).to(pipe.device),
            seeds,
        )


def plan_study(name: str, args: argparse.Namespace, samples: int) -> Study:
    """Checks everything that needs no model. samples: default of images per prompt. Raises
    ValueError.
    """
    model_id = getattr(args, "model_id", Settings.model_id)
    resolve_model(model_id)
    _, preset = load_preset("auto", model_id)
    general = {
        flag: value for flag, value in preset.get("generate", {}).items() if flag in FROM_PRESET
    }
    typed = {flag: getattr(args, flag) for flag in GENERAL if hasattr(args, flag)}
    settings = Settings(**({"n_samples_per_prompt": samples} | general | typed))
    settings.check()
    settings.prompts, _ = prompt_sources(settings)
    prompts = read_prompts(Path(settings.prompts))
    end = len(prompts) if settings.end is None else settings.end
    if not 0 <= args.start < end <= len(prompts):
        raise ValueError(
            f"--start {args.start} --end {end} is no range of the {len(prompts)} rows of "
            f"{settings.prompts}: "
            f"0 <= start < end <= {len(prompts)}"
        )
    settings.device, settings.dtype = choose_device(settings.device), "fp32"
    return Study(
        name,
        settings,
        prompts,
        prompts[args.start : end],
        StudyFolder(Path(settings.output_path) / name),
    )


def exit_code(prog: str, prepare: Callable[[], T], work: Callable[[T], None], smaller: str) -> int:
    """Prepares and does the work: 0 done, 2 wrong arguments or input (ValueError of prepare), 1 a
    fault while running; one line on stderr.

    smaller: the flag that helps when the memory does not suffice.
    """
    try:
        try:
            ready = prepare()
        except ValueError as error:
            print(f"{prog}: {error}", file=sys.stderr)
            return 2
        work(ready)
    except OSError as error:
        print(
            f"{prog}: {error}. What is finished stays; the same command goes on.", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        print(f"{prog}: {str(error).splitlines()[0]} Use a smaller {smaller}.", file=sys.stderr)
        return 1
    return 0
