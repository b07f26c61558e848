"""Captions that are longer than a score reads: which, and what of them is not read."""

from types import SimpleNamespace

import open_clip
import transformers

from memorization_suite.commands.score import captions_cut
from memorization_suite.metrics import image_reward
from memorization_suite.metrics.clip_score import ClipReference, ClipScore
from memorization_suite.metrics.scores import Score
from memorization_suite.metrics.text_reader import TextReader, cut_lines
from memorization_suite.prompts.files import Prompt

WORDS = TextReader("words", 3, str.split, " ".join)
PROMPTS = [Prompt(i, text) for i, text in enumerate(["a b c", "a b c d e", "a", "f g h i"])]


def test_which_captions_and_what_of_them():
    assert cut_lines([None, WORDS, WORDS], PROMPTS) == [
        "2 of 4 captions are longer than the 3 tokens that words reads; the rest is cut: "
        "row 1 (5 tokens, without 'd e'), row 3 (4 tokens, without 'i')"
    ]
    assert cut_lines([WORDS], PROMPTS[:1]) == cut_lines([], PROMPTS) == []
    assert Score.reader is None


def test_what_clip_does_not_read():
    """What its tokenizer drops, a begin and an end token counted."""
    clip = ClipScore.__new__(ClipScore)
    clip.name = "vit_b_32_laion2b"
    clip.tokenizer = open_clip.get_tokenizer("ViT-B-32")
    assert clip.reader.most == 75
    fits = " ".join(["kite"] * 75)
    (cut,) = clip.reader.cut([Prompt(0, fits), Prompt(1, f"{fits} Red Rug")])
    assert (cut.where, cut.tokens, cut.lost, cut.rest.strip()) == ("row 1", 77, 2, "red rug")
    (kept,) = clip.tokenizer([f"{fits} Red Rug"])
    assert (kept == clip.tokenizer([fits])[0]).all()


def test_a_tokenizer_that_does_not_tell():
    clip = ClipScore.__new__(ClipScore)
    clip.tokenizer = lambda texts: texts
    assert clip.reader is None


def test_what_image_reward_does_not_read(tokenizer_folder):
    """35 tokens with BERT's [CLS] and [SEP]."""
    tokenizer = transformers.BertTokenizer.from_pretrained(tokenizer_folder)
    reader = image_reward.reader_of(tokenizer)
    caption = " ".join(["red"] * 33 + ["blue", "circle"])
    (cut,) = reader.cut([Prompt(4, caption)])
    assert (cut.tokens, cut.lost, cut.rest) == (35, 2, "blue circle")
    options = {"truncation": True, "max_length": image_reward.TOKENS}
    kept = tokenizer(caption, **options).input_ids
    assert kept == tokenizer(" ".join(["red"] * 33)).input_ids


def test_a_scoring_says_it_once(monkeypatch):
    """Also where two scores share the network; of the prompts that are scored."""
    run = SimpleNamespace(prompts_scored={1, 2}, prompts=PROMPTS)
    monkeypatch.setattr(ClipScore, "reader", WORDS)
    clip = ClipScore.__new__(ClipScore)
    clip.name = "x"
    nearest = SimpleNamespace(variant="sscd")
    scores = [Score(), ClipReference(clip, nearest), ClipReference(clip, nearest)]
    (line,) = captions_cut(SimpleNamespace(run=run), scores)
    assert line.startswith("1 of 2 captions") and "row 1 (5 tokens, without 'd e')" in line
    assert captions_cut(SimpleNamespace(run=run), scores[:1]) == []
