"""The subcommand spectrum: eigenvalues of the Hessian along guided trajectories. Jeon et al., ICML
2025.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.files import write_csv
from memorization_suite.screening.study import Study, exit_code, plan_study, study_parser

if TYPE_CHECKING:
    import torch

    from memorization_suite.sampling import NoisePredictor

KINDS, OPERATORS = ("text", "uncond", "difference"), ("lanczos", "arnoldi")
SAMPLES = 1
Row = dict[str, str]
Key = tuple[
    int, int, int, int, int, int
]  # prompt, sample, step, kind, operator, index (summary: 0)


def build_parser() -> argparse.ArgumentParser:
    """All flags of the subcommand."""
    parser = study_parser(
        "spectrum",
        "Eigenvalues of the Hessian of the log density, on the guided trajectories of a prompt "
        "file.",
        SAMPLES,
    )
    parser.add_argument(
        "--at",
        type=int,
        nargs="+",
        default=[0],
        metavar="STEP",
        help="sampling steps, from 0 (default 0)",
    )
    parser.add_argument(
        "--iterations",
        "--num_steps_lanczos",
        type=int,
        default=50,
        metavar="M",
        help="length of a Lanczos or Arnoldi run (default 50); as many as a latent has values give "
        "the whole spectrum",
    )
    parser.add_argument(
        "--kind",
        nargs="+",
        choices=KINDS,
        default=list(KINDS),
        help="Hessian of the text score, of the unconditional one, "
        "or of their difference (default all)",
    )
    parser.add_argument(
        "--operator",
        nargs="+",
        choices=OPERATORS,
        default=["lanczos"],
        help="lanczos on (J + J^T) / 2, or arnoldi on J",
    )
    parser.add_argument(
        "-b",
        "--batch_size",
        type=int,
        default=4,
        help="vectors that go through the UNet together (default 4)",
    )
    parser.add_argument(
        "--probes",
        type=int,
        default=4,
        help="random vectors for the trace, the asymmetry and the estimated count (default 4)",
    )
    return parser


def check(args: argparse.Namespace, steps: int) -> None:
    """Raises ValueError for numbers that make no sense; sorts what is given as lists."""
    for flag, value in (
        ("iterations", args.iterations),
        ("probes", args.probes),
        ("batch_size", args.batch_size),
    ):
        if value < 1:
            raise ValueError(f"--{flag} {value} must be at least 1")
    for step in args.at:
        if not 0 <= step < steps:
            raise ValueError(f"--at {step} is no step of the sampler: there are 0 to {steps - 1}")
    args.at = sorted(set(args.at))
    args.kind, args.operator = (
        [name for name in known if name in given]
        for known, given in ((KINDS, args.kind), (OPERATORS, args.operator))
    )


def key(row: Row) -> Key:
    """What a row of a table is about; also their order."""
    prompt, sample, step, index = (
        int(row.get(name) or 0) for name in ("prompt_index", "sample_index", "step", "index")
    )
    return prompt, sample, step, KINDS.index(row["kind"]), OPERATORS.index(row["operator"]), index


class Spectra:
    """The spectra of a study's prompts and its two tables."""

    def __init__(self, study: Study, args: argparse.Namespace, pipe):
        self.study, self.args, self.pipe = study, args, pipe
        self.tables: dict[str, dict[Key, Row]] = {
            name: {key(row): row for row in study.folder.table(name)}
            for name in ("spectrum", "summary")
        }

    def is_done(self, prompt: Prompt) -> bool:
        """Is everything in the summary? It is written last."""
        samples, args = range(self.study.settings.n_samples_per_prompt), self.args
        return all(
            (prompt.row, sample, step, KINDS.index(kind), OPERATORS.index(operator), 0)
            in self.tables["summary"]
            for sample in samples
            for step in args.at
            for kind in args.kind
            for operator in args.operator
        )

    def go(self) -> None:
        """Makes what is missing, a prompt at a time, then the picture of all."""
        from tqdm import tqdm

        from memorization_suite.screening.spectrum_plots import counts, histogram

        made, folder = 0, self.study.folder
        for prompt in tqdm(self.study.wanted, unit="prompt", disable=self.args.quiet):
            if self.is_done(prompt):
                continue
            made += 1
            self.save(self.look(prompt))
            rows = [row for one, row in self.tables["spectrum"].items() if one[0] == prompt.row]
            for step in sorted({int(row["step"]) for row in rows}):
                shown = [row for row in rows if int(row["step"]) == step]
                folder.save_figure(
                    f"histogram_{prompt.row:04d}_step{step:03d}.png",
                    histogram(shown, prompt.caption),
                )
        types = {prompt.row: prompt.type for prompt in self.study.prompts}
        folder.save_figure("counts.png", counts(list(self.tables["summary"].values()), types))
        print(f"{folder.path / 'summary.csv'}: {len(self.study.wanted)} prompts, {made} made now")
        print("\n".join(self.report(types)))

    def report(self, types: dict[int, str]) -> list[str]:
        """A line for each kind, step, operator and type of prompt: mean number of non-negative
        eigenvalues.
        """
        from memorization_suite.screening.spectrum_plots import best_count

        groups: dict[tuple, list[float]] = {}
        for (prompt, _, step, kind, operator, _), row in sorted(self.tables["summary"].items()):
            groups.setdefault((step, kind, operator, types.get(prompt, "")), []).append(
                best_count(row)
            )
        return [
            f"step {step}, {KINDS[kind]}, {OPERATORS[operator]}{f', {name}' if name else ''}: "
            f"{sum(values) / len(values):.4g} non-negative "
            f"eigenvalues in the mean of {len(values)}"
            for (step, kind, operator, name), values in groups.items()
        ]

    def look(self, prompt: Prompt) -> dict[str, list[Row]]:
        """Rows of one prompt for both tables."""
        predictor, noise, seeds = self.study.sample_start(self.pipe, prompt)
        rows: dict[str, list[Row]] = {"spectrum": [], "summary": []}
        for step, t, x in visited(
            self.pipe.scheduler, predictor, noise, self.study.settings.guidance_scale, self.args.at
        ):
            for kind in self.args.kind:
                for operator, found, evals, seconds in self.spectra(predictor, x, t, kind, seeds):
                    for k in range(len(x)):
                        name = {
                            "prompt_index": str(prompt.row),
                            "sample_index": str(k),
                            "step": str(step),
                            "timestep": f"{float(t):.7g}",
                            "kind": kind,
                            "operator": operator,
                        }
                        rows["spectrum"] += [
                            name | {"index": str(i), "eigenvalue": f"{value:.7g}"}
                            for i, value in enumerate(found.eigenvalues[k])
                        ]
                        rows["summary"].append(
                            name
                            | numbers(found, k)
                            | {"rows": str(int(evals[k])), "seconds": f"{seconds / len(x):.4g}"}
                        )
        return rows

    def spectra(self, predictor: NoisePredictor, x: torch.Tensor, t, kind: str, seeds: list[int]):
        """Of each operator: name, spectrum, UNet rows of each image and seconds of all. The
        operators share the probes, but each counts them.
        """
        from memorization_suite.detection.spectrum import ScoreJacobian, probe, spectrum

        jacobian = ScoreJacobian(predictor, x, t, kind, at_once=self.args.batch_size)
        start, before = time.perf_counter(), predictor.unet_evals.clone()
        probes = probe(jacobian, self.args.probes, seeds, x[0].numel(), x.device)
        shared, spent = time.perf_counter() - start, predictor.unet_evals - before
        for operator in self.args.operator:
            start, before = time.perf_counter(), predictor.unet_evals.clone()
            found = spectrum(jacobian, probes, operator, self.args.iterations)
            yield (
                operator,
                found,
                spent + predictor.unet_evals - before,
                shared + time.perf_counter() - start,
            )

    def save(self, rows: dict[str, list[Row]]) -> None:
        """Rows of one prompt into both tables; older ones of the same keys go."""
        for name, fresh in rows.items():
            self.tables[name] |= {key(row): row for row in fresh}
            write_csv(
                self.study.folder.path / f"{name}.csv",
                (row for _, row in sorted(self.tables[name].items())),
            )


def visited(
    scheduler, predictor, noise: torch.Tensor, guidance_scale: float, at: list[int]
) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """(step, t, x) at the wanted steps of the guided trajectory; x: what the UNet reads, (n, 4, h,
    w) float32. Two UNet rows a step but the last.
    """
    import torch

    from memorization_suite.sampling import GuidanceSchedule
    from memorization_suite.sampling.loop import steps

    found = []

    def on_step(step, prediction) -> None:
        if step.index in at:
            found.append((step.index, step.t, prediction.x.float()))

    with torch.no_grad():
        steps(
            scheduler,
            predictor,
            noise * scheduler.init_noise_sigma,
            GuidanceSchedule(),
            guidance_scale,
            on_step,
            watched=max(at) + 1,
        )
    return found


def numbers(found, k: int) -> Row:
    """An image's columns of summary.csv. exact: are these all eigenvalues? A number that there is
    not is empty.
    """
    values = {
        "nonnegative": found.nonnegative[k],
        "nonnegative_estimate": found.estimate[k],
        "nonnegative_error": found.estimate_error[k],
        "most_negative": found.eigenvalues[k, 0],
        "most_positive": found.eigenvalues[k, -1],
        "trace": found.trace[k],
        "trace_error": found.trace_error[k],
        "asymmetry": found.asymmetry[k],
    }
    shown = {name: "" if value != value else f"{value:.7g}" for name, value in values.items()}
    return {"iterations": str(found.eigenvalues.shape[1]), "exact": str(int(found.exact)), **shown}


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)

    def prepare() -> Spectra:
        study = plan_study("spectrum", args, SAMPLES)
        check(args, study.settings.num_inference_steps)
        pipe = study.begin(args, argv, {"iterations": args.iterations, "probes": args.probes})
        return Spectra(study, args, pipe)

    return exit_code("detect_memorization.py spectrum", prepare, Spectra.go, "--batch_size")
