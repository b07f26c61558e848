"""ROC figures as one writes them down: loops over thresholds and pairs. Imports nothing of the
suite.

Scores are lists of numbers, larger means more memorized; a prompt is called memorized when its
score is at least the threshold.
"""


def auc(positives, negatives):
    """Mann-Whitney: share of pairs in which the positive is larger, ties one half."""
    wins = 0.0
    for positive in positives:
        for negative in negatives:
            wins += 1.0 if positive > negative else 0.5 if positive == negative else 0.0
    return wins / (len(positives) * len(negatives))


def points(positives, negatives):
    """(false positives, true positives) at each distinct score as the threshold, from the largest
    down; without (0, 0).
    """
    found = []
    for threshold in sorted(set(positives) | set(negatives), reverse=True):
        false = 0
        true = 0
        for score in negatives:
            false += score >= threshold
        for score in positives:
            true += score >= threshold
        found.append((false, true))
    return found


def thinned(found):
    """Without the points that lie halfway between their neighbors, as `roc_curve` of scikit-learn
    does with drop_intermediate=True.
    """
    kept = []
    for i, (false, true) in enumerate(found):
        if 0 < i < len(found) - 1:
            false_before, true_before = found[i - 1]
            false_after, true_after = found[i + 1]
            if false_before + false_after == 2 * false and true_before + true_after == 2 * true:
                continue
        kept.append((false, true))
    return kept


def rates(positives, negatives, thin):
    """(FPR, TPR) from (0, 0) to (1, 1)."""
    found = points(positives, negatives)
    if thin:
        found = thinned(found)
    return [(false / len(negatives), true / len(positives)) for false, true in [(0, 0)] + found]


def tpr_at_most(positives, negatives, alpha):
    """Largest TPR of a threshold whose FPR is at most alpha."""
    best = 0.0
    for fpr, tpr in rates(positives, negatives, thin=False):
        if fpr <= alpha and tpr > best:
            best = tpr
    return best


def tpr_wen(positives, negatives, alpha):
    """`det_mem_viz.ipynb` of YuxinWenRick/diffusion_memorization: TPR of the last point of
    roc_curve with FPR < alpha.
    """
    last = None
    for fpr, tpr in rates(positives, negatives, thin=True):
        if fpr < alpha:
            last = tpr
    return last


def tpr_nearest(positives, negatives, alpha):
    """`detect_eval.py` of SAIL and of rohanasthana/memorization-anisotropy: the point of roc_curve
    with the least |FPR - alpha|, the first such; without their exchange of the labels when the AUC
    is below 0.5.
    """
    best = None
    chosen = None
    for fpr, tpr in rates(positives, negatives, thin=True):
        if best is None or abs(fpr - alpha) < best:
            best = abs(fpr - alpha)
            chosen = tpr
    return chosen


def tpr_interpolated(positives, negatives, alpha):
    """Height of the curve at alpha, straight lines between points, the upper end where the curve is
    vertical.
    """
    found = rates(positives, negatives, thin=False)
    height = None
    for (fpr_a, tpr_a), (fpr_b, tpr_b) in zip(found, found[1:]):
        if fpr_a <= alpha < fpr_b:
            height = tpr_a + (tpr_b - tpr_a) * (alpha - fpr_a) / (fpr_b - fpr_a)
    return height


def accuracy(positives, negatives):
    """Wen: the largest 1 - (FPR + FNR) / 2 of a point of roc_curve."""
    best = 0.0
    for fpr, tpr in rates(positives, negatives, thin=True):
        best = max(best, 1 - (fpr + (1 - tpr)) / 2)
    return best
