"""Mitigations: one file per method. `build_mitigation(name, **settings)` makes one."""

from memorization_suite import one_name
from memorization_suite.mitigation.base import METHODS, Adjustment, Mitigation
from memorization_suite.mitigation.registry import build_mitigation

__all__ = ["METHODS", "Adjustment", "Mitigation", "build_mitigation"]

one_name(__name__)
