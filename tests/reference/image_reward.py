"""ImageReward-v1.0 (Xu et al., NeurIPS 2023) as a plain function of its checkpoint, under the
checkpoint's own names. Imports nothing of the suite.

Facts from THUDM/ImageReward (ImageReward/ImageReward.py, models/BLIP/) and salesforce/BLIP
(models/vit.py, configs/med_config.json): the vision transformer normalizes before each part
(epsilon 1e-6), the text encoder after it (1e-12) and has neither token types nor a pooler; it is
called as an encoder (no causal mask), and its first token stays [CLS]; no part of the reward passes
through vision_proj or text_proj.
"""

import math

import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from tests.reference.pillow_resize import small_edge

VISION_WIDTH = 1024
VISION_HEADS = 16
TEXT_WIDTH = 768
TEXT_HEADS = 12
VOCABULARY = 30524
POSITIONS = 512
TOKENS = 35
# Number, inputs and outputs of the head's layers; 1, 3 and 5 are dropout.
HEAD_SIZES = ((0, 768, 1024), (2, 1024, 128), (4, 128, 64), (6, 64, 16), (7, 16, 1))
MEAN = 0.16717362830052426
STD = 1.0333394966054072


def linear(state: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    """x W^T + b, (n, in) -> (n, out)."""
    return F.linear(x, state[name + ".weight"], state[name + ".bias"])


def layer_norm(state: dict, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    """Layer norm over the last axis, (n, width) -> (n, width)."""
    return F.layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"], eps)


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q k^T / sqrt(size)) v, head by head. q: (n, width); k, v: (m, width); mask: (m,), 0
    for keys nobody looks at -> (n, width).
    """
    size = q.shape[1] // heads
    outputs = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[:, part] @ k[:, part].T / math.sqrt(size)
        if mask is not None:
            scores = scores + (1.0 - mask.to(scores.dtype)) * -10000.0
        outputs.append(torch.softmax(scores, dim=-1) @ v[:, part])
    return torch.cat(outputs, dim=1)


def image_states(state: dict, pixels: torch.Tensor) -> torch.Tensor:
    """Hidden states of one image after the last norm. pixels: (3, 224, 224) -> (197, 1024). Source:
    salesforce/BLIP, models/vit.py.
    """
    root = "blip.visual_encoder."
    patches = F.conv2d(
        pixels[None],
        state[root + "patch_embed.proj.weight"],
        state[root + "patch_embed.proj.bias"],
        stride=16,
    )[0]
    rows = patches.flatten(1).T  # 14 x 14 patches, row by row
    x = torch.cat([state[root + "cls_token"][0], rows]) + state[root + "pos_embed"][0]
    layer = 0
    while f"{root}blocks.{layer}.norm1.weight" in state:
        block = f"{root}blocks.{layer}."
        q, k, v = linear(
            state, block + "attn.qkv", layer_norm(state, block + "norm1", x, 1e-6)
        ).split(VISION_WIDTH, dim=1)
        x = x + linear(state, block + "attn.proj", attention(q, k, v, VISION_HEADS))
        hidden = F.gelu(
            linear(state, block + "mlp.fc1", layer_norm(state, block + "norm2", x, 1e-6))
        )
        x = x + linear(state, block + "mlp.fc2", hidden)
        layer += 1
    return layer_norm(state, root + "norm", x, 1e-6)


def attend(
    state: dict, name: str, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """One post-norm attention of BERT: x (n, 768) looks at source (m, 768 or 1024), mask (m,) ->
    (n, 768). Source: models/BLIP/med.py.
    """
    q = linear(state, name + ".self.query", x)
    k = linear(state, name + ".self.key", source)
    v = linear(state, name + ".self.value", source)
    y = linear(state, name + ".output.dense", attention(q, k, v, TEXT_HEADS, mask))
    return layer_norm(state, name + ".output.LayerNorm", y + x, 1e-12)


def text_states(
    state: dict, ids: torch.Tensor, mask: torch.Tensor, image: torch.Tensor
) -> torch.Tensor:
    """Hidden states of one text that looks at one image. ids, mask: (35,); image: (197, 1024) ->
    (35, 768). Source: models/BLIP/med.py.
    """
    root = "blip.text_encoder."
    x = (
        state[root + "embeddings.word_embeddings.weight"][ids]
        + state[root + "embeddings.position_embeddings.weight"][: len(ids)]
    )
    x = layer_norm(state, root + "embeddings.LayerNorm", x, 1e-12)
    layer = 0
    while f"{root}encoder.layer.{layer}.output.dense.weight" in state:
        block = f"{root}encoder.layer.{layer}."
        x = attend(state, block + "attention", x, x, mask)
        x = attend(state, block + "crossattention", x, image, None)
        hidden = F.gelu(linear(state, block + "intermediate.dense", x))
        x = layer_norm(
            state,
            block + "output.LayerNorm",
            linear(state, block + "output.dense", hidden) + x,
            1e-12,
        )
        layer += 1
    return x


@torch.no_grad()
def image_reward(state: dict, tokenizer, image: Image.Image, text: str) -> float:
    """Standardized reward of one image for one text; more is better. Source: `score` of
    THUDM/ImageReward, ImageReward/ImageReward.py.

    state: tensors of one float dtype under the checkpoint's names, as many layers as it has;
    tokenizer: bert-base-uncased with [DEC] and [ENC], or any callable of the same form that gives
    input_ids and attention_mask, (1, 35) each.
    """
    preprocess = transforms.Compose(
        [
            lambda picture: small_edge(picture, 224, "bicubic"),
            transforms.CenterCrop(224),
            lambda picture: picture.convert("RGB"),
            transforms.ToTensor(),
            transforms.Normalize(
                (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
            ),
        ]
    )
    pixels = preprocess(image).to(state["blip.visual_encoder.cls_token"].dtype)
    tokens = tokenizer(
        text, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    x = text_states(
        state, tokens["input_ids"][0], tokens["attention_mask"][0], image_states(state, pixels)
    )[:1]
    for number, _, _ in HEAD_SIZES:
        x = linear(state, f"mlp.layers.{number}", x)
    return (float(x) - MEAN) / STD


def state_shapes(vision_layers: int = 24, text_layers: int = 12) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every float tensor of the checkpoint. Source: as the module's."""
    shapes = {
        "blip.visual_encoder.cls_token": (1, 1, VISION_WIDTH),
        "blip.visual_encoder.pos_embed": (1, 197, VISION_WIDTH),
        "blip.visual_encoder.patch_embed.proj.weight": (VISION_WIDTH, 3, 16, 16),
        "blip.visual_encoder.patch_embed.proj.bias": (VISION_WIDTH,),
    }

    def add(name: str, out: int, into: int | None = None) -> None:
        """A linear layer, or a norm if it has no input size."""
        shapes[name + ".weight"] = (out,) if into is None else (out, into)
        shapes[name + ".bias"] = (out,)

    for layer in range(vision_layers):
        block = f"blip.visual_encoder.blocks.{layer}."
        add(block + "norm1", VISION_WIDTH)
        add(block + "attn.qkv", 3 * VISION_WIDTH, VISION_WIDTH)
        add(block + "attn.proj", VISION_WIDTH, VISION_WIDTH)
        add(block + "norm2", VISION_WIDTH)
        add(block + "mlp.fc1", 4 * VISION_WIDTH, VISION_WIDTH)
        add(block + "mlp.fc2", VISION_WIDTH, 4 * VISION_WIDTH)
    add("blip.visual_encoder.norm", VISION_WIDTH)
    shapes["blip.text_encoder.embeddings.word_embeddings.weight"] = (VOCABULARY, TEXT_WIDTH)
    shapes["blip.text_encoder.embeddings.position_embeddings.weight"] = (POSITIONS, TEXT_WIDTH)
    add("blip.text_encoder.embeddings.LayerNorm", TEXT_WIDTH)
    for layer in range(text_layers):
        block = f"blip.text_encoder.encoder.layer.{layer}."
        for kind, width in (("attention", TEXT_WIDTH), ("crossattention", VISION_WIDTH)):
            add(block + kind + ".self.query", TEXT_WIDTH, TEXT_WIDTH)
            add(block + kind + ".self.key", TEXT_WIDTH, width)
            add(block + kind + ".self.value", TEXT_WIDTH, width)
            add(block + kind + ".output.dense", TEXT_WIDTH, TEXT_WIDTH)
            add(block + kind + ".output.LayerNorm", TEXT_WIDTH)
        add(block + "intermediate.dense", 4 * TEXT_WIDTH, TEXT_WIDTH)
        add(block + "output.dense", TEXT_WIDTH, 4 * TEXT_WIDTH)
        add(block + "output.LayerNorm", TEXT_WIDTH)
    add("blip.vision_proj", 256, VISION_WIDTH)
    add("blip.text_proj", 256, TEXT_WIDTH)
    for number, into, out in HEAD_SIZES:
        add(f"mlp.layers.{number}", out, into)
    return shapes


def random_state(
    seed: int, dtype: torch.dtype = torch.float32, *, vision_layers: int = 24, text_layers: int = 12
) -> dict[str, torch.Tensor]:
    """Random weights under the checkpoint's names, equal for equal seeds; the full 24 and 12 layers
    take 1.8 GB in float32.

    Normal, 0.02, about one for the weights of norms and about zero for all else, so that exchanged
    norms or biases show; weights of the head have 1 / sqrt(inputs), so that its five layers do not
    shrink the reward below what a comparison can see. Also the keys that a loader drops.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in state_shapes(vision_layers, text_layers).items():
        scale = 0.02
        if name.startswith("mlp.") and name.endswith("weight"):
            scale = 1 / math.sqrt(shape[1])
        center = 0.0
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight")):
            center = 1.0
        state[name] = (torch.randn(shape, generator=generator) * scale + center).to(dtype)
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    return state
