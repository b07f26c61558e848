"""Plain sampling with classifier-free guidance."""

from memorization_suite.mitigation.base import Mitigation, register


@register(
    "no_mitigation",
    paper="Ho and Salimans 2022 (guidance)",
    code="huggingface/diffusers",
    compared="equal to diffusers' pipeline bit for bit",
)
class NoMitigation(Mitigation):
    """Classifier-free guidance at every step, from the noise as drawn."""
