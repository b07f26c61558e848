"""CLIP score: cosine of an image's and a caption's embedding, neither scaled by 100 nor clipped at
0. Higher: the caption fits better.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memorization_suite.metrics.base import Job, Metric, Quantity, register
from memorization_suite.metrics.checkpoints import Checkpoint
from memorization_suite.metrics.pictures import Embedder, loading
from memorization_suite.metrics.resizing import in_order
from memorization_suite.metrics.runs import Group
from memorization_suite.metrics.scores import FeatureScore, NearestReference, Score, Values
from memorization_suite.metrics.sscd import SscdMetric
from memorization_suite.metrics.text_reader import TextReader
from memorization_suite.runs.lazy import F, Image, Lazy, torch
from memorization_suite.runs.settings import flag

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

    open_clip's transform resizes and crops a picture in the mode of its file, and converts it to
    RGB after that. So do the official scripts, and so does this.
    """

    as_stored = True

    def __init__(
        self,
        checkpoint: Path,
        *,
        variant: str = "vit_b_32_laion2b",
        name: str = "",
        **options: Any,
    ):
        super().__init__(**options)
        self.name = name or variant
        architecture, _ = VARIANTS[variant]
        with loading(checkpoint, f"open_clip's {architecture}"):
            self.model, _, transform = open_clip.create_model_and_transforms(
                architecture, pretrained=str(checkpoint), device=self.device
            )
        self.transform = in_order(transform)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(architecture)
        self.texts: dict[str, torch.Tensor] = {}

    @property
    def reader(self) -> TextReader | None:
        """How it cuts captions; None of a tokenizer that does not tell."""
        if not hasattr(self.tokenizer, "encode"):
            return None
        most = self.tokenizer.context_length - 2  # a begin and an end token
        return TextReader(f"CLIP ({self.name})", most, self.tokenizer.encode, self.tokenizer.decode)

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self.transform(image)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(batch)

    def text_features(self, captions: Sequence[str]) -> torch.Tensor:
        """(n, d) float32 on the CPU, of unit length; a caption is encoded once."""
        fresh = [caption for caption in dict.fromkeys(captions) if caption not in self.texts]
        for i in range(0, len(fresh), self.batch_size):
            batch = fresh[i : i + self.batch_size]
            tokens = self.tokenizer(batch).to(self.device)
            with torch.inference_mode():
                features = self.model.encode_text(tokens).float().cpu()
                self.texts.update(zip(batch, F.normalize(features, dim=1)))
        return torch.stack([self.texts[caption] for caption in captions])


class ClipGenerated(FeatureScore):
    """Cosine of each image and its caption."""

    def __init__(self, clip: ClipScore):
        super().__init__("clip_gen", clip, self.to_caption)
        self.clip = clip
        self.reader = clip.reader

    def prepare(self, groups: Sequence[Group]) -> None:
        self.clip.texts.clear()  # those of earlier groups
        self.clip.text_features([group.prompt.caption for group in groups])
        super().prepare(groups)

    def to_caption(self, features: torch.Tensor, group: Group) -> torch.Tensor:
        """One number an image (n,)."""
        return features @ self.clip.text_features([group.prompt.caption])[0]


class ClipReference(Score):
    """Cosine of the caption and its training image.

    That is the reference nearest to the first generated image, as the official script chooses.
    """

    quantity = "clip_gt"

    def __init__(self, clip: ClipScore, nearest: NearestReference):
        self.variant = f"{clip.name}_nearest_{nearest.variant}"
        self.clip = clip
        self.reader = clip.reader
        self.nearest = nearest

    def prepare(self, groups: Sequence[Group]) -> None:
        self.nearest.prepare(groups)
        self.clip.embed(picture for group in groups for picture in group.references)

    def values(self, group: Group) -> Values:
        if not group.references:
            return {}
        chosen = int(self.nearest.similarities(group)[0].argmax())
        caption = self.clip.text_features([group.prompt.caption])[0]
        return {None: (self.clip.matrix(group.references)[chosen] @ caption).item()}


@register(
    "clip",
    Quantity(
        "clip_gt",
        better="higher",
        title="Mean CLIP score (gt): ",
        against="references",
        what="cosine of the caption and the training image that SSCD finds nearest",
        variant="vit_b_32_laion2b_nearest_disc_mixup_official320",
    ),
    Quantity(
        "clip_gen",
        better="higher",
        role="alignment",
        title="Mean CLIP score (gen): ",
        what="cosine of the caption and the image",
        variant="vit_b_32_laion2b",
    ),
    uses=("sscd",),
)
class ClipMetric(Metric):
    """How well images fit their caption, and the training image does that SSCD finds nearest."""

    clip: str = flag("vit_b_32_laion2b", "which open_clip model", choices=tuple(VARIANTS))
    clip_checkpoint: Path | None = flag(
        None, "its weights (default: where download/ puts them)", metavar="FILE"
    )

    def checkpoints(self, job: Job) -> list[Checkpoint]:
        return [Checkpoint.of(self, "clip_checkpoint", f"clip_{self.clip}")]

    def scores(self, job: Job) -> list[Score]:
        (checkpoint,) = self.checkpoints(job)
        name = checkpoint.variant(self.clip)
        clip = job.network(ClipScore, checkpoint.path, variant=self.clip, name=name)
        sscd = job.metric(SscdMetric)
        if sscd.missing(job):
            return [ClipGenerated(clip)]
        nearest = NearestReference("sscd", sscd.network(job))
        return [ClipGenerated(clip), ClipReference(clip, nearest)]

    def partly(self, job: Job) -> dict[str, str]:
        if not job.metric(SscdMetric).missing(job):
            return {}
        why = "SSCD chooses which of a prompt's training images it is of"
        return {"the training images' CLIP score": why}
