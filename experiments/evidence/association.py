"""Which two quantities of equal seeds are ranked against each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from memorization_suite.experiments.evidence.ranks import Association, association
from memorization_suite.experiments.evidence.runs import Evidence, free_starts, pairs_of
from memorization_suite.experiments.evidence.swept_run import SweptRun

FREE_START = "free_start"


@dataclass(frozen=True)
class Asked:
    """x of one run, y of another; `free_start` is of several runs, which start guidance late."""

    x: str
    x_run: str
    y: str
    y_run: str

    def runs(self, evidence: Evidence) -> list[SweptRun]:
        """All that are read. Raises ValueError."""
        others = evidence.select(self.y_run)
        if self.y != FREE_START:
            others = [evidence.only(self.y_run)]
        return [evidence.only(self.x_run), *others]

    def pairs(self, evidence: Evidence) -> dict[int, list[tuple[float, float]]]:
        """Prompt -> both values of each seed that has them. Raises ValueError."""
        first, *others = self.runs(evidence)
        y = free_starts(others, start_of) if self.y == FREE_START else others[0].values(self.y)
        return pairs_of(first.values(self.x), y)

    def association(self, evidence: Evidence, prompts: list[int] | None = None) -> Association:
        """Rank correlations. prompts: only these."""
        run = self.runs(evidence)[0]
        pairs = self.pairs(evidence)
        seeds = Counter(key.prompt for key in run.costs if prompts is None or key.prompt in prompts)
        chosen = {prompt: pairs[prompt] for prompt in seeds if prompt in pairs}
        return association(chosen, seeds, run.clusters)


def start_of(run: SweptRun) -> int:
    """First guided step of a run: 0 without a method. Raises ValueError for tau."""
    if run.method == "no_mitigation":
        return 0
    step = run.config.get("cfg_step")
    if step is None:
        raise ValueError(f"the run {run.name} does not say at which step guidance starts: cfg_step")
    return int(step) + 1
