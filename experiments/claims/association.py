"""Whether two quantities of equal seeds rise together, or one falls as the other rises."""

from __future__ import annotations

from memorization_suite.experiments.evidence.association import Asked
from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    Claim,
    Tested,
    TooFew,
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
    prompts: int = flag(6, "fewest prompts with a rank for a verdict", at_least=2)

    def about(self) -> str:
        return f"rank correlation of {self.x} and {self.y.replace('_', ' ')}"

    def test(self, evidence: Evidence) -> Tested:
        found = Asked(self.x, self.x_run, self.y, self.y_run).association(evidence)
        y = self.y.replace("_", " ")
        if found.seeds < self.seeds:
            raise TooFew(f"{found.seeds} seeds a prompt are fewer than {self.seeds}")
        if found.clusters < self.prompts:
            raise TooFew(
                f"{found.clusters} prompts have ranks of {self.x} and {y}, fewer than "
                f"{self.prompts}; {found.both:.0%} of the images have both"
            )
        text = (
            f"mean rank correlation of {self.x} and {y} {found.mean} over "
            f"{len(found.of_prompts)} prompts of {found.seeds} seeds, {found.both:.0%} of which "
            f"have both; bound {self.above:g}"
        )
        return Tested(verdict_of(found.mean, above=self.above), text, {"mean": found.mean})
