"""How a large run behaves on one machine: seconds and memory of each step at two sizes.

python -m experiments.scale                                  # 5,000 and 50,000 images
python -m experiments.scale --prompts 50 500 --out scale     # also keeps them as scale/scale.json

Each step has a process of its own, so that its memory is its own. The model and the network of the
metrics are stand-ins that cost next to nothing: what is measured is the suite and the disk.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from memorization_suite.experiments.common import parser, positive
from memorization_suite.experiments.scale_steps import SCORED, STEPS, Place, Step
from memorization_suite.runs.cli import command
from memorization_suite.runs.files import write_json
from memorization_suite.runs.text import table_text

# Imported before the clock starts of a step that is no command.
HEAVY = ("torch", "timm", "scipy.stats", "accelerate", "safetensors.torch", "torchvision")
UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


@dataclass(frozen=True)
class Cost:
    """What a step took."""

    seconds: float
    # Of the processor, which other work on the machine changes less.
    busy: float
    # The most memory of its process, in MB.
    memory: float


def measured(step: Step, place: Place) -> Cost:
    """Does the step, in this process or as a command of its own."""
    if step.first:
        step.first(place)
    if not step.command:
        for module in HEAVY:
            importlib.import_module(module)
    whose = resource.RUSAGE_CHILDREN if step.command else resource.RUSAGE_SELF
    before = resource.getrusage(whose)
    start = time.perf_counter()
    step.work(place)
    seconds = time.perf_counter() - start
    used = resource.getrusage(whose)
    busy = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, busy, memory=used.ru_maxrss * UNIT / 1e6)


def costs_of(place: Place) -> dict[str, Cost]:
    """Every step's cost, each measured in a fresh process."""
    costs = {}
    for step in STEPS:
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh) as pool:
            costs[step.name] = pool.submit(measured, step, place).result()
        cost = costs[step.name]
        text = f"{cost.seconds:.2f} s ({cost.busy:.2f} s busy), {cost.memory:.0f} MB"
        print(f"{step.name}: {text}", file=sys.stderr)
    return costs


def table_of(sizes: list[int], costs: list[dict[str, Cost]]) -> str:
    """A line a step. sizes: numbers of images, of each of the costs."""
    rows = []
    less, more = (f"{size:,}" for size in sizes)
    for step in STEPS:
        few, many = (of_size[step.name] for of_size in costs)
        rows.append(
            {
                "step": step.name,
                f"s, {less}": f"{few.seconds:.2f}",
                f"s, {more}": f"{many.seconds:.2f}",
                "times": f"{many.seconds / few.seconds:.1f}",
                f"busy, {less}": f"{few.busy:.2f}",
                f"busy, {more}": f"{many.busy:.2f}",
                "times busy": f"{many.busy / few.busy:.1f}",
                f"MB, {less}": f"{few.memory:.0f}",
                f"MB, {more}": f"{many.memory:.0f}",
                "more MB": f"{many.memory - few.memory:+.0f}",
            }
        )
    return table_text(rows)


def flags() -> argparse.ArgumentParser:
    """Its flags."""
    made = parser(__doc__)
    made.add_argument(
        "--prompts",
        type=positive,
        nargs=2,
        default=[500, 5000],
        metavar="N",
        help="of the two runs",
    )
    made.add_argument(
        "--samples", type=positive, default=10, metavar="N", help="images of each prompt"
    )
    made.add_argument("--out", type=Path, metavar="FOLDER", help="keep scale.json there")
    return made


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    asked = flags().parse_args(argv)

    def work() -> None:
        costs = []
        for prompts in asked.prompts:
            with tempfile.TemporaryDirectory() as folder:
                costs.append(costs_of(Place(Path(folder), prompts, asked.samples)))
        sizes = [prompts * asked.samples for prompts in asked.prompts]
        print(f"Metrics: {', '.join(SCORED)}. Commands are timed with their start.")
        print(table_of(sizes, costs))
        if asked.out:
            asked.out.mkdir(parents=True, exist_ok=True)
            entries = []
            for size, of_size in zip(sizes, costs):
                steps = {name: asdict(cost) for name, cost in of_size.items()}
                entries.append({"images": size, "steps": steps})
            write_json(asked.out / "scale.json", entries)

    return command("experiments.scale", work)


if __name__ == "__main__":
    sys.exit(main())
