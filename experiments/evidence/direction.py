"""Which way a quantity is better, for all figures and tables."""

from __future__ import annotations

from memorization_suite.experiments.evidence.swept_run import ROLES, SweptRun
from memorization_suite.metrics.base import quantity_named

# Less of these is better; no metric tells of them.
LESS = ("copies", "magnitude")


def sign_of(run: SweptRun, quantity: str) -> int:
    """1 where more is better, -1 where less is. quantity: one of a metric, or a role."""
    if quantity in LESS:
        return -1
    known = quantity_named(heading(run, quantity))
    return -1 if known and known.better == "lower" else 1


def heading(run: SweptRun, quantity: str) -> str:
    """A quantity's own name: that of the metric which has the role in this run."""
    if quantity not in ROLES:
        return quantity
    try:
        return run.of_role(quantity)
    except ValueError:
        return quantity
