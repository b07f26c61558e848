"""The embedded model: its world (captions and pictures), its training and where its files lie.

Imports nothing of ours besides `runs`.
"""

from memorization_suite import one_name

one_name(__name__)
