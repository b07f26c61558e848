"""The images that are sampled together, as a method sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from memorization_suite.sampling.guidance import Step
    from memorization_suite.sampling.noise_predictor import Prediction


@dataclass
class Batch:
    """Entry i of every list belongs to image i.

    seeds: for what a method draws for one image. prompt_seeds: for what all images of a prompt
    share; equal seeds mean one prompt.
    alternatives: other captions of the same meaning, if the prompt file has some. pipe: tokenizer,
    text_encoder, vae and `encode`. plain_run(on_step): samples the batch once with plain guidance
    from the noise as drawn, for methods that look before they act; its UNet rows count. state: what
    one hook of a method leaves for its next, by the method's name. encoded: the texts that were
    encoded, one an image, once the hook edit_prompts has been asked. numbers: where that hook
    leaves its figures, one per image (n,), for images.csv.
    """

    prompts: list[str]
    seeds: list[int]
    prompt_seeds: list[int]
    alternatives: list[tuple[str, ...]]
    pipe: Any = None
    plain_run: Callable[[Callable[[Step, Prediction], None] | None], torch.Tensor] | None = None
    state: dict[str, Any] = field(default_factory=dict)
    encoded: list[str] = field(default_factory=list)
    numbers: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    def groups(self) -> list[torch.Tensor]:
        """Indices of the images of each prompt, in order of first appearance."""
        members: dict[int, list[int]] = {}
        for i, seed in enumerate(self.prompt_seeds):
            members.setdefault(seed, []).append(i)
        return [torch.tensor(indices) for indices in members.values()]
