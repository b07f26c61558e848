"""The images that are sampled together, as a method sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from memorization_suite.runs.lazy import torch
from memorization_suite.sampling.denoiser import Unusable
from memorization_suite.sampling.noise import image_seed, prompt_seed, stream

if TYPE_CHECKING:
    from memorization_suite.sampling.denoiser import Denoiser
    from memorization_suite.sampling.guidance import Step
    from memorization_suite.sampling.noise_predictor import Prediction

PlainRun = Callable[["Callable[[Step, Prediction], None] | None"], "torch.Tensor"]


@dataclass
class Batch:
    """What belongs to images; entry i of every list belongs to image i."""

    prompts: list[str]
    # For what a method draws for one image.
    seeds: list[int]
    # For what all images of a prompt share; equal seeds mean one prompt.
    prompt_seeds: list[int]
    # Other captions of the same meaning, where the prompt file has some.
    alternatives: list[tuple[str, ...]]
    # The run's own seed where noise is drawn as an official script does, else None: such a script
    # seeds its draws with it, for every prompt anew.
    official_seed: int | None = None
    # Takes the empty prompt's place, for all images.
    negative_prompt: str = ""
    # For schedulers that draw noise at every step; one, or one an image.
    generator: Any = None
    # What they are sampled with, for the hook edit_prompts.
    model: Denoiser | None = None
    # Samples the batch with plain guidance from the noise as drawn, for methods that look before
    # they act; its NFE count.
    plain_run: PlainRun | None = None
    # e(x, t) at the first timestep where sampling starts, once it is known: it serves as step 0.
    first: Prediction | None = None
    # The texts that were encoded, once the hook edit_prompts has been asked.
    encoded: list[str] = field(default_factory=list)
    # What one hook of a method leaves for its next, by the method's name.
    state: dict[str, Any] = field(default_factory=dict)
    # Where edit_prompts leaves its figures, one an image (n,); they become columns of images.csv.
    numbers: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        prompts: Sequence,
        samples: int | range,
        seed: int,
        *,
        rng: str = "per_image",
    ) -> Batch:
        """Images of each prompt of a file. prompts: with row, caption, alternatives.

        samples: how many a prompt, or their numbers. rng: per_image or official.
        """
        numbers = range(samples) if isinstance(samples, int) else samples
        pairs = [(prompt, k) for prompt in prompts for k in numbers]
        seeds = [image_seed(seed, prompt.row, k) for prompt, k in pairs]
        return cls(
            prompts=[prompt.caption for prompt, _ in pairs],
            seeds=seeds,
            prompt_seeds=[prompt_seed(seed, prompt.row) for prompt, _ in pairs],
            alternatives=[prompt.alternatives for prompt, _ in pairs],
            generator=[stream(one, "scheduler") for one in seeds],
            official_seed=seed if rng == "official" else None,
        )

    @classmethod
    def of_captions(cls, captions: Sequence[str], **known: Any) -> Batch:
        """An image a caption; seeds by position, one prompt seed for each different caption."""
        rows = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
        made: dict[str, Any] = {
            "seeds": [image_seed(0, i, 0) for i in range(len(captions))],
            "prompt_seeds": [prompt_seed(0, rows[caption]) for caption in captions],
            "alternatives": [()] * len(captions),
        }
        return cls(list(captions), **(made | known))

    def __len__(self) -> int:
        return len(self.prompts)

    def groups(self) -> list[torch.Tensor]:
        """Indices of the images of each prompt, in order of first appearance."""
        members: dict[int, list[int]] = {}
        for i, seed in enumerate(self.prompt_seeds):
            members.setdefault(seed, []).append(i)
        return [torch.tensor(indices) for indices in members.values()]

    def texts(self) -> list[str]:
        """What is encoded for each image: the prompts, or what a method made of them."""
        return self.encoded or self.prompts

    def note_lost(self) -> None:
        """Adds a figure: of each text that a method made of a prompt, the tokens that do not fit
        into the text encoder.
        """
        edited = [text != prompt for text, prompt in zip(self.texts(), self.prompts)]
        if self.model is None or not any(edited):
            return
        try:
            lost = {text: self.model.cut_tokens(text) for text in set(self.texts())}
        except Unusable:  # its tokens are not known
            return
        counts = [lost[text] if new else math.nan for text, new in zip(self.texts(), edited)]
        self.numbers["tokens_lost"] = torch.tensor(counts)

    def end_tokens(self, model: Denoiser) -> list[int]:
        """Position of the end token in each image's encoded text."""
        positions = {text: model.token_span(text).stop for text in set(self.texts())}
        return [positions[text] for text in self.texts()]
