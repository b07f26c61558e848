"""ImageReward-v1.0: a learned model of people's preference for an image given its caption. Higher
is better. Xu et al., NeurIPS 2023.

The package `image-reward` cannot be installed beside current libraries; its checkpoint holds a BLIP
model that transformers has too, so the checkpoint's keys are renamed; all must be there. Captions
are cut at 35 tokens, as there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from memorization_suite.metrics.base import Job, Metric, register
from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.pictures import equal_shapes, loading
from memorization_suite.metrics.resizing import Resize
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import Score, Values, by_sample
from memorization_suite.metrics.text_reader import TextReader
from memorization_suite.runs.lazy import Image, Lazy, nn, torch
from memorization_suite.runs.notices import say
from memorization_suite.runs.settings import flag
from memorization_suite.runs.weights import Incomplete, Report

T = Lazy("torchvision.transforms")
transformers = Lazy("transformers")
blip_text = Lazy("transformers.models.blip.modeling_blip_text")

# Of the raw output over the authors' data.
MEAN = 0.16717362830052426
STD = 1.0333394966054072
TOKENS = 35
# Of the image encoder and of the text encoder.
LAYERS = (24, 12)
# An entry that only the vocabularies of the published BERT have.
BERT = "[unused0]"
# Widths of the head's layers, and the dropout behind the first of them.
WIDTHS = (768, 1024, 128, 64, 16, 1)
DROPOUT = (0.2, 0.2, 0.1)
BLOCK = r"blip\.visual_encoder\.blocks\.(\d+)\."
LAYER = r"vision.encoder.layers.\1."
# Original key -> ours.
RENAMED = (
    (r"blip\.visual_encoder\.cls_token", "vision.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed", "vision.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (rf"{BLOCK}norm([12])\.", rf"{LAYER}layer_norm\2."),
    (rf"{BLOCK}attn\.qkv\.", rf"{LAYER}self_attn.qkv."),
    (rf"{BLOCK}attn\.proj\.", rf"{LAYER}self_attn.projection."),
    (rf"{BLOCK}mlp\.", rf"{LAYER}mlp."),
    (r"blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"blip\.text_encoder\.", "text."),
    (r"mlp\.layers\.", "head."),
)
UNUSED = re.compile(r"blip\.(vision_proj|text_proj)\.|blip\.text_encoder\.embeddings\.position_ids")


@cache
def transform():
    """A PIL image in the mode of its file -> (3, 224, 224) float32. As in the package, it becomes
    RGB after the crop.
    """
    return T.Compose(
        [
            Resize(224, Image.Resampling.BICUBIC),
            T.CenterCrop(224),
            T.Lambda(lambda image: image.convert("RGB")),
            T.ToTensor(),
            T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )


def build_blip(vision_layers: int, text_layers: int) -> nn.ModuleDict:
    """BLIP's image encoder `vision`, its text encoder `text` with cross-attention to the image, and
    a linear `head` on the first token.
    """
    vision = transformers.BlipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=vision_layers,
        num_attention_heads=16,
        image_size=224,
        patch_size=16,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
    )
    text = transformers.BlipTextConfig(
        vocab_size=30524,
        hidden_size=768,
        encoder_hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=text_layers,
        num_attention_heads=12,
        max_position_embeddings=512,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        is_decoder=True,  # with cross-attention
    )
    head: list[nn.Module] = []
    for i, widths in enumerate(zip(WIDTHS, WIDTHS[1:])):
        head.append(nn.Linear(*widths))
        if i < len(DROPOUT):
            head.append(nn.Dropout(DROPOUT[i]))
    return nn.ModuleDict(
        {
            "vision": transformers.BlipVisionModel(vision),
            "text": blip_text.BlipTextModel(text, add_pooling_layer=False),
            "head": nn.Sequential(*head),
        }
    )


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The original checkpoint's keys as those of `build_blip`; keys that no score needs are
    dropped, unknown ones stay as they are.
    """
    return {our_key(key): value for key, value in state.items() if not UNUSED.match(key)}


def our_key(key: str) -> str:
    """The original checkpoint's key as ours; an unknown one as it is."""
    for pattern, ours in RENAMED:
        changed, count = re.subn(f"^{pattern}", ours, key)
        if count:
            return changed
    return key


def load_blip(state: dict[str, torch.Tensor], file: Path) -> nn.ModuleDict:
    """The network with the tensors of a checkpoint, whose keys are ours.

    Raises Incomplete when tensors are missing.
    """
    found = depth(state, "vision"), depth(state, "text")
    check_depth(found, file)
    model = build_blip(*found)
    told = model.load_state_dict(state, strict=False)
    Report(tuple(told.missing_keys), (), tuple(told.unexpected_keys)).check("ImageReward", file)
    return model


def depth(state: dict[str, torch.Tensor], part: str) -> int:
    """Number of layers of a part: behind its last one."""
    layer = re.compile(rf"{part}\.encoder\.layers?\.(\d+)\.")
    matches = map(layer.match, state)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def check_depth(found: tuple[int, int], file: Path) -> None:
    """Raises Incomplete for a checkpoint that lost its last layers; says of a small network, which
    is not the published one, that it is small.
    """
    if found == LAYERS:
        return
    fault = f"{file} has {found[0]} and {found[1]} layers, ImageReward {LAYERS[0]} and {LAYERS[1]}"
    if 0 in found or any(2 * ours > published for ours, published in zip(found, LAYERS)):
        raise Incomplete(f"ImageReward is not complete: {fault}")
    say(fault)


def check_tokenizer(tokenizer: Any, rows: int, folder: Path) -> None:
    """Raises ValueError for a tokenizer that cannot be the network's; says of one that is too small
    that it is small. rows: of the network's table, with [DEC] and [ENC] at its end.
    """
    entries = len(tokenizer)
    if entries == rows:
        return
    fault = f"the tokenizer in {folder} has {entries} entries, ImageReward's {rows}"
    if entries > rows or BERT in tokenizer.get_vocab():
        raise ValueError(f"{fault}: its tokens would mean other words")
    say(fault)


def reader_of(tokenizer: Any) -> TextReader:
    """How captions are cut."""
    most = TOKENS - tokenizer.num_special_tokens_to_add()
    return TextReader("ImageReward", most, tokenizer.tokenize, tokenizer.convert_tokens_to_string)


class ImageReward(Score):
    """checkpoint: ImageReward.pt. tokenizer: folder of bert-base-uncased's tokenizer files."""

    quantity = "image_reward"

    def __init__(
        self,
        checkpoint: Path,
        tokenizer: Path,
        *,
        name: str = "v1.0",
        device: str = "cpu",
        batch_size: int = 32,
    ):
        self.variant = name
        self.device = device
        self.batch_size = batch_size
        if not any((tokenizer / file).is_file() for file in ("vocab.txt", "tokenizer.json")):
            raise ValueError(
                f"{tokenizer} is no tokenizer: it has neither vocab.txt nor tokenizer.json"
            )
        self.tokenizer = transformers.BertTokenizer.from_pretrained(tokenizer)
        self.tokenizer.add_special_tokens(
            {"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]}
        )
        self.reader = reader_of(self.tokenizer)
        with loading(checkpoint, "ImageReward-v1.0"):
            state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
            self.model = load_blip(renamed(state), checkpoint)
        rows = self.model["text"].get_input_embeddings().num_embeddings
        check_tokenizer(self.tokenizer, rows, tokenizer)
        self.model.to(device).eval().requires_grad_(False)

    def score(self, images: Sequence[Image.Image], captions: Sequence[str]) -> torch.Tensor:
        """Reward of each image for the caption beside it, (n,) float32 on the CPU; about standard
        normal over the authors' data. images: in the mode of their files.
        """
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        ).to(self.device)
        rewards = []
        first = 0
        with torch.inference_mode():
            for pixels in equal_shapes(map(transform(), images), self.batch_size):
                rows = slice(first, first + len(pixels))
                raw = self.raw(pixels, tokens.input_ids[rows], tokens.attention_mask[rows])
                rewards.append(raw.cpu())
                first += len(pixels)
            return (torch.cat(rewards) - MEAN) / STD

    def raw(self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The head's output (n,). pixels: (n, 3, 224, 224). ids, mask: (n, TOKENS)."""
        image = self.model["vision"](pixels.to(self.device)).last_hidden_state
        text = self.model["text"](
            ids,
            attention_mask=mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], device=image.device),
        ).last_hidden_state
        return self.model["head"](text[:, 0]).squeeze(1)

    def values(self, group: Group) -> Values:
        images = [picture.stored for picture in group.pictures]
        captions = [group.prompt.caption] * len(images)
        return by_sample(group, self.score(images, captions))


@register(
    "image_reward",
    role="quality",
    better="higher",
    title="Mean Image-reward (gen, Overall): ",
    what="ImageReward of caption and image: a learned model of people's preference",
    variant="v1.0",
)
class ImageRewardMetric(Metric):
    """ImageReward of each image."""

    image_reward_checkpoint: Path | None = flag(
        None, "ImageReward.pt (default: where download/ puts it)", metavar="FILE"
    )
    image_reward_tokenizer: Path | None = flag(
        None,
        "folder of bert-base-uncased's tokenizer (default: where download/ puts it)",
        metavar="FOLDER",
    )

    def checkpoints(self, job: Job) -> list[Checkpoint]:
        return [
            Checkpoint.of(self, "image_reward_checkpoint", "image_reward"),
            Checkpoint.of(self, "image_reward_tokenizer", "bert_base_uncased", folder=True),
        ]

    def scores(self, job: Job) -> list[Score]:
        weights, tokenizer = self.checkpoints(job)
        name = weights.variant("v1.0")
        words = tokenizer.variant("tokenizer")
        if words != "tokenizer":
            name += f"_{words}"
        return [job.network(ImageReward, weights.path, tokenizer.path, name=name)]
