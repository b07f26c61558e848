"""The steps of a made-up large run, of which experiments/scale.py tells what they cost.

The model and the network of the metrics are stand-ins that cost next to nothing.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorization_suite import ROOT, tiny
from memorization_suite.runs import RunFolder
from memorization_suite.runs.lazy import F, Image, np, torch
from memorization_suite.sampling.denoiser import Conditioning, Denoiser

# Metrics that need no download.
SCORED = ["copy", "diversity", "alignment", "quality"]
SIDE = 32  # of the pictures
TRAINED = 1000  # timesteps of the embedded model


class StandIn(Denoiser):
    """A model whose noise is its picture.

    stop_after: so many batches are decoded, then Stopped is raised.
    """

    dtype: Any
    native_size = SIDE
    latent_channels = 4
    downsampling = 4

    def __init__(self, stop_after: int | None = None):
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.network = torch.nn.Identity()
        self.left = stop_after

    def set_timesteps(self, num_inference_steps: int) -> None:
        self.timesteps = torch.linspace(TRAINED - 1, 0, num_inference_steps).long()

    def alpha_sigma(self, t: Any) -> tuple[float, float]:
        sigma = (int(t) + 1) / (TRAINED + 1)
        return 1 - sigma, sigma

    def encode(self, prompts: Any, *, padding: str | None = None) -> Conditioning:
        return Conditioning(torch.zeros(len(prompts), 1, 1))

    def predict(self, x: torch.Tensor, t: Any, conditioning: Conditioning) -> torch.Tensor:
        return torch.zeros_like(x)

    def step(self, output: Any, t: Any, latents: torch.Tensor, generator=None) -> torch.Tensor:
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        if self.left == 0:
            raise Stopped
        if self.left is not None:
            self.left -= 1
        return F.interpolate(latents[:, :3].sigmoid(), scale_factor=self.downsampling)


class Stopped(Exception):
    """A run that ends in the middle."""


@dataclass(frozen=True)
class Place:
    """A made-up run, and where it lies."""

    folder: Path
    prompts: int
    # Images of each.
    samples: int

    @property
    def prompts_file(self) -> Path:
        return self.folder / "prompts.csv"

    @property
    def references(self) -> Path:
        """Of the training images."""
        return self.folder / "references"

    @property
    def run(self) -> Path:
        """The run folder, when the run has begun."""
        (manifest,) = (self.folder / "runs").glob("*/*/manifest.json")
        return manifest.parent

    @property
    def flags(self) -> dict[str, Any]:
        """Of generate_images.py."""
        return {
            "model_id": "tiny",
            "prompts": str(self.prompts_file),
            "n_samples_per_prompt": self.samples,
            "num_inference_steps": 2,
            "output_path": str(self.folder / "runs"),
            "device": "cpu",
            "quiet": True,
        }

    def plan(self):
        """What generate_images.py plans with these flags."""
        from memorization_suite.commands.generate_plan import plan

        return plan(**self.flags)

    def run_command(self, script: str, *arguments: object) -> None:
        """Runs a command of the suite as a user does. Raises RuntimeError when it fails."""
        words = [sys.executable, str(ROOT / script), *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{script} failed: {done.stderr}")


def prepare(place: Place) -> None:
    """The prompt file, with the embedded model's captions in turn, and a training image for each
    prompt.
    """
    with open(tiny.prompts("tiny"), newline="", encoding="utf-8") as file:
        known = list(csv.DictReader(file, delimiter=";"))
    place.references.mkdir(parents=True)
    rows = []
    colors = np.random.default_rng(0).integers(0, 256, (place.prompts, 4, 4, 3), dtype=np.uint8)
    for i in range(place.prompts):
        row = known[i % len(known)]
        caption = f"{row['Caption']} {i}"
        rows.append(row | {"": i, "Caption": caption, "Index": f"{i}"})
        (place.references / f"{i}").mkdir()
        picture = Image.fromarray(colors[i]).resize((SIDE, SIDE))
        picture.save(place.references / f"{i}" / "0.png")
    with open(place.prompts_file, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


# --- steps ---


def make_half(place: Place) -> None:
    """Starts the run, which stops in the middle."""
    from memorization_suite.commands.generate import generate

    planned = place.plan()
    half = len(planned.batches()) // 2
    try:
        generate(planned, load=lambda *_, **__: StandIn(half))
    except Stopped:
        return
    raise RuntimeError("the run did not stop in the middle")


def make_rest(place: Place) -> None:
    """Goes on with the run to its end."""
    from memorization_suite.commands.generate import generate

    made = generate(place.plan(), load=lambda *_, **__: StandIn()).made
    if len(made) < place.prompts * place.samples // 2:
        raise RuntimeError(f"only {len(made)} images were made")


def resume_finished(place: Place) -> None:
    """The command once more."""
    words = []
    for name, value in place.flags.items():
        words += [f"--{name}"] if value is True else [f"--{name}", value]
    place.run_command("generate_images.py", *words)


def cut_into_parts(place: Place) -> None:
    """A copy of the run's table as parts, a batch each, of which nothing is published."""
    folder = RunFolder(place.folder / "parts")
    folder.path.mkdir()
    shutil.copy(place.run / "manifest.json", folder.path)
    batches: dict[str, list[dict]] = {}
    for row in RunFolder(place.run).rows("images"):
        batches.setdefault(row["prompt_index"], []).append(row)
    for rows in batches.values():
        folder.add(rows[0]["key"], images=rows)


def publish(place: Place) -> None:
    """All parts into the table."""
    RunFolder(place.folder / "parts").publish()


def complete(place: Place) -> None:
    """Which images are whole."""
    there = RunFolder(place.run).complete(latents=False, trace=False)
    if len(there) != place.prompts * place.samples:
        raise RuntimeError(f"{len(there)} images are whole")


def score_all(place: Place) -> None:
    """The metrics that need no download."""
    from memorization_suite.commands.score import score
    from memorization_suite.metrics import image_features

    def pooled(batch: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> (n, WIDTH): coarse pixels."""
        coarse = F.adaptive_avg_pool2d(batch, (20, image_features.WIDTH // 20))
        return coarse.mean(1).flatten(1)

    image_features.backbone = lambda device="cpu": pooled
    score(place.run, SCORED, gt_folder=place.references, quiet=True)


def summarize(place: Place) -> None:
    """Means and intervals of the scores."""
    place.run_command("metrics/summarize.py", place.run, "--quiet")


def report(place: Place) -> None:
    """The page, with as many pictures as the stored figures are of."""
    out = place.folder / "page.html"
    gallery = ("--max_prompts", "48", "--samples", "2")
    arguments = ("--gt_folder", place.references, "--out", out, "--quiet", *gallery)
    place.run_command("make_report.py", place.run, *arguments)


@dataclass(frozen=True)
class Step:
    """What is measured."""

    name: str
    work: Callable[[Place], None]
    # Whether it is a command in a process of its own, so that its start counts.
    command: bool = False
    # What is done before, unmeasured.
    first: Callable[[Place], None] | None = None


STEPS = (
    Step("start, and half of the images", make_half, first=prepare),
    Step("resume of the half-made run", make_rest),
    Step("resume of the finished run", resume_finished, command=True),
    Step("publish, a part a prompt", publish, first=cut_into_parts),
    Step("complete", complete),
    Step("scores", score_all),
    Step("summary", summarize, command=True),
    Step("report", report, command=True),
)
