"""Whether two runs give the same pictures."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    HOLDS,
    IN_PART,
    NOT,
    Claim,
    Tested,
    flag,
)
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.experiments.tables.changed import compared


@CLAIMS.register("same")
class SameClaim(Claim):
    """All images have the same pixels; in part: some have."""

    run: str = flag("", "method and settings")
    other: str = flag("no_mitigation", "method and settings")

    def about(self) -> str:
        return f"share of equal images: {self.run} and {self.other}"

    def test(self, evidence: Evidence) -> Tested:
        same, _ = compared(evidence.only(self.run), evidence.only(self.other))
        verdict = HOLDS if same.value == 1 else IN_PART if same.value else NOT
        return Tested(verdict, f"{same.value:.1%} of the images are the same", {"same": same})
