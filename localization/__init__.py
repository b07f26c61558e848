"""Which neurons a memorized prompt needs: NeMo, Hintersdorf et al., NeurIPS 2024. `main(argv)` is
the command line of localize_neurons.py.
"""

from localization.command import main

__all__ = ["main"]
