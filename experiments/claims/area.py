"""Whether a method's trade-off is better than those of others, by the area below it."""

from __future__ import annotations

from memorization_suite.experiments.evidence.areas import Areas
from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    Claim,
    Tested,
    all_of,
    flag,
    verdict_of,
)
from memorization_suite.experiments.evidence.runs import Evidence


@CLAIMS.register("area")
class AreaClaim(Claim):
    """Each paired difference above a bound: it holds against all, in part against some."""

    series: str = flag("", "the method, with settings")
    against: tuple[str, ...] = flag((), "its rivals")
    x: str = flag("copy", "what is to be low")
    y: str = flag("alignment", "what is to be high")
    above: float = flag(0.0, "the bound")

    def about(self) -> str:
        return f"area of {self.y} over {self.x}: {self.series} less {', '.join(self.against)}"

    def test(self, evidence: Evidence) -> Tested:
        if not self.against:
            raise ValueError("against is empty: name the rivals")
        areas = Areas.of(evidence, self.x, self.y, (self.series, *self.against))
        found = {rival: areas.difference(self.series, rival) for rival in self.against}
        verdicts = [verdict_of(each, above=self.above) for each in found.values()]
        texts = [f"{rival} {each}" for rival, each in found.items()]
        text = f"area less that of {', '.join(texts)}; bound {self.above:g}"
        return Tested(all_of(verdicts), text, found)
