"""Which neurons a memorized prompt needs: NeMo. *Source:* Hintersdorf et al., NeurIPS 2024."""

from memorization_suite import one_name

one_name(__name__)
