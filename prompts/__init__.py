"""Prompt files and how they are read."""

from memorization_suite import one_name

one_name(__name__)
