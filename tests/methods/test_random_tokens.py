"""Random insertions: equal to the transcription word for word; what is drawn, from where, and whose
it is.
"""

from collections import Counter

import numpy as np
import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch
from tests.methods.helpers import sample
from tests.models import model_of
from tests.reference import somepalli2023

STYLES = ("rand_word_add", "rand_numb_add", "rand_word_repeat")


def edited(pipe, prompts, prompt_seeds, seeds=None, **settings) -> list[str]:
    known = {"prompt_seeds": prompt_seeds, "model": pipe}
    if seeds is not None:
        known["seeds"] = seeds
    batch = Batch.of_captions(prompts, **known)
    return build_mitigation("random_tokens", **settings).edit_prompts(batch)


@pytest.mark.parametrize("repeats", [0, 1, 4, 8])
@pytest.mark.parametrize("style", STYLES)
def test_parity(pipe, prompts, style, repeats):
    """The same texts as the transcription with the same draws."""
    tokens = [
        k
        for k in range(len(pipe.tokenizer))
        if k not in (pipe.tokenizer.bos_token_id, pipe.tokenizer.eos_token_id)
    ]
    texts = [*prompts, "", "one", "two  spaces"]
    expected = [
        somepalli2023.augmentation(
            text, style, repeats, pipe.tokenizer.decode, tokens, np.random.default_rng(i).integers
        )
        for i, text in enumerate(texts)
    ]
    assert edited(pipe, texts, list(range(6)), augment=style, repeat_num=repeats) == expected
    assert (expected == texts) == (repeats == 0)


def test_tokens_that_may_be_drawn(pipe):
    """CLIP's first 49400, as the official code; of another vocabulary all but the special ones."""
    assert list(model_of(tokenizer=Vocabulary()).vocabulary()) == list(range(49400))
    own = list(pipe.vocabulary())
    assert set(range(len(pipe.tokenizer))) - set(own) == {
        pipe.tokenizer.bos_token_id,
        pipe.tokenizer.eos_token_id,
    }


class Vocabulary:
    """CLIP's tokenizer as far as it matters here, with Stable Diffusion 2's padding token 0."""

    all_special_ids = (0, 49406, 49407)

    def __len__(self):
        return 49408


def test_repeated_words_are_the_captions(pipe):
    """Never an inserted one by a higher chance: the result holds the caption's words in their
    order, and its words only.
    """
    caption = "a a b c"
    counts = Counter()
    for seed in range(300):
        (text,) = edited(pipe, [caption], [seed], augment="rand_word_repeat")
        added = Counter(text.split(" "))
        added.subtract(caption.split(" "))
        assert sum(added.values()) == 4 and min(added.values()) >= 0
        counts.update(added)
    assert counts["a"] / 1200 == pytest.approx(0.5, abs=0.05)


def test_every_place_is_reached_about_equally(pipe):
    places = Counter(
        place(edited(pipe, ["x y z"], [seed], augment="rand_numb_add", repeat_num=1)[0])
        for seed in range(400)
    )
    assert sorted(places) == [0, 1, 2, 3] and min(places.values()) > 70


def place(text: str) -> int:
    """Where the number stands."""
    return next(i for i, word in enumerate(text.split(" ")) if word.isdigit())


def test_images_of_a_prompt_share_its_text_or_have_their_own(pipe, prompts):
    """And the text does not depend on what else is in the batch."""
    captions, prompt_seeds, seeds = [prompts[0]] * 2 + [prompts[1]] * 2, [7, 7, 8, 8], [1, 2, 3, 4]
    shared = edited(pipe, captions, prompt_seeds, seeds)
    assert shared[0] == shared[1] and shared[2] == shared[3]
    assert shared[2:] == edited(pipe, captions[2:], prompt_seeds[2:], seeds[2:])
    own = edited(pipe, captions, prompt_seeds, seeds, augment_per="image")
    assert len(set(own)) == 4
    assert own[1:2] == edited(pipe, captions[1:2], [99], seeds[1:2], augment_per="image")


@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_a_run_is_the_run_of_the_edited_prompts(make_pipe, prompts, noise, kind):
    """Bit for bit, and 2N rows; the batch keeps the captions."""
    pipe, method = make_pipe(kind), build_mitigation("random_tokens")
    made = sample(pipe, prompts, noise, method, 4, prompt_seeds=[1, 2, 3])
    batch = Batch.of_captions(prompts, prompt_seeds=[1, 2, 3], model=pipe)
    expected = sample(pipe, method.edit_prompts(batch), noise, build_mitigation("no_mitigation"), 4)
    assert torch.equal(made.final, expected.final)
    assert made.unet_evals.tolist() == [8, 8, 8]
    assert batch.prompts == prompts


def test_tokens_lost_to_the_end_of_the_text_are_counted(pipe, noise):
    """75 words of one token fit between begin and end token; repeating four of them loses four, and
    the short prompt loses none.
    """
    made = sample(
        pipe,
        [" ".join(["red"] * 75), "red"],
        noise[:2],
        build_mitigation("random_tokens", augment="rand_word_repeat"),
        1,
    )
    assert made.numbers["tokens_lost"].tolist() == [4, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": "x"}, "rand_word_add, rand_numb_add, rand_word_repeat"),
        ({"repeat_num": -1}, "at least 0"),
        ({"augment_per": "x"}, "prompt, image"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_mitigation("random_tokens", **settings)


def test_names_of_folders():
    assert build_mitigation("random_tokens").named_values() == {"aug": "rand_word_add", "rep": 4}
