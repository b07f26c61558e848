"""Whether adjusted noise stays near drawn noise."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    HOLDS,
    NOT,
    Claim,
    Tested,
    TooFew,
    flag,
)
from memorization_suite.experiments.evidence.divergence import divergence
from memorization_suite.experiments.evidence.resampling import Estimate
from memorization_suite.experiments.evidence.runs import Evidence


@CLAIMS.register("divergence")
class DivergenceClaim(Claim):
    """The divergence of the norms, less what equal distributions would give, below a bound."""

    run: str = flag("", "method and settings, with save_latents")
    noises: int = flag(500, "fewest noises for a verdict", at_least=2)
    below: float = flag(0.0665, "nats; the paper's largest value", above=0.0)

    def about(self) -> str:
        return f"divergence of norms: {self.run}"

    def test(self, evidence: Evidence) -> Tested:
        found = divergence(*evidence.only(self.run).noises())
        if found.n < self.noises:
            raise TooFew(f"{found.n} noises are fewer than {self.noises}")
        value = found.norm_nats - found.norm_equal
        text = (
            f"divergence of norms {found.norm_nats:.4f} nats, {found.norm_equal:.4f} of equal "
            f"distributions, {found.n} noises; excess {value:.4f}, below {self.below:g}"
        )
        return Tested(HOLDS if value < self.below else NOT, text, {"excess": Estimate(value)})
