"""A mask as colours over its image."""

from __future__ import annotations

import cv2
import numpy as np


def overlay(
    image: np.ndarray, mask: np.ndarray, *, side: int = 256, strength: float = 0.5
) -> bytes:
    """PNG of the image with the mask's heat map over it, from the mask's least to its largest
    value. image: (H, W, 3) in [0, 1]; mask: (h, w).
    """
    size = (max(image.shape[1], side), max(image.shape[0], side))
    low, high = float(mask.min()), float(mask.max())
    scaled = (mask - low) / (high - low) if high > low else np.zeros_like(mask)
    heat = cv2.applyColorMap(
        cv2.resize((255 * scaled).round().astype(np.uint8), size, interpolation=cv2.INTER_LINEAR),
        cv2.COLORMAP_JET,
    )
    picture = cv2.resize(
        cv2.cvtColor((255 * image).round().astype(np.uint8), cv2.COLOR_RGB2BGR),
        size,
        interpolation=cv2.INTER_LINEAR,
    )
    done, data = cv2.imencode(".png", cv2.addWeighted(picture, 1 - strength, heat, strength, 0))
    if not done:
        raise RuntimeError("OpenCV could not write a PNG")
    return data.tobytes()
