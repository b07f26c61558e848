"""Whether a quantity is larger, or smaller, under one run than under another, on equal seeds."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    Claim,
    Tested,
    flag,
    verdict_of,
)
from memorization_suite.experiments.evidence.resampling import Estimate, mean_of
from memorization_suite.experiments.evidence.runs import Evidence, paired


@CLAIMS.register("difference")
class DifferenceClaim(Claim):
    """Mean over prompts of (run - other), above or below a bound."""

    quantity: str = flag("copy", "what is compared")
    run: str = flag("", "method and settings")
    other: str = flag("no_mitigation", "method and settings")
    above: float | None = flag(None, "the difference is larger than this")
    below: float | None = flag(None, "the difference is smaller than this", excludes=("above",))

    def test(self, evidence: Evidence) -> Tested:
        if self.above is None and self.below is None:
            raise ValueError("a difference needs a bound: above or below")
        runs = [evidence.only(self.run), evidence.only(self.other)]
        found = paired(runs, self.quantity)
        change = mean_of(found.values[:, 0] - found.values[:, 1], found.clusters)
        if self.below is None:
            bound = self.above or 0.0
            verdict = verdict_of(change, above=bound)
        else:
            bound = self.below
            verdict = verdict_of(Estimate(-change.value, -change.high, -change.low), above=-bound)
        side = "above" if self.below is None else "below"
        text = (
            f"{self.quantity}: difference {change} over {len(found.prompts)} prompts; {side} "
            f"{bound:g}"
        )
        return Tested(verdict, text, change._asdict())
