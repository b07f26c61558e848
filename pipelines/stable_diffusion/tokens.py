"""Whether a tokenizer and a text encoder tell captions apart and belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from memorization_suite.runs.lazy import no_grad, torch
from memorization_suite.runs.notices import say
from memorization_suite.runs.weights import Incomplete

if TYPE_CHECKING:
    from memorization_suite.pipelines.stable_diffusion.pipeline import MemorizationPipeline

# What CLIP's tokenizers put behind an entry that ends a word.
WORD_END = "</w>"
# How many entries of a vocabulary are tried, of all and of the last ones: a merges file that was
# cut lacks those.
TRIED = 200
LAST = 20
# The least share that must give other tokens than the rest: a tokenizer may know small letters
# alone, or hold parts of characters.
DIFFERENT = 0.1
# How many entries a text encoder is asked for.
ASKED = 8
# How many words of a vocabulary are enough to judge it by.
ENOUGH = 50
# The least share of them that must come back as they are; of CLIP's own vocabulary all do.
COME_BACK = 0.9
# What CLIP's text encoders said of their end token before 2023.
OLD_END = 2
# The least share of the text encoder's rows that a tokenizer of the same model uses.
USED = 0.9


def fit_tokenizer(pipe: MemorizationPipeline) -> None:
    """Lets the tokenizer cut captions where the text encoder ends.

    Raises Incomplete where the two cannot be of one model; says on stderr where they hardly are.
    """
    tokenizer, encoder = pipe.tokenizer, pipe.text_encoder
    if tokenizer is None or encoder is None:
        return
    # Some tokenizers do not say how many tokens the encoder has places for.
    places = getattr(encoder.config, "max_position_embeddings", tokenizer.model_max_length)
    tokenizer.model_max_length = min(tokenizer.model_max_length, places)
    rows = encoder.get_input_embeddings().num_embeddings
    fault = fault_of_size(tokenizer, rows) or fault_of_tokens(tokenizer)
    if fault:
        raise Incomplete(f"its tokenizer {fault}")
    if gives_one_embedding(tokenizer, encoder):
        raise Incomplete(
            "its text encoder gives every caption the same embedding, as weights do that are all "
            "zero: get its files again"
        )
    doubt = doubt_of(tokenizer, encoder.config, rows)
    if doubt:
        say(f"its tokenizer {doubt}: are they of one model?")


def doubt_of(tokenizer: Any, encoder: Any, rows: int) -> str:
    """What is odd of a tokenizer that can still be the right one; empty if nothing is.

    encoder: the text encoder's configuration; the old ones of CLIP do not know their end token.
    """
    entries = len(tokenizer)
    if entries < USED * rows:
        return f"has {entries} entries, and its text encoder {rows}"
    ours, theirs = tokenizer.eos_token_id, getattr(encoder, "eos_token_id", None)
    is_known = theirs is not None and OLD_END < theirs < rows
    if is_known and theirs != ours:
        return f"ends a caption with token {ours}, and its text encoder knows {theirs}"
    return ""


def fault_of_size(tokenizer: Any, rows: int) -> str:
    """Whether there are tokens without a row in the text encoder's table; empty if not."""
    beyond = sorted(i for i in tokenizer.get_vocab().values() if i >= rows)
    if not beyond:
        return ""
    first = tokenizer.convert_ids_to_tokens(beyond[0])
    return (
        f"has {len(tokenizer)} entries, and its text encoder's table only {rows}: {first!r} has no "
        "embedding"
    )


def fault_of_tokens(tokenizer: Any) -> str:
    """Why captions are not what the text encoder would read; empty if they are."""
    own = own_entries(tokenizer)
    if len(own) < 2:
        return f"has no vocabulary: {len(tokenizer)} entries, none of them a word"
    # Entries that are a part of a character read alike.
    texts = list(dict.fromkeys(tokenizer.decode([i]) for i in spread(own, TRIED)))
    try:
        empty, *tried = padded(tokenizer, ["", *texts])
        around = tokenizer("").input_ids
    except Exception as error:  # whatever a damaged one raises
        return f"cannot take a caption apart ({type(error).__name__}: {error})"
    if len(around) > 1 and any(ids[0] != around[0] or around[-1] not in ids[1:] for ids in tried):
        return "does not begin and end every caption with the same tokens"
    different = {tuple(ids) for ids in tried} - {tuple(empty)}
    if len(different) < max(2, DIFFERENT * len(tried)):
        return f"does not tell captions apart: {len(tried)} texts give {len(different)} different"
    return fault_of_words(tokenizer)


def own_entries(tokenizer: Any) -> list[int]:
    """The entries of its vocabulary, without those around a caption."""
    special = set(tokenizer.all_special_ids)
    return [i for i in sorted(tokenizer.get_vocab().values()) if i not in special]


@no_grad
def gives_one_embedding(tokenizer: Any, encoder: Any) -> bool:
    """Whether a text encoder answers alike to all entries of a vocabulary, each alone."""
    entries = spread(own_entries(tokenizer), ASKED)
    ids = torch.tensor(entries, device=encoder.device)[:, None]
    try:
        first, *others = encoder(ids)[0].float()
        return all(torch.allclose(first, other, rtol=1e-3, atol=1e-6) for other in others)
    except Exception:  # whatever a layer raises: captions are encoded later, and it is told then
        return False


def fault_of_ends(tokenizer: Any) -> str:
    """Why methods cannot tell a caption's tokens from those around it; empty if they can."""
    if len(tokenizer("").input_ids) < 2:
        return "its tokenizer puts no begin and no end token around a caption"
    return ""


def padded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Their tokens, as diffusers asks for them."""
    length = tokenizer.model_max_length
    return tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True
    ).input_ids


def fault_of_words(tokenizer: Any) -> str:
    """Whether words of a vocabulary like CLIP's fall into pieces; empty if they do not."""
    words = {
        i: token.removesuffix(WORD_END)
        for token, i in tokenizer.get_vocab().items()
        if token.endswith(WORD_END) and len(token) > len(WORD_END) + 1
    }
    ids = [i for i in sorted(words) if words[i].isascii() and words[i].isalpha()]
    if len(ids) < ENOUGH:
        return ""
    for some in (spread(ids, TRIED), ids[-LAST:]):
        whole = [i for i in some if pieces(tokenizer, words[i]) == [i]]
        if len(whole) < COME_BACK * len(some):
            broken = next(words[i] for i in some if i not in whole)
            return (
                f"takes {len(some) - len(whole)} of {len(some)} words of its own vocabulary to "
                f"pieces ({broken!r}): its merges are not complete"
            )
    return ""


def pieces(tokenizer: Any, text: str) -> list[int]:
    """Its tokens, without those around it."""
    return tokenizer(text, add_special_tokens=False).input_ids


def spread(values: Sequence[int], most: int) -> Sequence[int]:
    """At most so many of them, evenly from the first to the last."""
    return values[:: -(-len(values) // most)] if values else values
