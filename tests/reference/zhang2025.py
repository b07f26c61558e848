"""Zhang, Hinojosa, Ghanem 2025 (CAPTAIN): its initial noise, coefficient by coefficient in float64.
Imports nothing of the suite.

The formula is the paper's: x_T = IFFT(M_high FFT(eps) + M_low FFT(x_r)). The disc, the scale of x_r
and the rescaling are not published.
"""

import cmath
import math

import torch


def coefficient(grid: list[list[float]], u: int, v: int) -> complex:
    """One coefficient of the discrete Fourier transform of a grid of numbers."""
    height = len(grid)
    width = len(grid[0])
    total = 0j
    for p in range(height):
        for q in range(width):
            total += grid[p][q] * cmath.exp(-2j * math.pi * (u * p / height + v * q / width))
    return total


def is_low(u: int, v: int, height: int, width: int, cutoff: float) -> bool:
    """Is the frequency's radius below the cutoff? The second half of the indices are the negative
    frequencies.
    """
    signed_u = u if 2 * u < height else u - height
    signed_v = v if 2 * v < width else v - width
    return math.sqrt((signed_u / (height / 2)) ** 2 + (signed_v / (width / 2)) ** 2) < cutoff


def mixed_channel(
    eps: list[list[float]], x_r: list[list[float]], cutoff: float, gain: float
) -> list[list[float]]:
    """One channel of x_T, its low frequencies those of gain * x_r."""
    height = len(eps)
    width = len(eps[0])
    result = [[0.0] * width for _ in range(height)]
    for u in range(height):
        for v in range(width):
            c = (
                gain * coefficient(x_r, u, v)
                if is_low(u, v, height, width, cutoff)
                else coefficient(eps, u, v)
            )
            for p in range(height):
                for q in range(width):
                    result[p][q] += (
                        c * cmath.exp(2j * math.pi * (u * p / height + v * q / width))
                    ).real / (height * width)
    return result


def low_energy(channels: list[list[list[float]]], cutoff: float) -> float:
    """Sum of |coefficient|^2 over the low frequencies of all channels."""
    height = len(channels[0])
    width = len(channels[0][0])
    low = [
        (u, v) for u in range(height) for v in range(width) if is_low(u, v, height, width, cutoff)
    ]
    return sum(abs(coefficient(channel, u, v)) ** 2 for channel in channels for u, v in low)


def initial_noise(
    eps: torch.Tensor, x_r: torch.Tensor, *, cutoff: float, equal_bands: bool
) -> torch.Tensor:
    """x_T of one image, of eps's length. eps, x_r: (4, h, w). equal_bands: x_r is scaled to eps's
    energy below the cutoff first.
    """
    noise = eps.double().tolist()
    structure = x_r.double().tolist()
    gain = (
        math.sqrt(low_energy(noise, cutoff) / low_energy(structure, cutoff)) if equal_bands else 1.0
    )
    x = torch.tensor(
        [mixed_channel(a, b, cutoff, gain) for a, b in zip(noise, structure)], dtype=torch.float64
    )
    return (x * math.sqrt(float((eps.double() ** 2).sum()) / float((x**2).sum()))).float()
