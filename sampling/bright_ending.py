"""Bright Ending: at the last step the end token's cross-attention is bright where the image is
memorized. Chen et al., ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from memorization_suite.lazy import cv2, np, torch
from memorization_suite.sampling.attention import (
    OpenAttention,
    attention_names,
    last_token,
    patched_attention,
)
from memorization_suite.sampling.batch import Batch
from memorization_suite.sampling.guidance import Step
from memorization_suite.sampling.loop import OnStep
from memorization_suite.sampling.noise_predictor import NoisePredictor, Prediction, row_norm

BINARISE = ("none", "otsu", "quantile")


class BrightEnding:
    """Keeps how much each pixel attends to the end token: half "text", the down path's
    cross-attentions of the finest resolution, newest call.

    ends: position of each image's end token, see `last_token`. names: the modules whose
    probabilities `see` has to be shown.
    Source: official code, 64 x 64 layers of SD 1.4. Differs from it: layers are found by their
    number of queries, for every model and size.
    """

    def __init__(self, predictor: NoisePredictor, ends: list[int]):
        self.predictor, self.ends = predictor, ends
        self.names = attention_names(predictor.unet, contains="down_blocks")
        self.queries = 0
        self.layers: dict[str, torch.Tensor] = {}

    def see(self, name: str, probs: torch.Tensor) -> None:
        """probs: (rows, heads, queries, tokens). Averages the heads; coarser layers than another
        are left out.
        """
        queries, call = probs.shape[2], self.predictor.call
        if queries < self.queries:
            return
        if queries > self.queries:
            self.queries, self.layers = queries, {}
        layer = self.layers.setdefault(
            name, torch.zeros(len(self.ends), queries, device=probs.device)
        )
        images = call.image_of_row()
        for row in call.rows_of("text").nonzero().flatten().tolist():
            image = int(images[row])
            layer[image] = probs[row, :, :, self.ends[image]].detach().float().mean(0)

    def mask(self, height: int, width: int) -> torch.Tensor:
        """Attention probabilities (n, 1, height, width), mean over the layers. height, width: of
        the latents.

        Raises ValueError when no attention was seen, or none of this aspect ratio.
        """
        if not self.layers:
            raise ValueError("no cross-attention of the UNet's down path was seen")
        small = grid(self.queries, height, width)
        mask = torch.stack(list(self.layers.values())).mean(0).reshape(-1, 1, *small)
        return (
            mask
            if small == (height, width)
            else torch.nn.functional.interpolate(mask, (height, width), mode="bilinear")
        )

    @contextmanager
    def last_step(self, total: int) -> Iterator[OnStep]:
        """on_step for a run of `total` steps; attention is open in its last step only. An unguided
        run computes the text half there.
        """
        with ExitStack() as stack:

            def look() -> None:
                stack.enter_context(
                    patched_attention(
                        self.predictor.unet,
                        lambda name: OpenAttention(name, see=self.see),
                        self.names,
                    )
                )

            def on_step(step: Step, prediction: Prediction) -> None:
                if step.index == total - 2:
                    look()
                elif step.index == total - 1:
                    prediction.need("text")

            if total == 1:
                look()
            yield on_step


def grid(queries: int, height: int, width: int) -> tuple[int, int]:
    """Height and width of a layer with so many queries: the latents' size, halved (rounding up) as
    often as it takes.
    """
    h, w = height, width
    while h * w > queries:
        h, w = (h + 1) // 2, (w + 1) // 2
    if h * w != queries:
        raise ValueError(f"{queries} attention queries do not fit latents of {height} x {width}")
    return h, w


def look_ahead(predictor: NoisePredictor, batch: Batch) -> tuple[torch.Tensor, Prediction]:
    """Masks (n, 1, h, w) from a plain run on the batch's own noise, which costs what a run costs,
    and that run's prediction at step 0.

    Raises ValueError without a tokenizer.
    """
    if batch.pipe is None or batch.plain_run is None:
        raise ValueError(
            "a Bright Ending mask needs the tokenizer to find the end token and a first run: "
            "sample with a pipeline"
        )
    first: list[Prediction] = []
    ending = BrightEnding(
        predictor,
        [last_token(batch.pipe.tokenizer, prompt) for prompt in batch.encoded or batch.prompts],
    )
    with ending.last_step(len(predictor.scheduler.timesteps)) as on_step:

        def watch(step: Step, prediction: Prediction) -> None:
            if step.index == 0:
                first.append(prediction)
            on_step(step, prediction)

        batch.plain_run(watch)
    return ending.mask(*first[0].x.shape[-2:]), first[0]


def relative(mask: torch.Tensor) -> torch.Tensor:
    """mask / mean(mask) for each image. (n, 1, h, w) -> the same."""
    return mask / mask.mean((1, 2, 3), keepdim=True).clamp(min=torch.finfo(mask.dtype).tiny)


def masked_norm(e: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """||e o m|| / mean(m) for each image, (n,) float32: the plain norm where the mask is constant.

    e: (n, c, h, w), or (n, 1, h, w) the root of its squares' sum over channels, which is enough to
    keep. mask: (n, 1, h, w).
    """
    return row_norm(e.float() * relative(mask.float()))


def binarise(mask: torch.Tensor, how: str = "otsu", quantile: float = 0.9) -> torch.Tensor:
    """1 where the mask is bright and 0 elsewhere, for each image; a constant mask becomes all ones.
    (n, 1, h, w) -> the same, float32.

    how: "otsu" (threshold between two classes of brightness), "quantile" (the brightest 1 -
    quantile of the pixels), "none" (as it is).
    """
    if how not in BINARISE:
        raise ValueError(
            f"a mask cannot be made binary by {how!r}; there are {', '.join(BINARISE)}"
        )
    if how == "none":
        return mask.float()
    return torch.stack([bright(one.float(), how, quantile) for one in mask]).float()


def bright(mask: torch.Tensor, how: str, quantile: float) -> torch.Tensor:
    """The bright pixels of one mask, bool."""
    low, high = mask.min(), mask.max()
    if not high > low:  # constant, or not a number
        return torch.ones_like(mask, dtype=torch.bool)
    if how == "quantile":
        return mask >= torch.quantile(mask.flatten(), quantile)
    grey = ((mask - low) / (high - low) * 255).round().cpu().numpy().astype(np.uint8)
    _, found = cv2.threshold(grey.reshape(-1, 1), 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return torch.from_numpy(found).reshape(mask.shape).to(mask.device) > 0
