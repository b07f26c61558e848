"""Detectors of memorization: one file each. A larger score means more memorized."""

from detection.base import Detector, Watcher, build_detector, detectors

__all__ = ["Detector", "Watcher", "build_detector", "detectors"]
