"""A mask as colors over its image."""

from __future__ import annotations

from memorization_suite.runs.lazy import cv2, np


def overlay(
    image: np.ndarray, mask: np.ndarray, *, side: int = 256, strength: float = 0.5
) -> bytes:
    """PNG of the image with the mask's heat map over it, from the mask's least to its largest
    value. image: (H, W, 3) in [0, 1]; mask: (h, w).
    """
    height, width, _ = image.shape
    size = (max(width, side), max(height, side))
    low = float(mask.min())
    high = float(mask.max())
    scaled = np.zeros_like(mask)
    if high > low:
        scaled = (mask - low) / (high - low)
    heat = cv2.resize(as_bytes(scaled), size, interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap(heat, cv2.COLORMAP_JET)
    picture = cv2.cvtColor(as_bytes(image), cv2.COLOR_RGB2BGR)
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    blended = cv2.addWeighted(picture, 1 - strength, heat, strength, 0)
    done, data = cv2.imencode(".png", blended)
    if not done:
        raise RuntimeError("OpenCV could not write a PNG")
    return data.tobytes()


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as whole numbers up to 255; what is not a number as 0."""
    scaled = 255 * np.nan_to_num(values)
    return scaled.round().astype(np.uint8)
