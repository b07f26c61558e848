"""Mitigations: one file per method. `build_mitigation(name, **settings)` makes one."""

from mitigation.base import Adjustment, Mitigation
from mitigation.registry import build_mitigation, methods

__all__ = ["Adjustment", "Mitigation", "build_mitigation", "methods"]
