"""Random insertions into the prompt: Somepalli et al., NeurIPS 2023."""

from __future__ import annotations

from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.runs.lazy import np
from memorization_suite.sampling import Batch, Denoiser
from memorization_suite.sampling.noise import numpy_stream


def insert_word(prompt: str, word: str, rng: np.random.Generator) -> str:
    """The prompt with one more word: at the front, between any two words or at the end, all places
    alike.
    """
    words = prompt.split(" ")
    words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


@register(
    "random_tokens",
    paper="Somepalli et al., NeurIPS 2023 (RT, RNA, CWR)",
    cost="2N",
    code="somepago/DCR",
    compared="equal texts for equal draws",
)
class RandomTokens(Mitigation):
    """Inserts strings into the prompt, one after the other, each at a random place among the words
    as they then are.

    rand_word_add (RT): a token of the vocabulary as the tokenizer spells it. rand_numb_add (RNA): a
    number of 0..99999. rand_word_repeat (CWR): a word of the caption. A string is tokenized again
    as part of the prompt, so a piece of a word may become several tokens; tokens_lost counts what
    does not fit into the text encoder.

    Source: official code, `prompt_augmentation` (repeats: 4 in its mitigation script, 2 at
    generation). Differs: one generator per prompt or image instead of the process's, drawn from in
    the official order (string, then place).
    """

    augment: str = flag(
        "rand_word_add",
        "what is inserted",
        short="aug",
        choices=("rand_word_add", "rand_numb_add", "rand_word_repeat"),
    )
    repeat_num: int = flag(4, "insertions", short="rep", at_least=0)
    augment_per: str = flag(
        "prompt",
        "prompt: its images share one text; image: each has its own",
        short="per",
        choices=("prompt", "image"),
        always_named=False,
    )

    def edit_prompts(self, batch: Batch) -> list[str]:
        model = batch.model
        if model is None:
            raise ValueError("random_tokens needs the model's vocabulary: sample with a model")
        seeds = batch.prompt_seeds if self.augment_per == "prompt" else batch.seeds
        return [
            self.augmented(prompt, model, numpy_stream(seed))
            for prompt, seed in zip(batch.prompts, seeds)
        ]

    def augmented(self, prompt: str, model: Denoiser, rng: np.random.Generator) -> str:
        """The prompt with `repeat_num` insertions."""
        tokens = model.vocabulary()
        words = prompt.split(" ")
        for _ in range(self.repeat_num):
            if self.augment == "rand_word_add":
                word = model.spell(tokens[int(rng.integers(len(tokens)))])
            elif self.augment == "rand_numb_add":
                word = str(rng.integers(100000))
            else:
                word = words[int(rng.integers(len(words)))]
            prompt = insert_word(prompt, word, rng)
        return prompt
