"""Divergence of adjusted from drawn noise: Table 1 of Han et al. 2025, by stated estimators."""

from __future__ import annotations

from memorization_suite.experiments.evidence.base import (
    TABLES,
    Cell,
    Listed,
    Table,
    flag,
)
from memorization_suite.experiments.evidence.divergence import BINS, Divergence, divergence
from memorization_suite.experiments.evidence.resampling import Estimate
from memorization_suite.experiments.evidence.runs import Evidence

# Column -> field of the divergence, and its digits.
COLUMNS = {
    "norms, nats": ("norm_nats", 4),
    "norms, bits": ("norm_bits", 4),
    "norms, distance": ("norm_distance", 3),
    "norms, equal": ("norm_equal", 4),
    "elements, nats": ("element_nats", 6),
    "KS": ("ks_statistic", 3),
    "KS p": ("ks_p", 4),
    "change of norm": ("norm_change", 3),
    "moved": ("moved", 2),
    "variance": ("variance", 4),
    "excess kurtosis": ("excess_kurtosis", 4),
    "flatness": ("flatness", 4),
    "channels": ("channel_correlation", 4),
}


@TABLES.register("divergence")
class DivergenceTable(Table):
    """A row a run with latents."""

    runs: str = flag("", "which runs, with save_latents (default all)")

    def list(self, evidence: Evidence) -> Listed:
        runs = evidence.select(self.runs)
        found = [divergence(*run.noises()) for run in runs]
        rows = []
        for run, each in zip(runs, found):
            rows.append({"run": Cell(run.title(runs)), **cells(each)})
        caption = (
            f"Adjusted beside drawn noise, {found[0].n} of each. Jensen-Shannon divergence of "
            f"histograms of {BINS} bins of equal width over both: of norms in nats, in bits, as a "
            "distance (root of nats), and what two halves of one sample would give in nats; of "
            "single numbers. KS: Kolmogorov-Smirnov test on the norms. Moved: mean length of the "
            "change. Flatness of the spectrum relative to the drawn noise. Channels: largest "
            f"correlation of two. {', '.join(evidence.models)}."
        )
        return Listed(rows, caption)


def cells(found: Divergence) -> dict[str, Cell]:
    """A row of the table."""
    row = {}
    for title, (name, digits) in COLUMNS.items():
        value = getattr(found, name)
        row[title] = Cell(f"{value:.{digits}f}", Estimate(value))
    return row
