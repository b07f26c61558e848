"""Memory of a process while the embedded model makes images, a line every tenth of them.

python -m experiments.scale_memory                  # 2,000 images of 32 pixels, in minutes
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from memorization_suite import tiny
from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.image_job import Job
from memorization_suite.experiments.common import parser, positive
from memorization_suite.prompts.files import read_prompts
from memorization_suite.runs.cli import command
from memorization_suite.runs.lazy import psutil
from memorization_suite.runs.text import table_text

BATCH = 10


def captions(count: int, file: Path) -> str:
    """A prompt file of so many of the embedded model's captions, in turn."""
    known = [prompt.caption for prompt in read_prompts(tiny.prompts("tiny"))]
    file.write_text("".join(f"{known[i % len(known)]}\n" for i in range(count)), encoding="utf-8")
    return str(file)


def watched(images: int, folder: Path) -> list[tuple[int, float]]:
    """(images made, MB of this process) at every tenth of a run."""
    settings = {
        "model_id": "tiny",
        "prompts": captions(images // BATCH, folder / "captions.txt"),
        "n_samples_per_prompt": BATCH,
        "num_inference_steps": 2,
        "output_path": str(folder / "runs"),
        "device": "cpu",
        "quiet": True,
    }
    process = psutil.Process()
    found: list[tuple[int, float]] = []
    made = 0
    save = Job.save

    def noted(job: Job, *arguments) -> None:
        nonlocal made
        save(job, *arguments)
        made += BATCH
        if made >= images * (len(found) + 1) / 10:
            found.append((made, process.memory_info().rss / 1e6))

    Job.save = noted  # type: ignore[method-assign]
    try:
        generate(plan(**settings))
    finally:
        Job.save = save  # type: ignore[method-assign]
    return found


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    made = parser(__doc__)
    made.add_argument("--images", type=positive, default=2000, metavar="N")
    asked = made.parse_args(argv)

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            found = watched(asked.images, Path(folder))
        print(table_text([{"images": str(n), "MB": f"{memory:.0f}"} for n, memory in found]))

    return command("experiments.scale_memory", work)


if __name__ == "__main__":
    sys.exit(main())
