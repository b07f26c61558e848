"""How far adjusted noise is from drawn noise, by several estimators.

Han et al. 2025 (Table 1) give a Jensen-Shannon divergence and state neither the estimator nor the
base of the logarithm. Two histograms of few numbers differ, even of one distribution; what that
gives stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from memorization_suite.runs.lazy import Lazy, np

stats = Lazy("scipy.stats")

BINS = 100
SHUFFLES = 200


def jensen_shannon(
    first: np.ndarray, other: np.ndarray, *, bins: int = BINS, base: float = np.e
) -> float:
    """Jensen-Shannon divergence of two histograms, in [0, log_base 2].

    first, other: (n,), (m,) numbers. bins: of equal width, over the range of both.
    """
    low = min(first.min(), other.min())
    high = max(first.max(), other.max())
    if low == high:
        return 0.0
    counts = [np.histogram(side, bins, (low, high))[0] for side in (first, other)]
    p, q = (count / count.sum() for count in counts)
    middle = (p + q) / 2
    return float((relative_entropy(p, middle) + relative_entropy(q, middle)) / 2 / np.log(base))


def relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    """Kullback-Leibler divergence in nats; p is 0 where q is."""
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


def of_equal(first: np.ndarray, other: np.ndarray, *, bins: int = BINS, seed: int = 0) -> float:
    """What `jensen_shannon` gives in the mean, in nats, when both come from one distribution: the
    pooled numbers divided at random.
    """
    pooled = np.concatenate([first, other])
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(SHUFFLES):
        shuffled = rng.permutation(pooled)
        values.append(jensen_shannon(shuffled[: len(first)], shuffled[len(first) :], bins=bins))
    return float(np.mean(values))


@dataclass(frozen=True)
class Divergence:
    """Adjusted beside drawn noise."""

    # How many noises there are of each.
    n: int
    # Of the norms: nats, bits, the distance (root of nats), and what equal distributions would give
    # in nats.
    norm_nats: float
    norm_bits: float
    norm_distance: float
    norm_equal: float
    # Of single numbers of the noise, in nats.
    element_nats: float
    # Two-sided Kolmogorov-Smirnov test on the norms.
    ks_statistic: float
    ks_p: float
    # Norms: mean of the drawn ones, and how much larger the adjusted ones are in the mean.
    norm_drawn: float
    norm_change: float
    # Mean L2 length of the change.
    moved: float
    # Of the adjusted numbers.
    mean: float
    variance: float
    excess_kurtosis: float
    # Geometric over arithmetic mean of the power spectrum, relative to the drawn noise's: 1 is as
    # white.
    flatness: float
    # Largest correlation of two channels, of the adjusted noise.
    channel_correlation: float


def divergence(drawn: np.ndarray, adjusted: np.ndarray) -> Divergence:
    """How far adjusted noises are from drawn ones. Both (n, channels, height, width), paired."""
    if drawn.shape != adjusted.shape or drawn.ndim != 4:
        raise ValueError(f"noises of shapes {drawn.shape} and {adjusted.shape} are no pairs")
    norms = [np.linalg.norm(side.reshape(len(side), -1), axis=1) for side in (drawn, adjusted)]
    nats = jensen_shannon(*norms)
    test = stats.ks_2samp(*norms)
    values = adjusted.ravel()
    moved = np.linalg.norm((adjusted - drawn).reshape(len(drawn), -1), axis=1)
    return Divergence(
        n=len(drawn),
        norm_nats=nats,
        norm_bits=nats / float(np.log(2)),
        norm_distance=nats**0.5,
        norm_equal=of_equal(*norms),
        element_nats=jensen_shannon(drawn.ravel(), values),
        ks_statistic=float(test.statistic),
        ks_p=float(test.pvalue),
        norm_drawn=float(norms[0].mean()),
        norm_change=float((norms[1] - norms[0]).mean()),
        moved=float(moved.mean()),
        mean=float(values.mean()),
        variance=float(values.var()),
        excess_kurtosis=float(stats.kurtosis(values)),
        flatness=flatness(adjusted) / flatness(drawn),
        channel_correlation=channel_correlation(adjusted),
    )


def flatness(noise: np.ndarray) -> float:
    """Geometric over arithmetic mean of the mean power spectrum: 1 for white noise of infinitely
    many images. noise: (n, c, h, w).
    """
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean((0, 1))
    return float(np.exp(np.log(power).mean()) / power.mean())


def channel_correlation(noise: np.ndarray) -> float:
    """Largest absolute correlation of two channels over all places; 0 with one channel."""
    channels = noise.swapaxes(0, 1).reshape(noise.shape[1], -1)
    if len(channels) < 2:
        return 0.0
    table = np.corrcoef(channels)
    return float(np.abs(table[np.triu_indices(len(table), 1)]).max())
