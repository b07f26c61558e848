"""What the methods cost: NFE, time and memory, beside a plain transcription of the official
procedure. Both run in one process, in turns.

python -m experiments.cost                                   # the embedded model
python -m experiments.cost --architecture sd14 --out costs   # Stable Diffusion 1.4, random weights
python -m experiments.cost --architecture sd14 --compile --methods no_mitigation
python -m experiments.cost --architecture sd14 --rows        # what --batch_size can bring
python -m experiments.cost --architecture sd14 --count       # memory on a GPU, without one
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from memorization_suite import tiny
from memorization_suite.commands.machine import choose_memory, use_machine
from memorization_suite.commands.settings import DTYPES, MODELS, check_model
from memorization_suite.experiments.architectures import ARCHITECTURES, build
from memorization_suite.experiments.common import amount, parser, positive
from memorization_suite.experiments.cost_memory import count, count_text, limits_of
from memorization_suite.experiments.cost_sides import (
    OFFICIAL,
    Work,
    measure,
    measure_rows,
    sides_of,
)
from memorization_suite.experiments.cost_tables import Cost, Setting, write_costs, write_rates
from memorization_suite.mitigation import METHODS, Mitigation
from memorization_suite.mitigation.registry import choose_mitigation
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.models import load_preset
from memorization_suite.prompts.files import read_prompts
from memorization_suite.runs.cli import command
from memorization_suite.runs.environment import choose_device, set_tf32
from memorization_suite.runs.settings import unknown_name
from memorization_suite.sampling.denoiser import Denoiser

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Unguided steps of the batch-wise method, unless there are fewer steps.
UNGUIDED = 5
# Targets that no image reaches, so that each takes all updates, whatever the weights are.
NEVER: dict[str, dict[str, Any]] = {
    # A sum with a cosine, which may be negative.
    "anisotropy_embedding": {"optim_target_loss": -1e9},
    "bright_ending_embedding": {"optim_target_loss": 1e-9},
    "per_sample": {"target_loss": 1e-9},
    "prompt_embedding": {"optim_target_loss": 1e-9},
    # Of one noise; others would take as many again.
    "sail": {"l_thres": 1e-9, "restarts": 0},
}
ROWS = (2, 8, 20, 64, 128)


def flags() -> argparse.ArgumentParser:
    """Its flags."""
    made = parser(__doc__)
    which = made.add_mutually_exclusive_group()
    which.add_argument("--model_id", default="tiny", help=MODELS)
    which.add_argument(
        "--architecture", choices=list(ARCHITECTURES), help="random weights, made on the device"
    )
    made.add_argument(
        "--reduced",
        action=argparse.BooleanOptionalAction,
        help="a narrow, small variant of the architecture (default: on a CPU)",
    )
    made.add_argument("--device", default="", help="default: cuda if there is one")
    made.add_argument("--dtype", choices=DTYPES, help="default: bf16 on CUDA, fp32 on the CPU")
    made.add_argument(
        "--methods",
        nargs="+",
        default=list(OFFICIAL),
        metavar="NAME",
        help=f"all: every registered one (default: {' '.join(OFFICIAL)})",
    )
    made.add_argument(
        "--images", type=positive, default=10, help="of a prompt, together (default 10)"
    )
    made.add_argument(
        "--batch",
        type=positive,
        default=1,
        metavar="N",
        help="prompts that the suite samples together; the official procedure takes one after the "
        "other (default 1)",
    )
    made.add_argument("--steps", type=positive, default=50, help="default 50")
    made.add_argument(
        "--updates",
        type=positive,
        default=8,
        help="of each image by the per-sample method (default 8); no target is reached, so the "
        "other methods take all their own",
    )
    made.add_argument("--repeats", type=positive, default=3, help="timed runs (default 3)")
    made.add_argument(
        "--memory_budget",
        type=amount,
        metavar="GIB",
        help="memory that the suite may take (default on CUDA: what is free)",
    )
    made.add_argument("--compile", action="store_true", help="torch.compile the suite's network")
    made.add_argument(
        "--rows",
        type=positive,
        nargs="*",
        metavar="N",
        help=f"only rows a second with so many in flight (default {' '.join(map(str, ROWS))})",
    )
    made.add_argument(
        "--count",
        action="store_true",
        help="only the memory that the architecture takes in --dtype (default bf16), counted from "
        "shapes alone: no GPU is needed",
    )
    made.add_argument("--out", type=Path, metavar="FOLDER", help="also cost.md and cost.csv there")
    return made


def checked_methods(names: list[str]) -> list[str]:
    """Registered names. Raises ValueError."""
    if names == ["all"]:
        return list(METHODS)
    for name in names:
        if name not in METHODS:
            raise unknown_name("method", name, [*METHODS, "all"])
    return names


def count_memory(args: argparse.Namespace) -> None:
    """Prints what the architecture takes. Raises ValueError."""
    if args.architecture is None:
        raise ValueError(f"--count needs --architecture, any of {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[args.architecture]
    if args.reduced:
        architecture = architecture.reduced()
    dtype = args.dtype or "bf16"
    found = count(architecture, KINDS[dtype], args.images)
    print(count_text(architecture, dtype, args.images, found))
    if args.memory_budget is not None:
        limits = limits_of(architecture, KINDS[dtype], args.memory_budget)
        print(
            f"--memory_budget {args.memory_budget:g}: {limits.forward} rows of the network in a "
            f"pass, {limits.backward} with gradients"
        )


def load(args: argparse.Namespace, device: str, dtype: str) -> tuple[Denoiser, str, dict]:
    """The model, what it is, and its preset. Raises ValueError."""
    if args.architecture is None:
        check_model(args.model_id)
        preset = load_preset("auto", args.model_id)[1]
        scheduler = preset.get("generate", {}).get("scheduler", "ddim")
        model = load_pipeline(args.model_id, dtype=dtype, device=device, scheduler=scheduler)
        return model, args.model_id, preset
    architecture = ARCHITECTURES[args.architecture]
    reduced = device == "cpu" if args.reduced is None else args.reduced
    if reduced:
        architecture = architecture.reduced()
    set_tf32(False)
    torch.backends.cudnn.deterministic = True
    return build(architecture, device=device, dtype=KINDS[dtype]), architecture.title, {}


def as_a_run_does(model: Denoiser, args: argparse.Namespace, prompts: int) -> float | None:
    """Rows in a pass, and compilation, as generate_images.py has them.

    Returns the seconds of compilation, if there was one. Raises ValueError.
    """
    settings = argparse.Namespace(
        image_length=model.native_size,
        num_inference_steps=args.steps,
        memory_budget=args.memory_budget,
        compile=args.compile and args.rows is None,
        batch_size=args.batch,
        n_samples_per_prompt=args.images,
    )
    memory = choose_memory(model, settings, gradients=True)
    start = time.perf_counter()
    use_machine(model, settings, memory, prompts)
    return time.perf_counter() - start if settings.compile else None


def chosen(name: str, args: argparse.Namespace, preset: dict) -> Mitigation:
    """The method with the settings whose cost is measured. Raises ValueError."""
    typed = dict(NEVER.get(name, {}))
    if name == "batch_wise":
        typed["apply_cfg_step"] = min(UNGUIDED - 1, args.steps - 2)
    if name == "per_sample":
        typed["optim_iters"] = args.updates
    method = choose_mitigation(name, typed, preset)
    method.check(args.steps)
    return method


def setting_of(args: argparse.Namespace, model: Denoiser, title: str, dtype: str) -> Setting:
    """What the tables are of."""
    device = torch.device(model.device)
    where = f"the CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    return Setting(
        title=title,
        architecture=args.architecture or "",
        reduced="reduced" in title,
        device=where,
        cuda=device.type == "cuda",
        dtype=dtype,
        pixels=model.native_size,
        images=args.images,
        prompts=args.batch,
        steps=args.steps,
        updates=args.updates,
        repeats=args.repeats,
        compiled=args.compile,
        memory_budget=args.memory_budget,
        forward_rows=model.limits.forward,
        backward_rows=model.limits.backward,
    )


def measure_all(
    args: argparse.Namespace,
    names: list[str],
    work: Work,
    preset: dict,
    setting: Setting,
    compiling: float | None,
) -> None:
    """Every method; what is measured is written after each, and printed at the end.

    compiling: seconds that it took.
    """
    costs: list[Cost] = []
    left_out: dict[str, str] = {}
    text = ""
    for name in names:
        print(f"measuring {name}", file=sys.stderr)
        try:
            method = chosen(name, args, preset)
            sides = sides_of(work, method)
            costs += measure(sides, work, repeats=args.repeats, compiling=compiling)
        except ValueError as error:
            if args.methods != ["all"]:
                raise
            left_out[name] = str(error)
        text = write_costs(args.out, setting, costs, left_out)
    print(text)


def main() -> int:
    """The command line."""
    args = flags().parse_args()
    if args.count:
        count_memory(args)
        return 0
    names = checked_methods(args.methods)
    device = choose_device(args.device)
    dtype = args.dtype or ("bf16" if device.startswith("cuda") else "fp32")
    model, title, preset = load(args, device, dtype)
    prompts = read_prompts(tiny.prompts("tiny"))[: args.batch]
    compiling = as_a_run_does(model, args, len(prompts))
    setting = setting_of(args, model, title, dtype)
    if args.rows is not None:
        counts = args.rows or list(ROWS)
        rates = measure_rows(model, counts, args.repeats, compiled=args.compile)
        print(write_rates(args.out, setting, rates))
        return 0
    work = Work(model, prompts, args.images, args.steps)
    measure_all(args, names, work, preset, setting, compiling)
    return 0


if __name__ == "__main__":
    sys.exit(command("experiments.cost", main, smaller="--images"))
