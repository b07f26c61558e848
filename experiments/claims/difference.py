"""Whether a quantity is larger, or smaller, under some runs than under another, on equal seeds."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    Claim,
    Tested,
    all_of,
    bound_text,
    flag,
    verdict_of,
)
from memorization_suite.experiments.evidence.resampling import change_of_share, mean_of
from memorization_suite.experiments.evidence.runs import Evidence, paired

# Quantities that are 0 or 1 of an image.
SHARES = ("copies", "transitions")


@CLAIMS.register("difference")
class DifferenceClaim(Claim):
    """Mean over prompts of (run - other), above or below a bound: of every run that is meant."""

    quantity: str = flag("copy", "what is compared")
    run: str = flag("", "method and settings of one or more runs; the other one is none of them")
    other: str = flag("no_mitigation", "method and settings")
    above: float | None = flag(None, "the difference is larger than this")
    below: float | None = flag(None, "the difference is smaller than this", excludes=("above",))

    def about(self) -> str:
        return f"{self.quantity}: {self.run} less {self.other}"

    def test(self, evidence: Evidence) -> Tested:
        if self.above is None and self.below is None:
            raise ValueError("a difference needs a bound: above or below")
        other = evidence.only(self.other)
        runs = [run for run in evidence.select(self.run) if run is not other]
        if not runs:
            raise ValueError(f"there is no run {self.run!r} beside {self.other!r}")
        found = {}
        for run in runs:
            both = paired([run, other], self.quantity)
            changes = both.values[:, 0] - both.values[:, 1]
            mean = change_of_share if self.quantity in SHARES else mean_of
            found[run.title(runs)] = mean(changes, both.clusters)
        verdicts = [verdict_of(each, above=self.above, below=self.below) for each in found.values()]
        texts = [f"{name} {each}" if len(runs) > 1 else str(each) for name, each in found.items()]
        text = (
            f"{self.quantity}: difference {', '.join(texts)} over {len(both.prompts)} prompts; "
            f"{bound_text(self.above, self.below)}"
        )
        return Tested(all_of(verdicts), text, found)
