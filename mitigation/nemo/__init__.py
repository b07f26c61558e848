"""NeMo: which neurons a memorized prompt needs, and sampling without them.

*Source:* Hintersdorf et al., NeurIPS 2024.
"""

from memorization_suite.mitigation.nemo.method import Nemo

__all__ = ["Nemo"]
