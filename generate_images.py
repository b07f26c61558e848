"""Images for the prompts of a file, with one mitigation or none.

python generate_images.py --model_id tiny --method adj_init_noise --batch_wise
"""
from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mitigation.base import Mitigation
from mitigation.cli import add_method_arguments, list_methods, method_from_args
from pipelines.models import EMBEDDED, ROOT, load_preset, resolve_model
from prompts.files import Prompt, read_prompts, sha256_of
from results import Key, RunFolder

OFFICIAL_PROMPTS = ROOT / "prompts" / "memorized_laion_prompts.csv"


@dataclass
class Settings:
    """The general flags. A field's default is the official script's, where that has the flag."""

    model_id: str = "CompVis/stable-diffusion-v1-4"
    unet_id: str | None = None
    prompts: str = ""
    start: int = 0
    end: int | None = None
    image_length: int = 512
    batch_size: int = 1
    n_samples_per_prompt: int = 10
    num_inference_steps: int = 50
    guidance_scale: float = 7.0
    seed: int = 2
    scheduler: str = "ddim"
    dtype: str = ""
    device: str = ""
    rng: str = "per_image"
    output_path: str = "generated_images"

    def check(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        for name, low, high in (("image_length", 8, 4096), ("batch_size", 1, 10_000), ("n_samples_per_prompt", 1, 10_000),
                                ("num_inference_steps", 1, 1000), ("seed", 0, 2**63 - 1), ("start", 0, math.inf)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"--{name} {value!r} is out of range: it must be a whole number from {low} to {high}")
        if self.image_length % 8:
            raise ValueError(f"--image_length {self.image_length} must be a multiple of 8")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise ValueError(f"--guidance_scale {self.guidance_scale} must be a finite number of at least 0")


HELP = {
    "model_id": f"hub id, local diffusers folder, or an embedded model: {', '.join(EMBEDDED)}", "unet_id": "folder or hub id of another UNet",
    "prompts": "prompt file: .csv, .txt or .jsonl", "start": "first prompt, by row", "end": "row after the last prompt",
    "image_length": "height and width in pixels", "batch_size": "prompts per batch", "n_samples_per_prompt": "images per prompt",
    "num_inference_steps": "sampling steps", "guidance_scale": "classifier-free guidance", "seed": "seed of the run",
    "scheduler": "keep: the model's own", "dtype": "default: bf16 on CUDA, fp32 on the CPU", "device": "default: cuda if there is one",
    "rng": "per_image: a seed for each image; official: the official script's one stream, in file order", "output_path": "folder of all runs",
}
CHOICES = {"scheduler": ("ddim", "euler", "keep"), "dtype": ("fp32", "bf16", "fp16"), "rng": ("per_image", "official")}
NOT_IDENTITY = ("start", "end", "output_path", "prompts", "device")      # what may differ when a run goes on


class Parser(argparse.ArgumentParser):
    """One line for a wrong argument, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (--help lists all flags)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    kinds = {"int": int, "float": float, "str": str}
    for name, field in Settings.__dataclass_fields__.items():
        options = [f"--{name}"] + (["-b"] if name == "batch_size" else [])
        shown = f" (default {field.default})" if field.default not in ("", None) else ""
        kind = kinds[str(field.type).split(" ")[0]]
        parser.add_argument(*options, type=kind, choices=CHOICES.get(name), help=HELP[name] + shown, default=argparse.SUPPRESS)
    parser.add_argument("--preset", default="auto", metavar="{auto,none,FILE}",
                        help="values for flags that were not typed (default auto: the model's own); none: the official defaults")
    parser.add_argument("--save_latents", action="store_true", help="also write latents/img_PPPP_SS.safetensors: initial, adjusted, final")
    parser.add_argument("--trace", action="store_true", help="also write trace.csv: magnitude and guidance of each step; runs both halves")
    parser.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--list_methods", action="store_true", help="print every method and leave")
    add_method_arguments(parser)
    return parser


@dataclass
class Plan:
    """A run that was checked as far as is possible without a model."""

    settings: Settings
    mitigation: Mitigation
    prompts: list[Prompt]
    preset: str
    folder: Path
    save_latents: bool
    trace: bool

    def identity(self) -> dict:
        """Everything that decides the bytes of an image."""
        general = {name: value for name, value in asdict(self.settings).items() if name not in NOT_IDENTITY}
        return {**general, "method": self.mitigation.name, "method_settings": self.mitigation.settings(),
                "prompts_sha256": sha256_of(Path(self.settings.prompts)), "device": self.settings.device.split(":")[0]}

    def batches(self) -> list[tuple[int, list[Prompt]]]:
        """(number, prompts) of every batch of the file; batches are counted from row 0, so that a range has the same ones."""
        size = self.settings.batch_size
        return [(i // size, self.prompts[i:i + size]) for i in range(0, len(self.prompts), size)]

    def keys(self, prompts: list[Prompt]) -> list[Key]:
        return [Key(prompt.row, sample) for prompt in prompts for sample in range(self.settings.n_samples_per_prompt)]

    def wanted(self, prompts: list[Prompt]) -> list[Key]:
        """Keys of the images that --start and --end ask for."""
        end = len(self.prompts) if self.settings.end is None else self.settings.end
        return [key for key in self.keys(prompts) if self.settings.start <= key.prompt < end]


def plan_run(args: argparse.Namespace) -> Plan:
    """Checks everything that can be checked before a model is loaded. Raises ValueError."""
    model_id = getattr(args, "model_id", Settings.model_id)
    resolve_model(model_id)
    source, preset = load_preset(args.preset, model_id)
    typed = {name: getattr(args, name) for name in Settings.__dataclass_fields__ if hasattr(args, name)}
    unknown = sorted(set(preset.get("generate", {})) - set(Settings.__dataclass_fields__))
    if unknown:
        raise ValueError(f"the preset {source} sets {unknown[0]!r}, which is no flag")
    settings = Settings(**(preset.get("generate", {}) | typed))
    mitigation = method_from_args(args, preset)
    settings.check()
    mitigation.check(settings.num_inference_steps)
    settings.prompts = settings.prompts or str(default_prompts(model_id))
    prompts = read_prompts(Path(settings.prompts))
    check_range(settings, len(prompts))
    settings.device, settings.dtype = choose_device(settings)
    return Plan(settings, mitigation, prompts, source, run_folder(settings, mitigation), args.save_latents, args.trace)


def run_folder(settings: Settings, mitigation: Mitigation) -> Path:
    """<output_path>/<method>/<settings>_seed<seed>; numbers written with %g, so that 7 and 7.0 give the same folder."""
    values = {"g": settings.guidance_scale, **mitigation.settings(), "seed": settings.seed}
    return Path(settings.output_path) / mitigation.name / "_".join(f"{name}{number_text(value)}" for name, value in values.items())


def number_text(value) -> str:
    """%g for a float; whole numbers (seeds are long) and texts as they are."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_prompts(model_id: str) -> Path:
    """The embedded model's test prompts, or the official file. Raises ValueError when that is not there."""
    if model_id in EMBEDDED:
        return ROOT / "tiny" / "prompts" / f"{model_id}_memorized_test.csv"
    if not OFFICIAL_PROMPTS.exists():
        raise ValueError(f"the official prompt file {OFFICIAL_PROMPTS.relative_to(ROOT)} is not here: download/README.md tells where to get it. "
                         "Or give another file with --prompts, or use the embedded model with --model_id tiny.")
    return OFFICIAL_PROMPTS


def check_range(settings: Settings, total: int) -> None:
    """Raises ValueError when --start and --end select nothing."""
    end = total if settings.end is None else settings.end
    if not settings.start < end <= total:
        raise ValueError(f"--start {settings.start} --end {end} is no range of the {total} rows of {settings.prompts}: 0 <= start < end <= {total}")


def choose_device(settings: Settings) -> tuple[str, str]:
    """Device and dtype. Raises ValueError for a device that is not there."""
    import torch

    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    return device, settings.dtype or ("bf16" if device.startswith("cuda") else "fp32")


# --- the run ------------------------------------------------------------------------------------------------------------------


class Run:
    """Generates what is missing in a run folder. Processes started by `accelerate launch` share the batches."""

    def __init__(self, plan: Plan, pipe, folder: RunFolder, state):
        self.plan, self.pipe, self.folder, self.state = plan, pipe, folder, state
        self.images = self.unet_evals = 0
        self.published = time.monotonic()

    def go(self, bar) -> None:
        done = self.folder.complete(latents=self.plan.save_latents, trace=self.plan.trace)
        batches = self.plan.batches()
        for (number, prompts), official in zip(batches, self.official_noise([len(prompts) for _, prompts in batches])):
            wanted = self.plan.wanted(prompts)
            if not wanted or number % self.state.num_processes != self.state.process_index:
                continue
            if not done.issuperset(wanted):
                self.make(number, prompts, official)
                self.publish_now_and_then()
            bar.set_postfix(method=self.plan.mitigation.name, unet_rows=self.unet_evals, refresh=False)
            bar.update(len(wanted))

    def publish_now_and_then(self, seconds: float = 30.0) -> None:
        """Keeps the tables fresh during a long run; the rows themselves are safe in the batches' parts."""
        if self.state.is_main_process and time.monotonic() - self.published > seconds:
            self.folder.publish(self.tables())
            self.published = time.monotonic()

    def tables(self) -> tuple[str, ...]:
        return ("images", "trace") if self.plan.trace else ("images",)

    def latent_shape(self) -> tuple[int, int, int]:
        side = self.plan.settings.image_length // self.pipe.vae_scale_factor
        return self.pipe.unet.config.in_channels, side, side

    def official_noise(self, prompts_per_batch: list[int]):
        """The official script's draws, or None for each batch."""
        from sampling.noise import official_noise

        settings = self.plan.settings
        if settings.rng == "per_image":
            return [None] * len(prompts_per_batch)
        rows = [count * settings.n_samples_per_prompt for count in prompts_per_batch]
        return official_noise(settings.seed, rows, self.latent_shape(), self.pipe.unet.dtype, settings.device)

    def make(self, number: int, prompts: list[Prompt], noise) -> None:
        """One batch: sample, decode, save. The whole batch is made, what was not asked for is dropped."""
        from sampling.noise import image_seed, initial_noise

        settings, keys, start = self.plan.settings, self.plan.keys(prompts), time.perf_counter()
        seeds = [image_seed(settings.seed, key.prompt, key.sample) for key in keys]
        noise = initial_noise(seeds, self.latent_shape()) if noise is None else noise
        captions = [prompt.caption for prompt in prompts for _ in range(settings.n_samples_per_prompt)]
        trace = Trace(keys) if self.plan.trace else None
        sample = self.pipe.sample(captions, noise.to(settings.device, self.pipe.unet.dtype), self.plan.mitigation, seeds=seeds, on_step=trace,
                                  num_inference_steps=settings.num_inference_steps, guidance_scale=settings.guidance_scale)
        pictures, _ = self.pipe.decode(sample.final)
        self.images += len(keys)
        self.unet_evals += int(sample.unet_evals.sum())
        used = seeds if settings.rng == "per_image" else [settings.seed] * len(keys)
        rows = image_rows(keys, captions, used, sample, (time.perf_counter() - start) / len(keys))
        self.save(number, self.plan.wanted(prompts), keys, pictures, sample, rows, trace)

    def save(self, number: int, wanted: list[Key], keys: list[Key], pictures, sample, rows, trace) -> None:
        for i, key in enumerate(keys):
            if key in wanted:
                self.folder.save_image(key, pictures[i])
                if self.plan.save_latents:
                    self.folder.save_latents(key, {name: getattr(sample, name)[i].float().cpu() for name in ("initial", "adjusted", "final")})
        names = {str(key) for key in wanted}
        if trace is not None:
            self.folder.save_rows("trace", number, [row for row in trace.rows() if row["key"] in names])
        self.folder.save_rows("images", number, [row for row in rows if row["key"] in names])


def image_rows(keys, captions, seeds, sample, seconds: float) -> list[dict]:
    """A row of images.csv for each image."""
    rows = []
    for i, key in enumerate(keys):
        own = {name: f"{float(values[i]):.6g}" for name, values in sample.numbers.items()}
        rows.append({"key": str(key), "prompt_index": key.prompt, "sample_index": key.sample, "prompt": captions[i], "seed": seeds[i],
                     "unet_evals": int(sample.unet_evals[i]), "seconds": f"{seconds:.4f}", **own})
    return rows


class Trace:
    """Collects, at every step and for every image, the magnitude (epsilon units) and the guidance scale."""

    def __init__(self, keys: list[Key]):
        self.keys, self.steps = keys, []

    def __call__(self, step, prediction) -> None:
        import torch

        scale = torch.as_tensor(step.applied, dtype=torch.float32).expand(len(self.keys)).tolist()
        self.steps.append((step.index, float(step.t), prediction.magnitude().tolist(), scale))

    def rows(self) -> list[dict]:
        return [{"key": str(key), "prompt_index": key.prompt, "sample_index": key.sample, "step": index, "timestep": f"{t:g}",
                 "magnitude": f"{magnitude[i]:.6g}", "guidance_scale": f"{scale[i]:g}"}
                for i, key in enumerate(self.keys) for index, t, magnitude, scale in self.steps]


def prepare(args: argparse.Namespace, argv: list[str]) -> Run:
    """Plan, run folder and model, in the order in which they can go wrong. Raises ValueError for what the user can mend."""
    plan = plan_run(args)
    folder = RunFolder.open(plan.folder, plan.identity(), overwrite=args.overwrite, config={
        "command": shlex.join(["python", "generate_images.py", *argv]), "preset": plan.preset, **asdict(plan.settings),
        "method": plan.mitigation.name, **asdict(plan.mitigation), "save_latents": plan.save_latents, "trace": plan.trace})
    describe(plan)
    from accelerate import PartialState

    from pipelines.models import load_pipeline

    settings, state = plan.settings, PartialState(cpu=plan.settings.device == "cpu")
    device = str(state.device) if state.num_processes > 1 else settings.device
    pipe = load_pipeline(settings.model_id, unet_id=settings.unet_id, dtype=settings.dtype, device=device, scheduler=settings.scheduler)
    return Run(plan, pipe, folder, state)


def generate(run: Run, *, quiet: bool) -> None:
    """Makes what is missing and prints the summary."""
    from tqdm import tqdm

    start, total, main_process = time.perf_counter(), len(run.plan.wanted(run.plan.prompts)), run.state.is_main_process
    with tqdm(total=total, unit="image", disable=quiet or not main_process) as bar:
        run.go(bar)
    run.state.wait_for_everyone()
    if main_process:
        run.folder.publish(run.tables())
        run.folder.finish()
        seconds = time.perf_counter() - start
        made = "nothing to make"
        if run.images:
            made = f"{run.images} images made, {run.unet_evals / run.images:.4g} UNet rows and {seconds / run.images:.2f} s each"
        print(f"{total} images in {run.folder.path} ({made})")


def describe(plan: Plan) -> None:
    """Says on stderr what is used, so that a preset's values are seen."""
    used = {**asdict(plan.settings), **plan.mitigation.settings()}
    shown = " ".join(f"{name}={value}" for name, value in used.items() if value not in (None, ""))
    print(f"method {plan.mitigation.name}, preset {plan.preset}: {shown}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while running, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)
    if args.list_methods:
        print(list_methods())
        return 0
    try:
        run = prepare(args, argv)
    except ValueError as error:
        print(f"generate_images.py: {error}", file=sys.stderr)
        return 2
    try:
        generate(run, quiet=args.quiet)
    except OSError as error:
        print(f"generate_images.py: {error}. What is finished stays; the same command goes on.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("generate_images.py: interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
