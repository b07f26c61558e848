"""Whether trajectories of one prompt leave the basin at different steps."""

from __future__ import annotations

import math

from memorization_suite.experiments.evidence.base import (
    CLAIMS,
    Claim,
    Tested,
    flag,
    verdict_of,
)
from memorization_suite.experiments.evidence.resampling import Estimate, mean_of
from memorization_suite.experiments.evidence.runs import Evidence
from memorization_suite.runs.spread import exact_interval, is_spread


@CLAIMS.register("spread")
class SpreadClaim(Claim):
    """Share of prompts with transitions that lie some steps apart, above a bound.

    The latest and the earliest tenth of a prompt's seeds are left out, so that one odd trajectory
    decides nothing; trajectories without a transition are, too.
    """

    run: str = flag("", "method and settings, with traces")
    steps: int = flag(2, "by so many steps at least", at_least=1)
    above: float = flag(0.5, "the bound", at_least=0.0, at_most=1.0)

    def about(self) -> str:
        return f"share of captions whose transitions differ: {self.run}"

    def test(self, evidence: Evidence) -> Tested:
        run = evidence.only(self.run)
        steps: dict[int, list[int]] = {prompt: [] for prompt in run.prompts}
        for key, trace in run.traces.items():
            if trace.transition is not None:
                steps[key.prompt].append(trace.transition)
        differ = [float(reach(each) >= self.steps) for each in steps.values()]
        found = mean_of(differ, [run.clusters.get(prompt, prompt) for prompt in steps])
        if not is_spread(min(differ), max(differ)):  # all prompts, or none
            number = len({run.clusters.get(prompt, prompt) for prompt in steps})
            found = Estimate(found.value, *exact_interval(found.value, number))
        text = (
            f"{found.value:.0%} of {len(steps)} prompts have transitions {self.steps} steps apart "
            f"or more, without a tenth on each side; bound {self.above:.0%}"
        )
        return Tested(verdict_of(found, above=self.above), text, {"share": found})


def reach(steps: list[int]) -> int:
    """From the earliest to the latest of some steps, without a tenth on each side, rounded up."""
    left_out = math.ceil(len(steps) / 10)
    kept = sorted(steps)[left_out : len(steps) - left_out]
    return kept[-1] - kept[0] if kept else 0
