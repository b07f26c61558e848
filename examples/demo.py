"""The main job on the embedded model: no mitigation, batch-wise and per-sample on equal seeds,
scored, as one page.

python examples/demo.py               # what `make demo` runs: a part of the test captions
python examples/demo.py --full        # `make demo FULL=1`: all of them
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from memorization_suite import ROOT, tiny
from memorization_suite.commands.report import Page, report
from memorization_suite.experiments.scored_run import ScoredRun, is_kind, load_once, scored_run
from memorization_suite.metrics.embedded import Caption, read_captions
from memorization_suite.runs.cli import RESUMES, Parser, add_flags, command
from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.lazy import Image, Lazy
from memorization_suite.runs.progress import next_step, to_open
from memorization_suite.runs.run_folder import Key
from memorization_suite.runs.settings import Settings, flag, frozen_settings
from memorization_suite.runs.text import table_text

ImageDraw = Lazy("PIL.ImageDraw")
# Heading -> flags of generate_images.py.
METHODS = {
    "no mitigation": {},
    "batch-wise": {"method": "adj_init_noise", "batch_wise": True},
    "per-sample": {"method": "adj_init_noise", "per_sample": True},
}
SPLIT = "memorized_test"
SHARE = 0.3  # of the captions of each kind and group, unless all are asked for
COLUMNS = 9  # of the picture
SIDE = 96  # of an image in it, in pixels
HEADING = 110  # width of a row's name


@frozen_settings
class Demo(Settings):
    """The flags of demo.py."""

    full: bool = flag(False, "all test captions")
    model_id: str = flag("tiny", "embedded model", choices=tuple(tiny.MODELS))
    samples: int = flag(2, "images per prompt", at_least=1)
    batch: int = flag(8, "prompts per batch", at_least=1)
    prompts: int | None = flag(None, "only the first so many test captions", at_least=1)
    out: Path = flag(ROOT / "demo", "folder of the page and the runs")


# --- captions ---


def chosen_file(settings: Demo) -> Path:
    """The prompt file of the demo: the model's own, or a part of it, written into the folder.

    Raises ValueError for more captions than there are.
    """
    whole = tiny.prompts(settings.model_id, SPLIT)
    captions = read_captions(whole)
    if settings.prompts and settings.prompts > len(captions):
        raise ValueError(f"--prompts {settings.prompts}: there are {len(captions)} test captions")
    if settings.full or settings.prompts:
        return whole
    chosen = some_of_each(captions)
    header, *lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join([header, *(lines[caption.row] for caption in chosen)])
    part = settings.out / f"{whole.stem}_{len(chosen)}of{len(captions)}.csv"
    write_bytes(part, text.encode())
    return part


def some_of_each(captions: list[Caption]) -> list[Caption]:
    """The same share of every kind and group, one or more, evenly spread."""

    def group(caption: Caption) -> tuple[str, str]:
        return caption.kind, caption.group

    chosen = []
    for _, members in groupby(sorted(captions, key=group), key=group):
        alike = list(members)
        count = max(1, round(SHARE * len(alike)))
        chosen += [alike[i * len(alike) // count] for i in range(count)]
    return sorted(chosen, key=lambda caption: caption.row)


def told(captions: list[Caption], settings: Demo) -> str:
    """How many captions there are, and how one gets all."""
    total = len(read_captions(tiny.prompts(settings.model_id, SPLIT)))
    if len(captions) == total:
        return f"all {total} test captions"
    return f"{len(captions)} of the {total} test captions; make demo FULL=1 makes all"


# --- what is shown ---


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

    Of the full demo it is what the README shows.
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


# --- the work ---


def make(settings: Demo) -> Page:
    """Makes what is missing, prints the table, writes the page. Raises ValueError, OSError."""
    settings.out.mkdir(exist_ok=True)
    file = chosen_file(settings)
    runs = {}
    for title, flags in METHODS.items():
        runs[title] = scored_run(
            settings,
            SPLIT,
            prompts=file,
            batch_size=settings.batch,
            end=settings.prompts,
            save_latents=True,
            **flags,
        )
    captions = runs["no mitigation"].captions
    pipe = load_once(settings.model_id)
    table = [table_line(title, run, pipe) for title, run in runs.items()]
    picture(settings.out / "picture.png", runs, captions)
    how_many = told(captions, settings)
    print(
        f"\n{how_many}, {settings.samples} images each, of the embedded model "
        f"{settings.model_id!r} (not Stable Diffusion):\n"
    )
    print(table_text(table))
    return report(
        [run.folder.path for run in runs.values()],
        settings.out / "report.html",
        title=f"Initial-noise adjustment on the embedded model {settings.model_id}: {how_many}",
        max_prompts=len(captions),
        samples=settings.samples,
    )


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = Parser("demo.py", "Three methods on equal noise, scored, as one page.")
    add_flags(parser, Demo)
    typed = parser.typed(argv)

    def work() -> None:
        page = make(Demo(**typed))
        print(f"\npage: {page.summary}")
        next_step(to_open(page.path))

    return command(parser.prog, work, after=RESUMES)


if __name__ == "__main__":
    sys.exit(main())
