"""Prompt sets that detectors run on, and how well their scores tell two sets apart."""

from memorization_suite import one_name

one_name(__name__)
