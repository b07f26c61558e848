"""Initial noise with a reference image's low frequencies.

Zhang, Hinojosa, Ghanem 2025 (CAPTAIN).
"""

from __future__ import annotations

from memorization_suite.mitigation.base import Adjustment, Mitigation, flag, register
from memorization_suite.runs.decoding import Undecodable, decoded, in_rgb
from memorization_suite.runs.lazy import Image, ImageOps, np, torch
from memorization_suite.sampling import Batch, Denoiser, NoisePredictor
from memorization_suite.sampling.noise_predictor import row_norm, stretch


def low_frequencies(height: int, width: int, cutoff: float) -> torch.Tensor:
    """M_low in the order of torch.fft, (height, width) bool.

    Radius below cutoff, in units of the highest frequency along an axis.
    """
    rows = torch.fft.fftfreq(height)[:, None]
    columns = torch.fft.fftfreq(width)[None]
    radius = 2 * torch.hypot(rows, columns)
    return radius < cutoff


def low_pass(x: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """IFFT(M_low FFT(x)), real, since M_low is symmetric. x: (n, 4, h, w)."""
    spectrum = torch.where(low.to(x.device), torch.fft.fft2(x), 0.0)
    return torch.fft.ifft2(spectrum).real


def as_long_as(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """b at the length of a, for each image; zero stays zero. (n, 4, h, w)."""
    return b * stretch(row_norm(a), row_norm(b))


@register(
    "captain_noise",
    paper="Zhang et al. 2025 (CAPTAIN's initial noise)",
    cost="2N",
    compared="no code is published; the formula of the initial noise alone",
)
class CaptainNoise(Mitigation):
    """The initial noise gets the low frequencies of one given image, which should be no training
    image: x_T = IFFT(M_high FFT(eps) + M_low FFT(x_r)), x_r the image's VAE latent.

    Source: the formula of Zhang, Hinojosa and Ghanem; no code is published. This is CAPTAIN's
    initial noise alone: no retrieval of references, no window of steps, no memorized region, no
    injection of features.

    Ours, since the paper's masks and scale are not known: M_low is a disc. x_r is the latent's mode
    times the VAE's scaling factor, without noise. The result gets the length of the noise as drawn,
    so unit variance. A clean latent's low frequencies are far stronger than noise's. So the image
    takes on the reference's colors, and its high frequencies start weaker than the model expects.
    --rescale band gives the replaced band the length that it had in the noise, and leaves the rest
    as drawn.
    """

    reference: str = flag(
        "", "image file, cut to the latent's shape and resized", short="ref", file=True
    )
    cutoff: float = flag(
        0.1,
        "radius of the low frequencies; 1: the highest along an axis",
        short="cut",
        at_least=0.0,
    )
    rescale: str = flag(
        "image",
        "what is rescaled: the image, or the band that was replaced",
        choices=("image", "band"),
        always_named=False,
    )

    def adjust_initial_noise(
        self, predictor: NoisePredictor, x: torch.Tensor, t, batch: Batch
    ) -> Adjustment:
        low = low_frequencies(x.shape[-2], x.shape[-1], self.cutoff)
        if not low.any():
            return Adjustment(x, {"moved": torch.zeros(len(x))})
        band = low_pass(x, low)
        structure = low_pass(self.latent(predictor.model, x), low).expand_as(x)
        if self.rescale == "band":
            structure = as_long_as(band, structure)
        mixed = as_long_as(x, x - band + structure)
        return Adjustment(mixed, {"moved": row_norm(mixed - x)})

    def latent(self, model: Denoiser, x: torch.Tensor) -> torch.Tensor:
        """x_r, (1, 4, h, w) float32, of the shape of x.

        Raises ValueError for a file that is no image or whose latent is not finite.
        """
        height, width = (side * model.downsampling for side in x.shape[-2:])
        picture = ImageOps.fit(self.picture(), (width, height), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
        latent = model.encode_images(pixels)
        if not latent.isfinite().all():
            raise ValueError(
                f"--reference: the VAE's latent of {self.reference} is not finite; --dtype fp32 "
                "helps"
            )
        return latent

    def check(self, num_steps: int) -> None:
        if not self.reference:
            raise ValueError(
                "captain_noise needs --reference FILE: an image that the model has not memorized"
            )
        self.picture()

    def picture(self) -> Image.Image:
        """The reference, RGB. Raises ValueError for a file that is no whole image."""
        try:
            return in_rgb(decoded(self.reference), self.reference)
        except Undecodable as error:
            raise ValueError(
                f"--reference: {self.reference} cannot be read as an image (it {error.fault}): "
                f"{error.mend or 'give a whole one'}"
            ) from error
