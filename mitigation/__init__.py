"""Mitigations: one file per method. `build_mitigation(name, **settings)` makes one."""

from memorization_suite import one_name
from memorization_suite.mitigation.base import Adjustment, Mitigation
from memorization_suite.mitigation.registry import build_mitigation, methods

__all__ = ["Adjustment", "Mitigation", "build_mitigation", "methods"]

one_name(__name__)
