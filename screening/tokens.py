"""The subcommand tokens: which tokens of a prompt pull at the noise. Wen et al., ICLR 2024."""

from __future__ import annotations

import argparse
import sys

from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.files import write_csv
from memorization_suite.screening.study import Study, exit_code, plan_study, study_parser

SAMPLES, OFFICIAL = 4, ("swapped",)
Row = dict[str, str]


def build_parser() -> argparse.ArgumentParser:
    """All flags of the subcommand."""
    parser = study_parser(
        "tokens",
        "Token-wise significance: how strongly the magnitude of the text-conditional noise depends "
        "on each token's "
        "embedding, in the mean over steps and images.",
        SAMPLES,
    )
    parser.add_argument(
        "--num_steps",
        type=int,
        metavar="K",
        help="steps that are averaged, from the first (default all)",
    )
    parser.add_argument(
        "--official",
        default="",
        choices=("", *OFFICIAL),
        metavar="{swapped}",
        help="repeat the official code: reversed guidance, one norm over a prompt's images, the "
        "constant 1/(2n)",
    )
    return parser


class Tokens:
    """The scores of a study's prompts and their table."""

    def __init__(self, study: Study, args: argparse.Namespace, pipe):
        self.study, self.args, self.pipe = study, args, pipe
        self.rows: dict[int, list[Row]] = {}
        for row in study.folder.table("tokens"):
            self.rows.setdefault(int(row["prompt_index"]), []).append(row)

    def go(self) -> None:
        """Makes what is missing, a prompt at a time."""
        from tqdm import tqdm

        made, path = 0, self.study.folder.path / "tokens.csv"
        for prompt in tqdm(self.study.wanted, unit="prompt", disable=self.args.quiet):
            if prompt.row not in self.rows:
                made += 1
                texts, scores = self.look(prompt)
                self.study.folder.save_figure(
                    f"tokens_{prompt.row:04d}.png", bars(texts, scores, prompt.caption)
                )
                self.rows[prompt.row] = [
                    {
                        "prompt_index": str(prompt.row),
                        "token_index": str(i),
                        "token": text,
                        "score": f"{score:.7g}",
                    }
                    for i, (text, score) in enumerate(zip(texts, scores), 1)
                ]
                write_csv(path, (row for _, rows in sorted(self.rows.items()) for row in rows))
        print(f"{path}: {len(self.study.wanted)} prompts, {made} made now")

    def look(self, prompt: Prompt) -> tuple[list[str], list[float]]:
        """Texts of the prompt's tokens, and their scores: the mean over its images."""
        from memorization_suite.detection.tokens import token_significance, token_texts

        predictor, noise, _ = self.study.sample_start(self.pipe, prompt)
        scores = token_significance(
            self.pipe.scheduler,
            predictor,
            noise,
            self.study.settings.guidance_scale,
            num_steps=self.args.num_steps,
            official=self.args.official,
        ).mean(0)
        texts = token_texts(self.pipe.tokenizer, prompt.caption)
        return texts, scores[1 : 1 + len(texts)].tolist()


def bars(texts: list[str], scores: list[float], caption: str):
    """A bar for each token, in the prompt's order; all texts are drawn as they are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, 0.32 * len(texts) + 1), 3.6), layout="constrained")
    axis = figure.subplots()
    axis.bar(range(len(texts)), scores)
    axis.set_xticks(range(len(texts)), texts, rotation=60, ha="right", fontsize=8, parse_math=False)
    title = " ".join(caption.split())
    axis.set_title(title if len(title) <= 80 else title[:79] + "…", fontsize=9, parse_math=False)
    axis.set_ylabel("significance")
    return figure


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 done, 2 wrong arguments or input, 1 a fault while
    running.
    """
    argv = sys.argv[1:] if argv is None else argv
    args = build_parser().parse_args(argv)

    def prepare() -> Tokens:
        study = plan_study("tokens", args, SAMPLES)
        total = study.settings.num_inference_steps
        if args.num_steps is not None and not 1 <= args.num_steps <= total:
            raise ValueError(
                f"--num_steps {args.num_steps} is not possible: the sampler has {total} steps"
            )
        own = {
            "n_samples_per_prompt": study.settings.n_samples_per_prompt,
            "num_steps": args.num_steps or total,
            "official": args.official,
        }
        return Tokens(study, args, study.begin(args, argv, own))

    return exit_code("detect_memorization.py tokens", prepare, Tokens.go, "-n")
