"""The main job on the embedded model: no mitigation, batch-wise and per-sample on equal seeds,
scored, as one page.

python examples/demo.py               # what `make demo` runs; writes demo/report.html and prints a
table
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from memorization_suite import ROOT, tiny
from memorization_suite.commands.report import report
from memorization_suite.experiments.common import parser
from memorization_suite.experiments.scored_run import ScoredRun, is_kind, load_once, scored_run
from memorization_suite.metrics.embedded import Caption
from memorization_suite.runs.run_folder import Key
from memorization_suite.runs.text import table_text

# Heading -> flags of generate_images.py.
METHODS = {
    "no mitigation": {},
    "batch-wise": {"method": "adj_init_noise", "batch_wise": True},
    "per-sample": {"method": "adj_init_noise", "per_sample": True},
}
COLUMNS = 9  # of the picture
SIDE = 96  # of an image in it, in pixels
HEADING = 110  # width of a row's name


def table_line(title: str, run: ScoredRun, pipe) -> dict[str, str]:
    """One line of the table."""
    run.add_magnitudes(pipe)
    copies = {}
    for kind in ("VM", "TM", "LM"):
        copies[f"copies {kind}"] = percent(run.only(is_kind(kind)).copies())
    return {
        "method": title,
        **copies,
        "subject shown": percent(run.average("subject_shown")),
        "magnitude": f"{run.average('magnitude'):.3f}",
        "NFE / image": f"{run.column('unet_evals'):.1f}",
        "s / image": f"{run.column('seconds'):.2f}",
    }


def percent(share: float | None) -> str:
    """`71 %`; a dash for nothing."""
    return "-" if share is None else f"{100 * share:.0f} %"


def picture(path: Path, runs: dict[str, ScoredRun], captions: list[Caption]) -> None:
    """One row a method under the training images, for the first type B captions.

    It is what the README shows.
    """
    type_b = [caption for caption in captions if caption.group == "B"]
    shown = (type_b or captions)[:COLUMNS]
    rows = {"training image": [tiny.GT_IMAGES / caption.index / "00.png" for caption in shown]}
    for title, run in runs.items():
        rows[title] = [run.folder.image_path(Key(caption.row, 0)) for caption in shown]
    cell = SIDE + 4
    sheet = Image.new("RGB", (HEADING + len(shown) * cell, len(rows) * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (title, files) in enumerate(rows.items()):
        y = row * cell
        draw.text((4, y + SIDE // 2 - 6), title, fill="black", font_size=13)
        for column, file in enumerate(files):
            image = Image.open(file).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(image, (HEADING + column * cell, y))
    sheet.quantize(256).save(path, optimize=True)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    flags = parser(__doc__)
    flags.add_argument("--model_id", default="tiny", choices=list(tiny.MODELS))
    flags.add_argument("--samples", type=int, default=2, help="images per prompt")
    flags.add_argument("--batch", type=int, default=8, help="prompts per batch")
    flags.add_argument("--prompts", type=int, default=None, help="only the first so many prompts")
    flags.add_argument("--out", type=Path, default=ROOT / "demo")
    args = flags.parse_args(argv)
    args.out.mkdir(exist_ok=True)
    runs = {}
    for title, flags in METHODS.items():
        runs[title] = scored_run(
            args,
            "memorized_test",
            batch_size=args.batch,
            end=args.prompts,
            save_latents=True,
            **flags,
        )
    captions = runs["no mitigation"].captions
    pipe = load_once(args.model_id)
    table = [table_line(title, run, pipe) for title, run in runs.items()]
    picture(args.out / "picture.png", runs, captions)
    print(
        f"\n{len(captions)} memorized prompts x {args.samples} images of the embedded model "
        f"{args.model_id!r} (not Stable Diffusion):\n"
    )
    print(table_text(table))
    page = report(
        [run.folder.path for run in runs.values()],
        args.out / "report.html",
        title=f"Initial-noise adjustment on the embedded model {args.model_id}",
        max_prompts=len(captions),
        samples=args.samples,
    )
    print(f"\npage: {page.summary}")


if __name__ == "__main__":
    main()
