"""The trade-off of scored runs: copy similarity against text alignment, a line a method, with 95 %
intervals over prompts.

python metrics/plot_tradeoff.py RUN [RUN ...] --out tradeoff.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from memorization_suite.metrics.command import Parser, guarded
from memorization_suite.runs.files import write_bytes, write_csv

COPY, ALIGNMENT = (
    ("sscd", "copy_score"),
    ("clip_gen", "subject_probability", "subject_shown"),
)  # the first that all runs have


def build_parser() -> Parser:
    """All flags."""
    parser = Parser(prog="plot_tradeoff.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="scored run folder")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tradeoff.png"),
        help="the figure; its points go into NAME_points.csv beside it",
    )
    parser.add_argument(
        "--x", help=f"copy similarity (default: the first of {', '.join(COPY)} that every run has)"
    )
    parser.add_argument(
        "--y", help=f"alignment (default: the first of {', '.join(ALIGNMENT)} that every run has)"
    )
    return parser


def points(runs: list[Path], x: str | None, y: str | None) -> tuple[str, str, list[dict]]:
    """(name of x, name of y, a row a run). Raises ValueError when the runs have no such quantities
    in common.
    """
    from memorization_suite.metrics.summary import summarise

    lines = {
        run: {line.quantity: line for line in summarise(run) if line.split == "all" and line.n}
        for run in runs
    }
    chosen = [
        pick(lines, wanted, (name,) if name else defaults, flag)
        for name, defaults, flag, wanted in (
            (x, COPY, "--x", "copy similarity"),
            (y, ALIGNMENT, "--y", "alignment"),
        )
    ]
    rows = []
    series = series_of(runs)
    for run, own in lines.items():
        a, b = own[chosen[0]], own[chosen[1]]
        rows.append(
            {
                "method": a.method,
                "series": series[run],
                "run": a.run,
                f"{chosen[0]} variant": a.variant,
                "x": a.mean,
                "x_low": a.low,
                "x_high": a.high,
                f"{chosen[1]} variant": b.variant,
                "y": b.mean,
                "y_low": b.low,
                "y_high": b.high,
            }
        )
    return chosen[0], chosen[1], rows


def series_of(runs: list[Path]) -> dict[Path, str]:
    """What a run's line is of: its method, and general settings in which the runs differ."""
    from memorization_suite.metrics.runs import config_of

    configs = {run: config_of(run) for run in runs}
    general = ("model_id", "num_inference_steps", "guidance_scale", "seed")
    differing = [
        name for name in general if len({repr(config.get(name)) for config in configs.values()}) > 1
    ]
    return {
        run: ", ".join([run.parent.name, *(f"{name} {config.get(name)}" for name in differing)])
        for run, config in configs.items()
    }


def pick(lines: dict[Path, dict], what: str, names: tuple[str, ...], flag: str) -> str:
    """The first quantity that every run has, in one variant. Raises ValueError."""
    for name in names:
        variants = {own[name].variant if name in own else None for own in lines.values()}
        if len(variants) == 1 and None not in variants:
            return name
    lacking = next(
        (run for run, own in lines.items() if not any(name in own for name in names)), None
    )
    why = (
        f"{lacking} has none of {', '.join(names)}: score it first"
        if lacking
        else "their variants differ, and such numbers do not compare"
    )
    raise ValueError(f"no {what} ({flag}) that all runs share: {why}")


def draw(x: str, y: str, rows: list[dict], kind: str = "png") -> bytes:
    """The figure as a file of that kind. A series keeps one colour; its runs are joined in the
    order of x.
    """
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 6))
    series = list(dict.fromkeys(row["series"] for row in rows))
    colours = pyplot.get_cmap("tab10" if len(series) <= 10 else "tab20").colors
    for i, name in enumerate(series):
        own = sorted((row for row in rows if row["series"] == name), key=lambda row: row["x"])
        bars = [
            [
                [max(row[a] - row[f"{a}_low"], 0) for row in own],
                [max(row[f"{a}_high"] - row[a], 0) for row in own],
            ]
            for a in "xy"
        ]
        axes.errorbar(
            [row["x"] for row in own],
            [row["y"] for row in own],
            xerr=bars[0],
            yerr=bars[1],
            marker="o",
            markersize=4,
            elinewidth=0.5,
            label=name.replace("$", r"\$"),
            color=colours[i % len(colours)],
        )
    axes.set(
        xlabel=f"{x} (less is less memorized)",
        ylabel=f"{y} (more is better)",
        title="means over prompts, 95 % intervals",
    )
    axes.legend(fontsize=7, ncols=2)
    data = io.BytesIO()
    figure.savefig(data, format=kind, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return data.getvalue()


def plot(runs: list[Path], out: Path, x: str | None, y: str | None) -> None:
    """Writes the figure and its points. Raises ValueError for what the user can mend."""
    for run in runs:
        if not (run / "results.csv").is_file():
            raise ValueError(
                f"{run} has no results.csv: score it first with the compute_*.py scripts"
            )
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}")
    x_name, y_name, rows = points(runs, x, y)
    write_bytes(out, draw(x_name, y_name, rows, out.suffix.lstrip(".") or "png"))
    write_csv(out.with_name(f"{out.stem}_points.csv"), rows)
    print(f"{out}: {y_name} against {x_name} of {len(rows)} runs")


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    args = build_parser().parse_args(sys.argv[1:] if argv is None else argv)
    return guarded(
        "plot_tradeoff.py",
        lambda: plot([run.resolve() for run in args.runs], args.out.resolve(), args.x, args.y),
    )


if __name__ == "__main__":
    sys.exit(main())
