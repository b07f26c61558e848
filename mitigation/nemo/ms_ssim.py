"""MS-SSIM: how like two maps are, over three scales.

*Source:* Wang et al., 2003, with the settings of Hintersdorf et al., NeurIPS 2024. Their code takes
it from torchmetrics 1.3.2; what is written here gives the same numbers. Later releases of
torchmetrics average the last scale over the padded map, which makes others of them.
"""

from __future__ import annotations

from memorization_suite.runs.lazy import F, torch

# Three scales, of equal weight.
BETAS = (0.33, 0.33, 0.33)
# Width and standard deviation of the Gaussian window.
KERNEL = 11
SIGMA = 1.5
# Side of a map that three scales fit into.
SMALLEST = 12
# Of the data range: what keeps the quotients finite.
K1 = 0.01
K2 = 0.03


def kernel_size(side: int) -> int:
    """Width of the window: the largest odd number up to 11 that is at most side // 4.

    The window then fits into the third scale of maps of this side, in pixels. It is 11, as
    published, from side 44 on; 3 for 16. Its standard deviation shrinks with it. Raises ValueError.
    """
    if side < SMALLEST:
        raise ValueError(
            f"the noise maps are {side} x {side}, too small for three scales; the least is "
            f"{SMALLEST} x {SMALLEST}"
        )
    fits = side // 4
    odd = fits if fits % 2 else fits - 1
    return min(KERNEL, odd)


def gaussian_window(kernel: int) -> torch.Tensor:
    """Weights of `kernel` pixels in a row, (kernel,) float64, of sum one."""
    sigma = SIGMA * kernel / KERNEL
    offsets = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    weights = torch.exp(-((offsets / sigma) ** 2) / 2)
    return weights / weights.sum()


def local_means(images: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Means under the window, where all of it lies inside the image.

    images: (..., h, w) -> (..., h - kernel + 1, w - kernel + 1). Sums, not a convolution, which
    CUDA may round to ten bits: variances are small differences.
    """
    border = len(window) - 1
    height = images.shape[-2] - border
    width = images.shape[-1] - border

    rows = sum(weight * images[..., k : k + height, :] for k, weight in enumerate(window))
    return sum(weight * rows[..., k : k + width] for k, weight in enumerate(window))


def data_range(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """From the least to the largest value of a stack, the larger of both."""
    return torch.maximum(a.max() - a.min(), b.max() - b.min())


def ssim(
    a: torch.Tensor, b: torch.Tensor, window: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(similarity, its contrast term) of a[i] and b[i] at one scale, (n,) each.

    Both are means over channels and pixels without the window's border, so no padding enters. The
    data range is that of all n maps.
    """
    size = data_range(a, b)
    c1 = (K1 * size) ** 2
    c2 = (K2 * size) ** 2

    moments = torch.stack([a, b, a * a, b * b, a * b])
    mean_a, mean_b, square_a, square_b, product = local_means(moments, window)
    variance_a = (square_a - mean_a**2).clamp(min=0)
    variance_b = (square_b - mean_b**2).clamp(min=0)
    covariance = product - mean_a * mean_b

    contrast = (2 * covariance + c2) / (variance_a + variance_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    similarity = luminance * contrast
    return similarity.mean((1, 2, 3)), contrast.mean((1, 2, 3))


def ms_ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """MS-SSIM of a[i] and b[i], (n,) for maps (n, channels, h, w); 1 for equal maps.

    The product over scales of a mean to the power of 0.33, negative ones cut at zero: the contrast
    term at the first two scales, the similarity at the last. Each scale has half the side.
    """
    window = gaussian_window(kernel_size(min(a.shape[2:]))).to(a)
    value = a.new_ones(len(a))
    for scale, beta in enumerate(BETAS, start=1):
        similarity, contrast = ssim(a, b, window)
        term = similarity if scale == len(BETAS) else contrast
        value = value * term.relu() ** beta

        a = F.avg_pool2d(a, 2)
        b = F.avg_pool2d(b, 2)
    return value
