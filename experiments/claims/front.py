"""Whether a method's settings lie above the fronts of others, for methods of few settings.

An area grows with the number of settings; a method of one cannot be compared by it.
"""

from __future__ import annotations

from memorization_suite.experiments.evidence.areas import Areas
from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    Claim,
    Tested,
    all_of,
    bound_text,
    flag,
    verdict_of,
)
from memorization_suite.experiments.evidence.runs import Evidence


@CLAIMS.register("front")
class FrontClaim(Claim):
    """Each paired lead at equal x, above or below a bound: all hold, or some in part."""

    series: str = flag("", "the method, with settings")
    against: tuple[str, ...] = flag((), "its rivals")
    x: str = flag("copy", "what is to be low")
    y: str = flag("alignment", "what is to be high")
    above: float | None = flag(None, "the lead is larger than this")
    below: float | None = flag(None, "the lead is smaller than this", excludes=("above",))

    def about(self) -> str:
        return (
            f"{self.y} at equal {self.x}: {self.series} less the front of {', '.join(self.against)}"
        )

    def test(self, evidence: Evidence) -> Tested:
        if self.above is None and self.below is None:
            raise ValueError("a lead needs a bound: above or below")
        if not self.against:
            raise ValueError("against is empty: name the rivals")
        areas = Areas.of(evidence, self.x, self.y, (self.series, *self.against))
        found = {rival: areas.lead(self.series, rival) for rival in self.against}
        verdicts = [verdict_of(each, above=self.above, below=self.below) for each in found.values()]
        texts = [f"{rival} {each}" for rival, each in found.items()]
        text = (
            f"{self.y} at equal {self.x}, less that of {', '.join(texts)}; where a rival has no "
            f"such {self.x}, less the lowest {self.y} of these methods; "
            f"{bound_text(self.above, self.below)}"
        )
        return Tested(all_of(verdicts), text, found)
