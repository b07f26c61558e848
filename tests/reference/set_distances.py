"""Distances between two sets of features, in plain loops over covariances and pairs. Imports
nothing of the suite. Features are (n, d) arrays.
"""

import numpy as np
from scipy import linalg


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """|m - m'|^2 + tr(S) + tr(S') - 2 tr((S S')^(1/2)), S the unbiased covariance. Source: Heusel
    et al., NeurIPS 2017, Eq. (6).

    Only for sets larger than d: the root of a singular product is inexact.
    """
    means = []
    covariances = []
    for features in (first, second):
        mean = sum(features) / len(features)
        means.append(mean)
        covariances.append(
            sum(np.outer(x - mean, x - mean) for x in features) / (len(features) - 1)
        )
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(
        ((means[0] - means[1]) ** 2).sum()
        + np.trace(covariances[0])
        + np.trace(covariances[1])
        - 2 * np.trace(root)
    )


def frechet_of_few(first: np.ndarray, second: np.ndarray) -> float:
    """The same for any sizes, from the (n, n) matrix C C^T, C[i, j] = (x_i - m)(y_j - m') /
    sqrt((n - 1)(n' - 1)): it has the eigenvalues of S S' other than 0. Source: as frechet; the
    identity is that of A B and B A.
    """
    a, b = (features - features.mean(axis=0) for features in (first, second))
    cross = np.array([[float(x @ y) for y in b] for x in a]) / np.sqrt((len(a) - 1) * (len(b) - 1))
    roots = sum(np.sqrt(max(value, 0.0)) for value in linalg.eigvalsh(cross @ cross.T))
    traces = sum(float((x**2).sum()) for x in a) / (len(a) - 1) + sum(
        float((y**2).sum()) for y in b
    ) / (len(b) - 1)
    return (
        float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()) + traces - 2 * float(roots)
    )


def mmd(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased estimate of the squared MMD of two sets of equal size for k(x, y) = (x y / d + 1)^3.
    Source: Binkowski et al., ICLR 2018, Eq. (4).
    """
    n, d = first.shape
    within = 0.0
    between = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                within += (float(first[i] @ first[j]) / d + 1) ** 3 + (
                    float(second[i] @ second[j]) / d + 1
                ) ** 3
            between += (float(first[i] @ second[j]) / d + 1) ** 3
    return within / (n * (n - 1)) - 2 * between / n**2


def kid(
    first: np.ndarray, second: np.ndarray, seed: int, subsets: int = 100, largest: int = 1000
) -> float:
    """Mean of `mmd` over random subsets of the same size; each draws of the second set and then of
    the first. Source: clean-fid, kernel_distance.
    """
    rng = np.random.RandomState(seed)
    size = min(len(first), len(second), largest)
    total = 0.0
    for _ in range(subsets):
        theirs = second[rng.choice(len(second), size, replace=False)]
        total += mmd(first[rng.choice(len(first), size, replace=False)], theirs)
    return total / subsets
