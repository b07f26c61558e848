"""Which neurons a memorized prompt needs: NeMo, Hintersdorf et al., NeurIPS 2024. `main(argv)` is
the command line of localize_neurons.py.
"""

from memorization_suite import one_name
from memorization_suite.localization.command import main

__all__ = ["main"]

one_name(__name__)
