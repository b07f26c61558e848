"""Scores of generated images, and the scripts that compute them."""

from memorization_suite import one_name

one_name(__name__)
