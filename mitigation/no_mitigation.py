"""Plain sampling with classifier-free guidance."""

from memorization_suite.mitigation.base import Mitigation, register


@register("no_mitigation", paper="Ho and Salimans 2022 (classifier-free guidance)")
class NoMitigation(Mitigation):
    """Guidance at every step, from the noise as drawn."""
