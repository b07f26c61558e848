"""Bright Ending: at the last step the end token's cross-attention is bright where the image is
memorized.

Chen et al., ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from memorization_suite.detection.base import Detector, Look, register
from memorization_suite.runs.lazy import F, cv2, np, torch
from memorization_suite.runs.settings import flag
from memorization_suite.sampling import Batch, NoisePredictor, Prediction, Step
from memorization_suite.sampling.denoiser import See
from memorization_suite.sampling.loop import OnStep
from memorization_suite.sampling.noise_predictor import above_zero, row_norm

BINARIZATIONS = ("none", "otsu", "quantile")


class EndTokenAttention:
    """Keeps how much each pixel attends to the end token.

    Of the half "text", from the newest call of the down path's cross-attentions of the finest
    resolution.

    Source: official code, 64 x 64 layers of SD 1.4. Differs from it: layers are found by their
    number of queries, for every model and size.
    """

    def __init__(self, predictor: NoisePredictor, ends: list[int]):
        self.predictor = predictor
        # Position of each image's end token.
        self.ends = ends
        # The modules whose probabilities `see` has to be shown.
        self.names = predictor.model.attention_names(["down"])
        # Queries of the finest layers so far.
        self.queries = 0
        # Attention to the end token in each of them, (n, queries).
        self.layers: dict[str, torch.Tensor] = {}

    def see(self, name: str, probs: torch.Tensor) -> None:
        """Averages the heads; a layer that is coarser than another is left out.

        probs: (rows, heads, queries, tokens).
        """
        queries = probs.shape[2]
        if queries < self.queries:
            return
        if queries > self.queries:
            self.queries = queries
            self.layers = {}
        if name not in self.layers:
            self.layers[name] = torch.zeros(len(self.ends), queries, device=probs.device)
        call = self.predictor.call
        image_of_row = call.image_of_row()
        for row in call.rows_of("text").nonzero().flatten().tolist():
            image = int(image_of_row[row])
            attention = probs[row, :, :, self.ends[image]]
            self.layers[name][image] = attention.detach().float().mean(0)

    def mask(self, height: int, width: int) -> torch.Tensor:
        """Attention probabilities (n, 1, height, width), mean over the layers.

        height, width: of the latents. Raises ValueError when no attention was seen, or none of
        this aspect ratio.
        """
        if not self.layers:
            raise ValueError("no cross-attention of the UNet's down path was seen")
        size = grid(self.queries, height, width)
        mean = torch.stack(list(self.layers.values())).mean(0)
        mask = mean.reshape(-1, 1, *size)
        if size == (height, width):
            return mask
        return F.interpolate(mask, (height, width), mode="bilinear")

    @contextmanager
    def last_step(self, total: int) -> Iterator[OnStep]:
        """on_step for a run of `total` steps; attention is open in its last step only.

        An unguided run computes the text half there.
        """
        with ExitStack() as opened:

            def look() -> None:
                attention = self.predictor.model.open_attention(self.names, see=self.see)
                opened.enter_context(attention)

            def on_step(step: Step, prediction: Prediction) -> None:
                if step.index == total - 2:
                    look()
                elif step.index == total - 1:
                    prediction.need("text")

            if total == 1:
                look()
            yield on_step


def grid(queries: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a layer with so many queries.

    The latents' size, halved (rounding up) as often as it takes. Raises ValueError when that never
    fits.
    """
    h, w = height, width
    while h * w > queries:
        h = (h + 1) // 2
        w = (w + 1) // 2
    if h * w != queries:
        raise ValueError(f"{queries} attention queries do not fit latents of {height} x {width}")
    return h, w


def look_ahead(predictor: NoisePredictor, batch: Batch) -> tuple[torch.Tensor, Prediction]:
    """Masks (n, 1, h, w) of a plain run on the batch's own noise, and its prediction at step 0.

    It costs what a run costs. Raises ValueError for a batch that is not being sampled.
    """
    if batch.plain_run is None:
        raise ValueError("a Bright Ending mask needs a first run: sample with a pipeline")
    ending = EndTokenAttention(predictor, batch.end_tokens(predictor.model))
    first: list[Prediction] = []
    with ending.last_step(len(predictor.model.timesteps)) as on_step:

        def watch(step: Step, prediction: Prediction) -> None:
            if step.index == 0:
                first.append(prediction)
            on_step(step, prediction)

        batch.plain_run(watch)
    height, width = first[0].x.shape[-2:]
    return ending.mask(height, width), first[0]


def relative(mask: torch.Tensor) -> torch.Tensor:
    """mask / mean(mask) for each image. (n, 1, h, w) -> the same."""
    return mask / above_zero(mask.mean((1, 2, 3), keepdim=True))


def masked_norm(e: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """||e o m|| / mean(m) for each image, (n,) float32: the plain norm where the mask is constant.

    e: (n, c, h, w), or (n, 1, h, w) the root of its squares' sum over channels, which is enough to
    keep. mask: (n, 1, h, w).
    """
    return row_norm(e.float() * relative(mask.float()))


def binarize(mask: torch.Tensor, how: str = "otsu", quantile: float = 0.9) -> torch.Tensor:
    """1 where the mask is bright and 0 elsewhere, for each image; a constant mask becomes all ones.

    (n, 1, h, w) -> the same, float32. how: "otsu" (threshold between two classes of brightness),
    "quantile" (the brightest 1 - quantile of the pixels), "none" (as it is). Raises ValueError.
    """
    if how not in BINARIZATIONS:
        raise ValueError(
            f"a mask cannot be made binary by {how!r}; there are {', '.join(BINARIZATIONS)}"
        )
    if how == "none":
        return mask.float()
    return torch.stack([bright(image.float(), how, quantile) for image in mask]).float()


def bright(mask: torch.Tensor, how: str, quantile: float) -> torch.Tensor:
    """The bright pixels of one mask, bool."""
    low = mask.min()
    high = mask.max()
    if not high > low:  # constant, or not a number
        return torch.ones_like(mask, dtype=torch.bool)
    if how == "quantile":
        return mask >= torch.quantile(mask.flatten(), quantile)
    stretched = (mask - low) / (high - low)
    gray = (stretched * 255).round().cpu().numpy().astype(np.uint8)
    otsu = cv2.THRESH_BINARY + cv2.THRESH_OTSU
    _, binary = cv2.threshold(gray.reshape(-1, 1), 0, 1, otsu)
    return torch.from_numpy(binary).reshape(mask.shape).to(mask.device) > 0


def check_quantile(quantile: float) -> None:
    """Raises ValueError when no pixel is that bright."""
    if quantile >= 1:
        raise ValueError(f"--mask_quantile {quantile:g} leaves no bright pixel; it is below 1")


@register(
    "bright_ending",
    paper="Chen et al., ICLR 2025",
    cost="2N",
    code="chenchen-usyd/BE-PRSS",
    compared="equal to its two passes, in one",
)
class BrightEnding(Detector):
    """Mean over all steps of ||(e(x, c) - e(x, "")) o m|| / mean(m), m the end token's attention at
    the last step.

    Source: official code, which samples twice to have the mask. One pass gives the same, since only
    the squares per pixel are kept.
    """

    spatial = True
    mask_binarise: str = flag(
        "none",
        "the mask in the score: none (attention probabilities), otsu or quantile",
        short="mask",
        choices=BINARIZATIONS,
    )
    mask_quantile: float = flag(
        0.9, "with quantile: share of the pixels that are dark", short="q", above=0.0
    )

    def attention(self, look: Look, index: int) -> dict[str, See]:
        if index < look.total - 1:
            return {}
        ending = EndTokenAttention(look.predictor, look.batch.end_tokens(look.predictor.model))
        look.keep(ending=ending)
        return dict.fromkeys(ending.names, ending.see)

    def on_step(self, look: Look, step: Step, prediction: Prediction) -> None:
        # Squares, summed over channels, are enough to keep until the mask is there.
        look.keep(root=prediction.conditional.square().sum(1, keepdim=True).sqrt())

    def finish(self, look: Look) -> torch.Tensor:
        mask = binarize(self.soft_mask(look), self.mask_binarise, self.mask_quantile)
        return torch.stack([masked_norm(root, mask) for root in look.series["root"]]).mean(0)

    def masks(self, look: Look) -> torch.Tensor:
        """Attention probabilities."""
        return self.soft_mask(look)[:, 0]

    def soft_mask(self, look: Look) -> torch.Tensor:
        """The same, (n, 1, h, w)."""
        (ending,) = look.series["ending"]
        height, width = look.final.shape[-2:]
        return ending.mask(height, width)

    def check(self, total: int) -> None:
        check_quantile(self.mask_quantile)
