"""The main job on the embedded model: no mitigation, batch-wise and per-sample on equal seeds, scored, as one page.

python examples/demo.py               # what `make demo` runs; writes demo/report.html and prints a table
"""
from __future__ import annotations

import argparse
import base64
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import jinja2
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

import generation
from metrics.embedded import TINY, Caption, copied, read_captions, score_run
from pipelines.loading import load_pipeline
from pipelines.magnitudes import start_magnitudes
from results import Key, RunFolder
from results.files import read_csv, write_bytes

ROOT = Path(__file__).parent.parent
METHODS = {                               # heading -> flags
    "no mitigation": [],
    "batch-wise": ["--method", "adj_init_noise", "--batch_wise"],
    "per-sample": ["--method", "adj_init_noise", "--per_sample"],
}


@dataclass
class MethodRun:
    """A finished run of one method and its scores by image."""

    title: str
    folder: RunFolder
    copy_score: dict[Key, float]
    subject: dict[Key, float]
    rows: list[dict[str, str]]

    def line(self, captions: list[Caption]) -> dict:
        """One line of the table."""
        def copies(kind):
            scores = [copied(score) for key, score in self.copy_score.items() if captions[key.prompt].kind == kind]
            return f"{100 * statistics.mean(scores):.0f} %" if scores else "-"

        return {"method": self.title, **{f"copies {kind}": copies(kind) for kind in ("VM", "TM", "LM")},
                "subject shown": f"{100 * statistics.mean(self.subject.values()):.0f} %",
                "magnitude": f"{mean_of(self.rows, 'start_magnitude'):.3f}", "UNet rows / image": f"{mean_of(self.rows, 'unet_evals'):.1f}",
                "s / image": f"{mean_of(self.rows, 'seconds'):.2f}"}


def mean_of(rows: list[dict[str, str]], column: str) -> float:
    return statistics.mean(float(row[column]) for row in rows)


def run_method(title: str, flags: list[str], args, captions: list[Caption]) -> MethodRun:
    """Generates (or goes on) and scores. Exits with the command's code when it fails."""
    out = args.out / f"{args.model_id}_s{args.samples}_b{args.batch}"
    argv = ["--model_id", args.model_id, "--output_path", str(out), "--n_samples_per_prompt", str(args.samples), "-b", str(args.batch),
            "--end", str(len(captions)), "--save_latents", *flags]
    print(f"\n$ python generate_images.py {' '.join(argv)}", flush=True)
    code = generation.main(argv)
    if code:
        sys.exit(code)
    plan = generation.plan_of(argv)
    folder = RunFolder(plan.folder)
    found = score_run(folder, captions, args.samples)
    copy_score, subject = ({Key(row.prompt_index, row.sample_index): row.value for row in found if row.quantity == quantity}
                           for quantity in ("copy_score", "subject_shown"))
    rows = [row for row in read_csv(folder.path / "images.csv") if int(row["prompt_index"]) < len(captions)]
    return MethodRun(title, folder, copy_score, subject, add_magnitudes(args.model_id, folder, rows))


def add_magnitudes(model_id: str, folder: RunFolder, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows with `start_magnitude`, measured afterwards at the noise that sampling started from."""
    latents = [load_file(folder.latents_path(Key(int(row["prompt_index"]), int(row["sample_index"]))))["adjusted"] for row in rows]
    values = start_magnitudes(load_pipeline(model_id), [row["prompt"] for row in rows], torch.stack(latents))
    return [row | {"start_magnitude": str(value)} for row, value in zip(rows, values.tolist())]


def data_url(path: Path) -> str:
    """An image file as text that can stand in a page."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def report(path: Path, runs: list[MethodRun], captions: list[Caption], args) -> None:
    """Writes the page."""
    rows = []
    for caption in captions:
        cells = [[(data_url(run.folder.image_path(key)), run.copy_score[key], copied(run.copy_score[key]), bool(run.subject[key]))
                  for key in (Key(caption.row, k) for k in range(args.samples))] for run in runs]
        rows.append({"caption": caption, "reference": data_url(sorted((TINY / "gt_images" / caption.index).glob("*.png"))[0]), "cells": cells})
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("report.html.j2").render(rows=rows, runs=runs, table=[run.line(captions) for run in runs], args=args)
    write_bytes(path, page.encode())


def picture(path: Path, runs: list[MethodRun], captions: list[Caption], columns: int = 9, side: int = 96) -> None:
    """One row a method under the training images, for the first type B captions: what the README shows."""
    shown = [caption for caption in captions if caption.group == "B"][:columns] or captions[:columns]
    titles = ["training image", *(run.title for run in runs)]
    sheet = Image.new("RGB", (110 + len(shown) * (side + 4), len(titles) * (side + 4)), "white")
    for row, title in enumerate(titles):
        ImageDraw.Draw(sheet).text((4, row * (side + 4) + side // 2 - 6), title, fill="black", font_size=13)
        for column, caption in enumerate(shown):
            reference = sorted((TINY / "gt_images" / caption.index).glob("*.png"))[0]
            file = runs[row - 1].folder.image_path(Key(caption.row, 0)) if row else reference
            sheet.paste(Image.open(file).resize((side, side), Image.Resampling.LANCZOS), (110 + column * (side + 4), row * (side + 4)))
    sheet.save(path, optimize=True)


def print_table(lines: list[dict]) -> None:
    """The table as text."""
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
    for line in [{name: name for name in widths}, *lines]:
        print("  ".join(line[name].ljust(width) for name, width in widths.items()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_id", default="tiny", choices=["tiny", "tiny-v"])
    parser.add_argument("--samples", type=int, default=2, help="images per prompt")
    parser.add_argument("--batch", type=int, default=8, help="prompts per batch")
    parser.add_argument("--prompts", type=int, default=None, help="only the first so many prompts")
    parser.add_argument("--out", type=Path, default=ROOT / "demo")
    args = parser.parse_args(argv)
    captions = read_captions(TINY / "prompts" / f"{args.model_id}_memorized_test.csv")[:args.prompts]
    runs = [run_method(title, flags, args, captions) for title, flags in METHODS.items()]
    report(args.out / "report.html", runs, captions, args)
    picture(args.out / "picture.png", runs, captions)
    print(f"\n{len(captions)} memorized prompts x {args.samples} images of the embedded model {args.model_id!r} (not Stable Diffusion):\n")
    print_table([run.line(captions) for run in runs])
    print(f"\npage: {args.out / 'report.html'}")


if __name__ == "__main__":
    main()
