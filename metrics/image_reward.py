"""ImageReward-v1.0: a learned model of people's preference for an image given its caption. Higher
is better. Xu et al., NeurIPS 2023.

The package `image-reward` cannot be installed beside current libraries; its checkpoint holds a BLIP
model that transformers has too, so the checkpoint's keys are renamed and loaded strictly. Captions
are cut at 35 tokens, as there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision import transforms as T

from memorization_suite.metrics.pictures import equal_shapes, loading

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the raw output over the authors' data
TRANSFORM = T.Compose(
    [
        T.Resize(224, interpolation=T.InterpolationMode.BICUBIC),
        T.CenterCrop(224),
        T.ToTensor(),
        T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
)
RENAMED = (  # original key -> ours
    (r"blip\.visual_encoder\.cls_token", "vision.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed", "vision.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (
        r"blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.",
        r"vision.encoder.layers.\1.layer_norm\2.",
    ),
    (
        r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.",
        r"vision.encoder.layers.\1.self_attn.qkv.",
    ),
    (
        r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
        r"vision.encoder.layers.\1.self_attn.projection.",
    ),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
    (r"blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"blip\.text_encoder\.", "text."),
    (r"mlp\.layers\.", "head."),
)
UNUSED = re.compile(r"blip\.(vision_proj|text_proj)\.|blip\.text_encoder\.embeddings\.position_ids")


class Blip(nn.Module):
    """BLIP's image encoder, its text encoder with cross-attention to the image, and a linear head
    on the first token.
    """

    def __init__(self, vision_layers: int = 24, text_layers: int = 12):
        from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig
        from transformers.models.blip.modeling_blip import BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        super().__init__()
        self.vision = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=vision_layers,
                num_attention_heads=16,
                image_size=224,
                patch_size=16,
                hidden_act="gelu",
                layer_norm_eps=1e-6,
            )
        )
        self.text = BlipTextModel(
            BlipTextConfig(  # is_decoder=True: with cross-attention
                vocab_size=30524,
                hidden_size=768,
                encoder_hidden_size=1024,
                intermediate_size=3072,
                num_hidden_layers=text_layers,
                num_attention_heads=12,
                max_position_embeddings=512,
                hidden_act="gelu",
                layer_norm_eps=1e-12,
                is_decoder=True,
            ),
            add_pooling_layer=False,
        )
        widths = (768, 1024, 128, 64, 16, 1)
        linears = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
        self.head = nn.Sequential(
            linears[0],
            nn.Dropout(0.2),
            linears[1],
            nn.Dropout(0.2),
            linears[2],
            nn.Dropout(0.1),
            linears[3],
            linears[4],
        )

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """pixels: (n, 3, 224, 224); ids, mask: (n, 35). Returns (n,)."""
        seen = self.vision(pixels).last_hidden_state
        read = self.text(
            ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], device=seen.device),
        )
        return self.head(read.last_hidden_state[:, 0]).squeeze(1)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The original checkpoint's keys as those of `Blip`; keys that no score needs are dropped,
    unknown ones stay as they are.
    """
    found = {}
    for key, value in state.items():
        if not UNUSED.match(key):
            for pattern, ours in RENAMED:
                key, count = re.subn(f"^{pattern}", ours, key)
                if count:
                    break
            found[key] = value
    return found


class ImageReward:
    """checkpoint: ImageReward.pt. tokenizer: folder of bert-base-uncased's tokenizer files."""

    def __init__(
        self,
        checkpoint: Path,
        tokenizer: Path,
        *,
        name: str = "v1.0",
        device: str = "cpu",
        batch_size: int = 32,
    ):
        from transformers import BertTokenizer

        self.name, self.device, self.batch_size = name, device, batch_size
        if not any((tokenizer / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
            raise ValueError(
                f"{tokenizer} is no tokenizer: it has neither vocab.txt nor tokenizer.json"
            )
        self.tokenizer = BertTokenizer.from_pretrained(tokenizer)
        self.tokenizer.add_special_tokens(
            {"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]}
        )
        with loading(checkpoint, "ImageReward-v1.0"):
            state = renamed(
                torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
            )
            self.model = Blip(depth(state, "vision"), depth(state, "text"))
            self.model.load_state_dict(state)
        self.model.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def score(self, images: Sequence[Image.Image], captions: Sequence[str]) -> torch.Tensor:
        """Reward of each image for the caption beside it, (n,) float32 on the CPU; about standard
        normal over the authors' data.
        """
        words = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=35,
            return_tensors="pt",
        ).to(self.device)
        found, first = [], 0
        for pixels in equal_shapes((TRANSFORM(image) for image in images), self.batch_size):
            rows = slice(first, first + len(pixels))
            found.append(
                self.model(
                    pixels.to(self.device), words.input_ids[rows], words.attention_mask[rows]
                ).cpu()
            )
            first += len(pixels)
        return (torch.cat(found) - MEAN) / STD


def depth(state: dict[str, torch.Tensor], part: str) -> int:
    """Number of layers of a part: 24 and 12 in the published checkpoint."""
    return len(
        {
            match[1]
            for key in state
            if (match := re.match(rf"{part}\.encoder\.layers?\.(\d+)\.", key))
        }
    )
