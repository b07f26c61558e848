"""Detectors of memorization: one file each. A larger score means more memorized."""

from memorization_suite import one_name
from memorization_suite.detection.base import Detector, Watcher, build_detector, detectors

__all__ = ["Detector", "Watcher", "build_detector", "detectors"]

one_name(__name__)
