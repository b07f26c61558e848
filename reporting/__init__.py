"""Run folders as one page."""

from memorization_suite import one_name

one_name(__name__)
