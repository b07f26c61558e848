"""Detectors of memorization: one file each. A larger score means more memorized."""

from memorization_suite import one_name
from memorization_suite.detection.base import DETECTORS, Detector, Look, build_detector

__all__ = ["DETECTORS", "Detector", "Look", "build_detector"]

one_name(__name__)
