"""How quickly a page of many images opens and filters: made up, in a real browser.

python -m tests.page_speed [--prompts 500] [--times 3] [--out FOLDER]

Four runs with five images of each prompt: 10,000 images of 512 pixels. Says the size of the page,
seconds until it is loaded, and milliseconds until a change of the filters is seen.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from memorization_suite.commands.report import report
from memorization_suite.runs import Key, RunFolder
from memorization_suite.runs.files import sha256_of, write_csv
from memorization_suite.runs.table import Result, add_results
from tests.browser import Browser

METHODS = ("no_mitigation", "batch_wise", "per_sample", "sail")
KINDS = ("VM", "TM", "LM")
SAMPLES = 5
STEPS = 50
# Different pictures; every image is one of them.
PICTURES = 40
WORDS = [
    "red",
    "blue",
    "great",
    "wave",
    "painting",
    "of",
    "a",
    "house",
    "poster",
    "movie",
    "night",
    "sky",
    "cover",
    "album",
    "city",
    "cat",
]
# (control, value), one after the other.
CHANGES = (
    ("#find", "wave"),
    ("#find", ""),
    ("#kind", "TM"),
    ("#copies", "some"),
    ("#order", "worst"),
    ("#view", "single"),
    ("#view", ""),
)
# Milliseconds from the change until the browser has laid out the next picture.
TIMED = """(selector, value) => new Promise((done) => {
  const start = performance.now();
  const control = document.querySelector(selector);
  control.value = value;
  control.dispatchEvent(new Event("input", {bubbles: true}));
  document.body.offsetHeight;
  requestAnimationFrame(() => done(performance.now() - start));
})"""


def make_up(folder: Path, prompts: int) -> Path:
    """Runs below the folder; returns that of their training images."""
    rng = np.random.default_rng(0)
    file = folder / "prompts.csv"
    rows = [
        {"Caption": " ".join(rng.choice(WORDS, 9)), "type": KINDS[i % len(KINDS)], "Index": i}
        for i in range(prompts)
    ]
    write_csv(file, rows)
    pictures = []
    for k in range(PICTURES):
        colors = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        pictures.append(folder / f"{k}.png")
        Image.fromarray(colors).resize((512, 512), Image.Resampling.BICUBIC).save(pictures[-1])
    for i in range(prompts):
        (folder / "gt" / str(i)).mkdir(parents=True)
        os.link(pictures[i % PICTURES], folder / "gt" / str(i) / "0.png")
    for number, method in enumerate(METHODS):
        make_run(folder, file, prompts, number, method, pictures, rng)
    return folder / "gt"


def make_run(
    folder: Path,
    file: Path,
    prompts: int,
    number: int,
    method: str,
    pictures: list[Path],
    rng: np.random.Generator,
) -> None:
    """One run with scores and magnitudes. number: of the run; file: of the prompts."""
    run = RunFolder(folder / "runs" / method / "g7_seed2")
    identity = {
        "prompts_sha256": sha256_of(file),
        "n_samples_per_prompt": SAMPLES,
        "seed": 2,
        "method": method,
    }
    run.prepare(identity)
    run.start(identity, config={"prompts": str(file), "model_id": "made/up"})
    images, results, trace = [], [], []
    for key in (Key(i, k) for i in range(prompts) for k in range(SAMPLES)):
        picture = pictures[(7 * key.prompt + key.sample + number) % PICTURES]
        os.link(picture, run.image_path(key))
        cost = {"prompt": "", "finite": 1, "unet_evals": 100 + 20 * number, "seconds": 1}
        images.append({**key.columns, **cost})
        copied = float(np.clip(rng.normal(0.8 - 0.2 * number, 0.2), -1, 1))
        for quantity, value in (("sscd", copied), ("clip_gen", float(rng.normal(0.3, 0.03)))):
            results.append(Result("g7_seed2", method, key.prompt, key.sample, quantity, "v", value))
        magnitudes = rng.uniform(1, 5, STEPS).tolist()
        trace += [
            {**key.columns, "step": step, "timestep": step, "magnitude": magnitude}
            for step, magnitude in enumerate(magnitudes)
        ]
    run.add("all", images=images, trace=trace)
    total = prompts * SAMPLES
    run.finish(images=total, of=total)
    add_results(run.path, results)


def timed(page: Path) -> None:
    """Opens the page, then changes its filters; prints how long each took."""
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        start = time.perf_counter()
        browser.open(page)
        print(f"opened in {time.perf_counter() - start:.2f} s")
        for selector, value in CHANGES:
            milliseconds = browser.ask(f"({TIMED})('{selector}', '{value}')")
            print(f"{selector} {value or 'all'}: {milliseconds:.0f} ms")
        assert not browser.errors, browser.errors


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--times", type=int, default=3, help="each in a browser of its own")
    parser.add_argument("--out", type=Path, help="an empty folder that stays")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as own:
        folder = args.out or Path(own)
        folder.mkdir(exist_ok=True)
        training = make_up(folder, args.prompts)
        start = time.perf_counter()
        page = report([folder / "runs"], folder / "page.html", gt_folder=training, quiet=True)
        print(f"{page.summary}, made in {time.perf_counter() - start:.0f} s")
        for _ in range(args.times):
            timed(page.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
