"""Whether two quantities of equal seeds rise together, or one falls as the other rises."""

from __future__ import annotations

from memorization_suite.experiments.evidence.association import Asked
from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    NOT,
    Claim,
    Tested,
    flag,
    verdict_of,
)
from memorization_suite.experiments.evidence.runs import Evidence


@CLAIMS.register("association")
class AssociationClaim(Claim):
    """Mean rank correlation over prompts above a bound."""

    x: str = flag("magnitude", "a quantity of the run `x_run`")
    x_run: str = flag("", "method and settings")
    y: str = flag("transition", "a quantity of `y_run`, or free_start")
    y_run: str = flag("", "method and settings")
    above: float = flag(0.0, "the bound", at_least=-1.0, at_most=1.0)
    seeds: int = flag(50, "fewest seeds of a prompt for a verdict", at_least=2)

    def test(self, evidence: Evidence) -> Tested:
        found = Asked(self.x, self.x_run, self.y, self.y_run).association(evidence)
        if found.seeds < self.seeds:
            raise ValueError(f"{found.seeds} seeds a prompt are fewer than {self.seeds}")
        if not found.of_prompts:
            text = f"all seeds of each prompt are equal in {self.x} or {self.y.replace('_', ' ')}"
            return Tested(NOT, text)
        text = (
            f"mean rank correlation of {self.x} and {self.y.replace('_', ' ')} {found.mean} over "
            f"{len(found.of_prompts)} prompts of {found.seeds} seeds; bound {self.above:g}"
        )
        return Tested(verdict_of(found.mean, above=self.above), text, found.mean._asdict())
