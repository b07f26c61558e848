"""A small CLIP tokenizer: byte-pair encoding trained on the world's captions, saved in CLIP's own
file formats.
"""

from __future__ import annotations

import json
from pathlib import Path

from memorization_suite.runs.lazy import Lazy

tokenizers = Lazy("tokenizers")
transformers = Lazy("transformers")

BOS = "<|startoftext|>"
EOS = "<|endoftext|>"
WORD_END = "</w>"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(
    captions: list[str], vocab_size: int, folder: Path
) -> transformers.CLIPTokenizer:
    """CLIP's scheme (lower case, bytes, word ends marked) with at most `vocab_size` entries; the
    last two are begin and end.
    """
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    merges = train_merges(captions, vocab_size - 2 - len(alphabet), alphabet)
    letters = sorted(alphabet)
    ended = [letter + WORD_END for letter in letters]
    merged = ["".join(pair) for pair in merges]
    entries = [*dict.fromkeys([*letters, *ended, *merged]), BOS, EOS]
    vocab = {entry: i for i, entry in enumerate(entries)}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def train_merges(captions: list[str], size: int, alphabet: list[str]) -> list[list[str]]:
    """Pairs of entries that become one, the most frequent first."""
    normalizers = tokenizers.normalizers
    pre_tokenizers = tokenizers.pre_tokenizers
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix=WORD_END))
    spaces = tokenizers.Regex(r"\s+")
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(spaces, " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(tokenizers.Regex(PATTERN), "removed", invert=True)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*sorted(alphabet), *endings(bpe, captions)],
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    bpe.train_from_iterator(captions, trainer)
    return json.loads(bpe.to_str())["model"]["merges"]


def endings(bpe: tokenizers.Tokenizer, captions: list[str]) -> list[str]:
    """What words end with, sorted.

    The trainer breaks ties by the places of entries, and would place these in the random order of
    its table of words.
    """
    found = set()
    for caption in captions:
        text = bpe.normalizer.normalize_str(caption)
        found |= {word[-1] + WORD_END for word, _ in bpe.pre_tokenizer.pre_tokenize_str(text)}
    return sorted(found)
