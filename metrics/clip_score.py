"""CLIP score: cosine of an image's and a caption's embedding, neither scaled by 100 nor clipped at
0. Higher: the caption fits better.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from memorization_suite.lazy import F, Image, Lazy, torch
from memorization_suite.metrics.pictures import Embedder, loading

open_clip = Lazy("open_clip")

# Name -> open_clip's architecture and training.
VARIANTS = {
    # Han.
    "vit_b_32_laion2b": ("ViT-B-32", "laion2b_s34b_b79k"),
    # SAIL.
    "vit_h_14_laion2b": ("ViT-H-14", "laion2b_s32b_b79k"),
    # Wen, Bright Ending, GUARD.
    "vit_g_14_laion2b": ("ViT-g-14", "laion2b_s12b_b42k"),
}


class ClipScore(Embedder):
    """An open_clip model in eval mode, from a local checkpoint. (Wen's and Bright Ending's scripts
    forget `eval()`.)
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        variant: str = "vit_b_32_laion2b",
        name: str = "",
        device: str = "cpu",
        batch_size: int = 32,
    ):
        super().__init__(device=device, batch_size=batch_size)
        self.name = name or variant
        architecture, _ = VARIANTS[variant]
        with loading(checkpoint, f"open_clip's {architecture}"):
            self.model, _, self.transform = open_clip.create_model_and_transforms(
                architecture, pretrained=str(checkpoint), device=device
            )
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(architecture)
        self.texts: dict[str, torch.Tensor] = {}

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self.transform(image)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(batch)

    def text_features(self, captions: Sequence[str]) -> torch.Tensor:
        """(n, d) float32 on the CPU, of unit length; a caption is encoded once."""
        fresh = [caption for caption in dict.fromkeys(captions) if caption not in self.texts]
        for i in range(0, len(fresh), self.batch_size):
            batch = fresh[i : i + self.batch_size]
            self.texts.update(zip(batch, self.encode_texts(batch)))
        return torch.stack([self.texts[caption] for caption in captions])

    def encode_texts(self, captions: Sequence[str]) -> torch.Tensor:
        """The same without what was encoded before, in one batch."""
        with torch.inference_mode():
            features = self.model.encode_text(self.tokenizer(captions).to(self.device))
            return F.normalize(features.float().cpu(), dim=1)
