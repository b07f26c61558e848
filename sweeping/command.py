"""The command line of sweep.py: runs, scores, one page."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import memorization_suite.generation
from memorization_suite.metrics.command import Parser, guarded, run_script
from memorization_suite.pipelines import loading
from memorization_suite.reporting.command import main as make_report
from memorization_suite.runs import RunFolder
from memorization_suite.runs.files import write_json
from memorization_suite.sweeping.plan import Entry, plan_sweep

EPILOG = (
    "Other flags are those of generate_images.py, for every run: sweep.py FILE.toml --model_id "
    "tiny --end 8. "
    "A stopped sweep goes on; a finished run is not made or scored again."
)


def build_parser() -> Parser:
    """All flags."""
    parser = Parser(
        prog="sweep.py",
        description="Runs a list or grid of settings, scores the images, and writes one page.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE.toml",
        help="[common] flags of all runs, [[run]] tables; a list stands for one run a value",
    )
    parser.add_argument(
        "--output_path",
        type=Path,
        help="folder of the runs (default sweep_results/<name of the file>)",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands, and do nothing")
    parser.add_argument("--no_scores", action="store_true", help="only the images")
    parser.add_argument(
        "--rescore",
        action="store_true",
        help="score all runs again, for example with checkpoints that were fetched since",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def generate(entries: list[Entry], *, quiet: bool) -> None:
    """Makes what is missing; a model is loaded once for neighbours that share it. Raises ValueError
    or OSError at the first run that fails.
    """
    load = functools.lru_cache(maxsize=1)(loading.load_pipeline)
    for number, entry in enumerate(entries, 1):
        print(f"[{number}/{len(entries)}] {entry.name}", flush=True)
        code = memorization_suite.generation.main(
            [*entry.argv, *(["--quiet"] if quiet else [])], load
        )
        if code:
            raise (ValueError if code == 2 else OSError)(
                f"run {number} of {len(entries)} ({entry.name}) was not made, see above"
            )


def score(entries: list[Entry], record: Path, *, again: bool) -> None:
    """Runs both metric scripts on the runs whose images they have not seen; what they say of
    missing checkpoints is said once.

    record: a file that keeps, for each run, when the images were finished that were scored. Raises
    ValueError or OSError when a script fails.
    """
    from memorization_suite.metrics.compute_lpips_imagereward import SCRIPT as DIVERSITY
    from memorization_suite.metrics.compute_sscd_orig_clip_score import SCRIPT as COPIES

    seen = {} if again or not record.exists() else json.loads(record.read_text(encoding="utf-8"))
    told: set[str] = set()
    for number, entry in enumerate(entries, 1):
        folder, settings = entry.plan.folder, entry.plan.settings
        finished = (RunFolder(folder).manifest() or {}).get("finished")
        if seen.get(str(folder)) == finished and (folder / "results.csv").exists():
            continue
        print(f"[{number}/{len(entries)}] scores of {entry.name}", flush=True)
        for script in (COPIES, DIVERSITY):
            argv = [
                "--gen_folder",
                str(folder),
                "--prompts",
                settings.prompts,
                "--device",
                settings.device,
                "--quiet",
            ]
            code = quietly(lambda script=script, argv=argv: run_script(script, argv), told)
            if code:
                raise (ValueError if code == 2 else OSError)(f"{folder} was not scored, see above")
        seen[str(folder)] = finished
        write_json(record, seen)


def quietly(work: Callable[[], int], told: set[str]) -> int:
    """Runs it without its tables, and without lines on stderr that were told before; adds the new
    ones. Returns its code.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            return work()
    finally:
        for line in said.getvalue().splitlines():
            if line.strip() and line not in told:
                print(line, file=sys.stderr)
            told.add(line)


def sweep(args: argparse.Namespace, more: list[str]) -> None:
    """Everything. Raises ValueError for what the user can mend, OSError when a run failed."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a sweep is one process; divide the images of one run over GPUs with `accelerate "
            "launch generate_images.py ...`"
        )
    if args.file.suffix != ".toml":
        raise ValueError(f"{args.file} is no sweep file: FILE.toml comes first, then the flags")
    out = args.output_path or Path("sweep_results") / args.file.stem
    entries = plan_sweep(args.file, out, more)
    if args.dry_run:
        for entry in entries:
            print(shlex.join(["python", "generate_images.py", *entry.argv]))
        return
    generate(entries, quiet=args.quiet)
    if args.no_scores:
        return
    score(entries, out / "scored.json", again=args.rescore)
    code = make_report(
        [
            *(str(entry.plan.folder) for entry in entries),
            "--out",
            str(out / "report.html"),
            "--title",
            f"Sweep {args.file.stem}",
        ]
    )
    if code:
        raise (ValueError if code == 2 else OSError)("the report was not written, see above")


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    args, more = build_parser().parse_known_args(sys.argv[1:] if argv is None else argv)
    return guarded("sweep.py", lambda: sweep(args, more))
