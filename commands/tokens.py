"""The study `tokens`: which tokens of a prompt pull at the noise.

*Source:* Wen et al., ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from memorization_suite.commands.study import Study, StudySettings
from memorization_suite.detection.tokens import token_significance
from memorization_suite.prompts.files import Prompt
from memorization_suite.runs.plots import new_figure, plain, shorter
from memorization_suite.runs.settings import again, flag, frozen_settings, quirks
from memorization_suite.runs.tables import whole
from memorization_suite.runs.text import counted, first_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@frozen_settings
class TokenSettings(StudySettings):
    """The flags of `detect_memorization.py tokens`."""

    study = "tokens"
    about = (
        "Token-wise significance: how strongly the magnitude of the text-conditional noise depends "
        "on each token's embedding, in the mean over steps and images."
    )

    n_samples_per_prompt: int = again(
        StudySettings, "n_samples_per_prompt", default=4, preset=False
    )
    num_steps: int | None = flag(
        None, "steps that are averaged, from the first (default all)", preset=False, metavar="K"
    )
    official: str = quirks(
        swapped="reversed guidance, one norm over a prompt's images, the constant 1/(2n)"
    )

    def resolved(self) -> TokenSettings:
        total = self.num_inference_steps
        num_steps = total if self.num_steps is None else self.num_steps
        if not 1 <= num_steps <= total:
            raise ValueError(
                f"--num_steps {num_steps} is not possible: the sampler has {total} steps"
            )
        return replace(self, num_steps=num_steps)


class Tokens(Study):
    """`tokens.csv`, a bar plot a prompt."""

    kind = TokenSettings
    files = ("tokens_*.png",)
    tables = {"tokens": lambda row: whole(row, "prompt_index")}
    numbers = {"tokens": ("token_index", "score")}

    def __str__(self) -> str:
        broken = [row for row in self.rows("tokens") if not math.isfinite(float(row["score"]))]
        if not broken:
            return super().__str__()
        prompts = dict.fromkeys(f"prompt {row['prompt_index']}" for row in broken)
        tokens = counted(len(broken), "token")
        return f"{super().__str__()}; {tokens} without a finite score: {first_of(list(prompts))}"

    def keys(self, prompt: Prompt) -> list[int]:
        return [prompt.row]

    def whole_rows(self) -> set[int]:
        """The prompts with a row for every token."""
        found = self.merged("tokens")[0]
        whole = set()
        for prompt in self.wanted:
            texts = self.model.token_texts(prompt.caption)
            if len(found.get(prompt.row, ())) == len(texts):
                whole.add(prompt.row)
        return whole

    def pictures(self, prompt: Prompt) -> list[str]:
        return [f"tokens_{prompt.row:04d}.png"]

    def make(self, prompt: Prompt) -> None:
        texts, scores = self.look(prompt)
        (name,) = self.pictures(prompt)
        self.save_figure(name, partial(bars, texts, scores, prompt.caption))
        rows = [
            {
                "prompt_index": prompt.row,
                "token_index": i,
                "token": text,
                "score": f"{score:.7g}",
            }
            for i, (text, score) in enumerate(zip(texts, scores), 1)
        ]
        self.add(f"{prompt.row:06d}", tokens=rows)

    def look(self, prompt: Prompt) -> tuple[list[str], list[float]]:
        """Texts of the prompt's tokens, and their scores: the mean over its images."""
        settings = self.settings
        _, predictor, noise = self.images_of(prompt)
        scores = token_significance(
            predictor,
            noise,
            settings.guidance_scale,
            num_steps=settings.num_steps,
            official=settings.official,
        ).mean(0)
        texts = self.model.token_texts(prompt.caption)
        return texts, scores[1 : 1 + len(texts)].tolist()


def tokens(*, load: Callable | None = None, **typed: Any) -> Tokens:
    """How much each token of a prompt file's prompts matters. typed: flags of
    `detect_memorization.py tokens`.

    load: in the place of `load_pipeline`. Raises ValueError for what the user can mend.
    """
    return Tokens(**typed).run(load)


def bars(texts: list[str], scores: list[float], caption: str) -> Figure:
    """A bar for each token, in the prompt's order; all texts are drawn as they are."""
    figure = new_figure(2.2, max(2.6, 0.2 * len(texts) + 0.6))
    axis = figure.subplots()
    axis.bar(range(len(texts)), scores)
    axis.set_xticks(range(len(texts)), map(plain, texts), rotation=60, ha="right")
    axis.set_title(shorter(caption, 80))
    axis.set_ylabel("significance")
    return figure
