"""Image scores as researchers' scripts compute them: one image or one pair at a time, in loops.
Imports nothing of the suite.

Images are PIL images of any size, models are in eval mode and on the CPU. An SSCD model takes
(1, 3, h, w) and gives (1, d).
"""

import math

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from tests.reference.pillow_resize import resize, small_edge

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def sscd_transform(preset: str) -> transforms.Compose:
    """PIL image in RGB -> (3, h, w). official320 and small288 are the two of the README of
    facebookresearch/sscd-copy-detection, official320 also Han's and NeMo's; sq288 is MemBench's;
    wen224 is `measure_SSCD_similarity` of YuxinWenRick/diffusion_memorization.
    """
    if preset == "official320":
        steps = [
            lambda image: resize(image, (320, 320), "bilinear"),
            transforms.ToTensor(),
            transforms.Normalize(*IMAGENET),
        ]
    elif preset == "sq288":
        steps = [
            lambda image: resize(image, (288, 288), "bilinear"),
            transforms.ToTensor(),
            transforms.Normalize(*IMAGENET),
        ]
    elif preset == "small288":
        steps = [
            lambda image: small_edge(image, 288, "bilinear"),
            transforms.ToTensor(),
            transforms.Normalize(*IMAGENET),
        ]
    elif preset == "wen224":
        steps = [
            lambda image: small_edge(image, 256, "bilinear"),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    else:
        raise ValueError(f"preset {preset!r} is none of official320, sq288, small288, wen224")
    return transforms.Compose(steps)


@torch.no_grad()
def sscd_descriptor(model, image: Image.Image, preset: str) -> torch.Tensor:
    """Descriptor of one image, (d,), of length 1 (normalized again here, as Wen's script does).
    Source: as sscd_transform.
    """
    descriptor = model(sscd_transform(preset)(image.convert("RGB")).unsqueeze(0))[0]
    return descriptor / torch.sqrt((descriptor**2).sum())


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of two descriptors of length 1, (d,) and (d,)."""
    return float((a * b).sum())


def sscd_score(model, image: Image.Image, references: list[Image.Image], preset: str) -> float:
    """Largest cosine between the image and any of its prompt's references. Source: Wen et al., ICLR
    2024; Han et al., NeurIPS 2025.
    """
    mine = sscd_descriptor(model, image, preset)
    best = -math.inf
    for reference in references:
        best = max(best, cosine(mine, sscd_descriptor(model, reference, preset)))
    return best


def clip_pixels(image: Image.Image) -> torch.Tensor:
    """PIL image in the mode of its file -> (3, 224, 224). It becomes RGB after it was resized and
    cropped. Source: open_clip, `image_transform` (also ImageReward's `_transform`).
    """
    small = small_edge(image, 224, "bicubic")
    rgb = transforms.CenterCrop(224)(small).convert("RGB")
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(*CLIP)])(rgb)


@torch.no_grad()
def clip_score(model, preprocess, tokenizer, image: Image.Image, text: str) -> float:
    """Raw cosine between image and text, neither times 100 nor cut at 0. Source:
    `measure_CLIP_similarity` of YuxinWenRick/diffusion_memorization. model, preprocess, tokenizer:
    open_clip's.
    """
    of_image = model.encode_image(preprocess(image).unsqueeze(0))[0]
    of_text = model.encode_text(tokenizer([text]))[0]
    return cosine(of_image / of_image.norm(), of_text / of_text.norm())


@torch.no_grad()
def lpips_diversity(loss_fn, images: list[Image.Image]) -> float:
    """Mean LPIPS over all n(n-1)/2 pairs of a prompt's images, all of one size; nan for n < 2.
    Source: Han et al., NeurIPS 2025. loss_fn: lpips.LPIPS; it takes two images of shape
    (1, 3, h, w) in [-1, 1].
    """
    tensors = []
    for image in images:
        tensors.append(transforms.ToTensor()(image.convert("RGB")).unsqueeze(0) * 2.0 - 1.0)
    total = 0.0
    pairs = 0
    for i in range(len(tensors)):
        for j in range(i):
            total += float(loss_fn(tensors[i], tensors[j]))
            pairs += 1
    return total / pairs if pairs else math.nan


def nemo_sscd_gen(
    model, mitigated: list[Image.Image], unmitigated: list[Image.Image], preset: str
) -> list[float]:
    """Cosine of each mitigated image with the unmitigated image of the same seed, in the order
    given. Source: Hintersdorf et al., NeurIPS 2024, `metrics/compute_sscd_gen.py`.
    """
    cosines = []
    for one, other in zip(mitigated, unmitigated, strict=True):
        cosines.append(
            cosine(sscd_descriptor(model, one, preset), sscd_descriptor(model, other, preset))
        )
    return cosines


def lower_median(values: list[float]) -> float:
    """Median as torch.median takes it: the lower of the two middle values of an even number.
    Source: all of NeMo's medians.
    """
    return sorted(values)[(len(values) - 1) // 2]


def nemo_diversity(model, images: list[Image.Image], preset: str) -> float:
    """Median (the lower one) of the cosines below the diagonal of the n x n matrix; less is more
    diverse. Source: Hintersdorf et al., NeurIPS 2024, `metrics/compute_diversity.py`, tril with
    diagonal -1.
    """
    descriptors = []
    for image in images:
        descriptors.append(sscd_descriptor(model, image, preset))
    below = []
    for i in range(len(images)):
        for j in range(i):
            below.append(cosine(descriptors[i], descriptors[j]))
    return lower_median(below)


def upsampled(mask: np.ndarray, image: Image.Image) -> torch.Tensor:
    """Mask (h, w) in [0, 1] at the image's size, (height, width) float32: bilinear,
    align_corners=False, no antialias. Source: Chen et al., ICLR 2025 (bright ending), section on
    localized similarity.
    """
    small = torch.tensor(np.asarray(mask, dtype=np.float32))[None, None]
    return F.interpolate(
        small, size=(image.height, image.width), mode="bilinear", align_corners=False
    )[0, 0]


def at_size_of(image: Image.Image, reference: Image.Image) -> Image.Image:
    """Reference in RGB at the image's size (bilinear), itself if it has that size. Source: a
    choice of ours; the paper does not say.
    """
    reference = reference.convert("RGB")
    return reference if reference.size == image.size else resize(reference, image.size, "bilinear")


def filled_outside(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """Image in RGB whose pixels outside of the binary mask have its mean color. Source: a choice of
    ours for Chen et al., ICLR 2025.

    mask: (h, w) in [0, 1]; binary mask = upsampled mask > 0.5; mean color = mean of each channel
    over the whole image, masked or not, rounded to a whole number of 0..255 (half to even), so that
    the result is an ordinary 8-bit image.
    """
    pixels = np.array(image.convert("RGB"))
    outside = ~(upsampled(mask, image) > 0.5).numpy()
    for c in range(3):
        color = round(float(pixels[:, :, c].astype(np.float64).mean()))
        pixels[:, :, c][outside] = color
    return Image.fromarray(pixels)


def ls_l2(image: Image.Image, reference: Image.Image, mask: np.ndarray) -> float:
    """Localized similarity -||(x - y) m|| / sqrt(3 sum m^2), at most 0, pixels in [0, 1]; nan for
    an empty mask. Source: Chen et al., ICLR 2025; formula as stated by us, as the authors released
    none.

    mask: (h, w) in [0, 1], upsampled to the image's size and used as it is, not binarized;
    reference resized to the image's size.
    """
    x = transforms.ToTensor()(image.convert("RGB")).double()
    y = transforms.ToTensor()(at_size_of(image, reference)).double()
    m = upsampled(mask, image).double()
    weight = float((m**2).sum())
    squares = 0.0
    for c in range(3):
        squares += float((((x[c] - y[c]) * m) ** 2).sum())
    return -math.sqrt(squares) / math.sqrt(3 * weight) if weight > 0 else math.nan


def ls_sscd(
    model, image: Image.Image, reference: Image.Image, mask: np.ndarray, preset: str
) -> float:
    """Localized similarity: cosine of the descriptors of both images, each filled with its own mean
    color outside of the binary mask. Source: as ls_l2; the reference is resized to the image's size
    before, choices of the fill in filled_outside.
    """
    one = filled_outside(image, mask)
    other = filled_outside(at_size_of(image, reference), mask)
    return cosine(sscd_descriptor(model, one, preset), sscd_descriptor(model, other, preset))


def ls_gated(
    model,
    image: Image.Image,
    reference: Image.Image,
    mask: np.ndarray,
    preset: str,
    threshold: float = 0.5,
) -> float:
    """ls_l2 if the cosine of the whole images (neither filled nor resized to each other) is above
    the threshold, else nan. Source: as ls_l2.
    """
    whole = cosine(sscd_descriptor(model, image, preset), sscd_descriptor(model, reference, preset))
    return ls_l2(image, reference, mask) if whole > threshold else math.nan


def bootstrap_interval(
    values_by_prompt: dict[int, list[float]], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval (low, high) of the mean over prompts of each prompt's mean. Source:
    Efron, 1979; prompts are what is drawn.

    Prompts in ascending order; per resample one rng.integers(n, size=n) of default_rng(seed);
    quantiles with linear interpolation.
    """
    means = []
    for prompt in sorted(values_by_prompt):
        means.append(sum(values_by_prompt[prompt]) / len(values_by_prompt[prompt]))
    rng = np.random.default_rng(seed)
    n = len(means)
    resampled = []
    for _ in range(resamples):
        drawn = rng.integers(n, size=n)
        resampled.append(sum(means[k] for k in drawn) / n)
    return float(np.percentile(resampled, 2.5)), float(np.percentile(resampled, 97.5))


def summary(scores: list[float]) -> dict[str, float]:
    """Mean, shares strictly above 0.5 and 0.7, 95th percentile (linear interpolation) of scores.
    Source: Somepalli et al. 2023, Wen et al. 2024. Keys: mean, above_0.5, above_0.7, percentile_95.
    """
    n = len(scores)
    return {
        "mean": sum(scores) / n,
        "above_0.5": sum(score > 0.5 for score in scores) / n,
        "above_0.7": sum(score > 0.7 for score in scores) / n,
        "percentile_95": float(np.percentile(scores, 95)),
    }
