"""The main job on the embedded model: no mitigation, batch-wise and per-sample on equal seeds,
scored, as one page.

python examples/demo.py               # what `make demo` runs; writes demo/report.html and prints a
table
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from memorization_suite import ROOT
from memorization_suite.benchmarks.scored_run import ScoredRun, mean, scored_run
from memorization_suite.metrics.embedded import TINY, Caption
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.reporting.command import main as make_report
from memorization_suite.runs import Key

METHODS = {  # heading -> flags
    "no mitigation": [],
    "batch-wise": ["--method", "adj_init_noise", "--batch_wise"],
    "per-sample": ["--method", "adj_init_noise", "--per_sample"],
}


def table_line(title: str, run: ScoredRun, pipe) -> dict[str, str]:
    """One line of the table."""

    def percent(value):
        return "-" if value is None else f"{100 * value:.0f} %"

    copies = {
        f"copies {kind}": percent(run.copies(lambda caption, kind=kind: caption.kind == kind))
        for kind in ("VM", "TM", "LM")
    }
    return {
        "method": title,
        **copies,
        "subject shown": percent(run.shown()),
        "magnitude": f"{mean(run.magnitudes(pipe).values()):.3f}",
        "UNet rows / image": f"{run.column('unet_evals'):.1f}",
        "s / image": f"{run.column('seconds'):.2f}",
    }


def reference_of(caption: Caption) -> Path:
    """Its first training image."""
    return sorted((TINY / "gt_images" / caption.index).glob("*.png"))[0]


def picture(
    path: Path,
    runs: dict[str, ScoredRun],
    captions: list[Caption],
    columns: int = 9,
    side: int = 96,
) -> None:
    """One row a method under the training images, for the first type B captions: what the README
    shows.
    """
    shown = [caption for caption in captions if caption.group == "B"][:columns] or captions[
        :columns
    ]
    files = {
        "training image": [reference_of(caption) for caption in shown],
        **{
            title: [run.folder.image_path(Key(caption.row, 0)) for caption in shown]
            for title, run in runs.items()
        },
    }
    sheet = Image.new("RGB", (110 + len(shown) * (side + 4), len(files) * (side + 4)), "white")
    for row, (title, row_files) in enumerate(files.items()):
        ImageDraw.Draw(sheet).text(
            (4, row * (side + 4) + side // 2 - 6), title, fill="black", font_size=13
        )
        for column, file in enumerate(row_files):
            sheet.paste(
                Image.open(file).resize((side, side), Image.Resampling.LANCZOS),
                (110 + column * (side + 4), row * (side + 4)),
            )
    sheet.quantize(256).save(path, optimize=True)


def print_table(lines: list[dict]) -> None:
    """The table as text."""
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in lines[0]}
    for line in [{name: name for name in widths}, *lines]:
        print("  ".join(line[name].ljust(width) for name, width in widths.items()))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_id", default="tiny", choices=["tiny", "tiny-v"])
    parser.add_argument("--samples", type=int, default=2, help="images per prompt")
    parser.add_argument("--batch", type=int, default=8, help="prompts per batch")
    parser.add_argument("--prompts", type=int, default=None, help="only the first so many prompts")
    parser.add_argument("--out", type=Path, default=ROOT / "demo")
    args = parser.parse_args(argv)
    args.out.mkdir(exist_ok=True)
    runs = {
        title: scored_run(
            args.model_id,
            "memorized_test",
            args.out,
            [*flags, "--save_latents"],
            samples=args.samples,
            batch=args.batch,
            end=args.prompts,
        )
        for title, flags in METHODS.items()
    }
    captions, pipe = next(iter(runs.values())).captions, load_pipeline(args.model_id)
    table = [table_line(title, run, pipe) for title, run in runs.items()]
    picture(args.out / "picture.png", runs, captions)
    print(
        f"\n{len(captions)} memorized prompts x {args.samples} images of the embedded model "
        f"{args.model_id!r} (not Stable Diffusion):\n"
    )
    print_table(table)
    print("\npage: ", end="")
    code = make_report(
        [
            *(str(run.folder.path) for run in runs.values()),
            "--out",
            str(args.out / "report.html"),
            "--max_prompts",
            str(len(captions)),
            "--samples",
            str(args.samples),
            "--title",
            f"Initial-noise adjustment on the embedded model {args.model_id}",
        ]
    )
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
