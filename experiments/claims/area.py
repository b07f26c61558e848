"""Whether a method's trade-off is better than those of others, by the area below it."""

from __future__ import annotations

from memorization_suite.experiments.evidence.areas import Areas
from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    HOLDS,
    IN_PART,
    NOT,
    Claim,
    Tested,
    flag,
    verdict_of,
)
from memorization_suite.experiments.evidence.runs import Evidence


@CLAIMS.register("area")
class AreaClaim(Claim):
    """Each paired difference above a bound: it holds against all, in part against some."""

    series: str = flag("", "the method, with settings")
    against: tuple[str, ...] = flag((), "rivals (default every other method)")
    x: str = flag("copy", "what is to be low")
    y: str = flag("alignment", "what is to be high")
    above: float = flag(0.0, "the bound")

    def test(self, evidence: Evidence) -> Tested:
        rivals = self.against or tuple(
            name
            for name in dict.fromkeys(run.method for run in evidence.runs)
            if name not in ("no_mitigation", self.series)
        )
        areas = Areas.of(evidence, self.x, self.y, (self.series, *rivals))
        verdicts = []
        texts = []
        values = {}
        for rival in rivals:
            found = areas.difference(self.series, rival)
            verdicts.append(verdict_of(found, above=self.above))
            texts.append(f"{rival} {found}")
            values[rival] = found.value
        text = f"area less that of {', '.join(texts)}; bound {self.above:g}"
        return Tested(all_of(verdicts), text, values)


def all_of(verdicts: list[str]) -> str:
    """Of several tests: of all, of some, of none."""
    if all(verdict == HOLDS for verdict in verdicts):
        return HOLDS
    return NOT if all(verdict == NOT for verdict in verdicts) else IN_PART
