"""AUC, TPR rules, accuracy and intervals, against plain loops and scikit-learn."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from memorization_suite.detection.evaluation import roc
from tests.detect import scalars
from tests.reference import roc as plain

RULES = {
    "at_most": plain.tpr_at_most,
    "wen_strict": plain.tpr_wen,
    "nearest": plain.tpr_nearest,
    "interp": plain.tpr_interpolated,
}
RATES = (0.01, 0.03, 0.05, 0.1, 0.25, 0.5, 0.9)


def drawn(seed):
    """Two sets of scores: few or many, without ties or with many of them."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 60, 2)
    digits = int(rng.integers(-1, 3))
    return np.round(rng.normal(0.8, 1, n) * 3, digits).tolist(), np.round(
        rng.normal(0, 1, m) * 3, digits
    ).tolist()


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_loops_and_scikit_learn(seed):
    positives, negatives = drawn(seed)
    labels, scores = [1] * len(positives) + [0] * len(negatives), positives + negatives
    assert scalars.auc(positives, negatives) == pytest.approx(
        plain.auc(positives, negatives), abs=1e-12
    )
    assert scalars.auc(positives, negatives) == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-12
    )
    assert scalars.accuracy(positives, negatives) == pytest.approx(
        plain.accuracy(positives, negatives), abs=1e-12
    )
    for rule, expected in RULES.items():
        for rate in RATES:
            assert scalars.tpr_at(positives, negatives, rate, rule) == pytest.approx(
                expected(positives, negatives, rate), abs=1e-12
            ), (rule, rate)
    curve = roc.curve(positives, negatives)
    for thin in (False, True):
        kept = curve.corners[0] if thin else slice(None)
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=thin)
        assert np.array_equal(curve.fpr[0][kept], fpr) and np.array_equal(curve.tpr[0][kept], tpr)


@pytest.mark.parametrize("seed", range(20))
def test_a_row_of_resamples_equals_its_own_curve(seed):
    positives, negatives = map(np.array, drawn(seed))
    rng = np.random.default_rng(seed)
    some, others = (
        rng.integers(0, len(scores), (8, len(scores))) for scores in (positives, negatives)
    )
    first, second, size = roc.places_of(positives, negatives)
    together = roc.curves_of(first[some], second[others], size)
    for row in range(8):
        alone = roc.curve(positives[some[row]], negatives[others[row]])
        assert (
            together.auc()[row] == alone.auc()[0]
            and together.accuracy()[row] == alone.accuracy()[0]
        )
        for rule in roc.RULES:
            assert [together.tpr_at(rate, rule)[row] for rate in RATES] == pytest.approx(
                [alone.tpr_at(rate, rule)[0] for rate in RATES], abs=1e-12
            )


def test_the_rules_differ_where_they_should():
    """100 ordinary prompts: one false positive is a rate of exactly 1 %."""
    negatives = [*range(99), 1000]
    positives = [2000] * 30 + [500] * 50 + [98.5] * 10 + [-1] * 10
    assert scalars.tpr_at(positives, negatives, 0.01) == 0.9  # FPR of 1 % is allowed
    assert scalars.tpr_at(positives, negatives, 0.01, "wen_strict") == 0.3  # it must be less
    assert (
        scalars.tpr_at(positives, negatives, 0.014, "nearest") == 0.3
    )  # the first corner at FPR = 1 % has no more
    assert scalars.tpr_at(positives, negatives, 0.02, "interp") == 0.9
    assert (
        scalars.tpr_at(positives, negatives, 0.02, "nearest") == 0.3
    )  # the point at 2 % lies on a straight line and was dropped
    few = [0, 1, 2, 3]
    assert (
        scalars.tpr_at([0.5, 1.5, 2.5, 3.5], few, 0.2, "nearest") == 0.25
    )  # FPR 0.25 is nearer than 0: more than was asked for
    assert (
        scalars.tpr_at([0.5, 1.5, 2.9, 2.5], few, 0.2, "nearest")
        == 0.0
        == scalars.tpr_at([0.5, 1.5, 2.9, 2.5], few, 0.2)
    )


def test_the_most_memorized_have_the_largest_scores():
    better, worse = [3.0, 4.0, 5.0], [0.0, 1.0, 2.0]
    assert (
        scalars.auc(better, worse)
        == 1
        == scalars.tpr_at(better, worse, 0.01)
        == scalars.accuracy(better, worse)
    )
    assert (
        scalars.auc(worse, better) == 0 == scalars.tpr_at(worse, better, 0.01)
    )  # swapped sets: not flipped
    assert scalars.auc([-score for score in better], [-score for score in worse]) == 0
    assert scalars.auc([1.0] * 7, [1.0] * 3) == 0.5 == scalars.accuracy([1.0] * 7, [1.0] * 3)


@pytest.mark.parametrize(
    ("positives", "negatives", "told"),
    [
        ([], [1.0], "no scores of memorized prompts"),
        ([1.0], [], "no scores of ordinary prompts"),
        ([float("nan"), 1.0], [0.0], "1 scores of memorized prompts are not finite"),
        ([1.0], [float("inf")], "ordinary prompts are not finite"),
    ],
)
def test_what_has_no_curve_is_refused(positives, negatives, told):
    for call in (
        lambda: scalars.auc(positives, negatives),
        lambda: scalars.tpr_at(positives, negatives, 0.01),
        lambda: scalars.accuracy(positives, negatives),
        lambda: roc.intervals(positives, negatives, [roc.Curves.auc]),
    ):
        with pytest.raises(ValueError, match=told):
            call()


@pytest.mark.parametrize(
    ("rate", "rule", "told"),
    [
        (0.0, "at_most", "between 0 and 1"),
        (1.0, "at_most", "between 0 and 1"),
        (float("nan"), "at_most", "between 0 and 1"),
        (0.01, "closest", "no rule 'closest'"),
    ],
)
def test_wrong_rates_and_rules_are_refused(rate, rule, told):
    with pytest.raises(ValueError, match=told):
        roc.check(rule, [rate])


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Two normal distributions one and a half apart: AUC = Phi(1.5 / sqrt 2), TPR at 10 % = Phi(1.5
    - 1.2816).
    """
    rng, within = np.random.default_rng(1), np.zeros(2)
    figures = [roc.Curves.auc, lambda curves: curves.tpr_at(0.1, "interp")]
    for trial in range(100):
        found = roc.intervals(
            rng.normal(1.5, 1, 80), rng.normal(0, 1, 80), figures, resamples=300, seed=trial
        )
        within += [low <= truth <= high for (low, high), truth in zip(found, (0.85558, 0.58645))]
    assert (within >= 86).all()


def test_intervals_repeat_and_are_fast():
    rng = np.random.default_rng(0)
    positives, negatives, figures = (
        rng.normal(2, 1, 500),
        rng.normal(0, 1, 500),
        [roc.Curves.auc, lambda curves: curves.tpr_at(0.01, "nearest")],
    )
    start = time.perf_counter()
    first = roc.intervals(positives, negatives, figures, seed=3)
    assert time.perf_counter() - start < 5
    assert (
        first
        == roc.intervals(positives, negatives, figures, seed=3)
        != roc.intervals(positives, negatives, figures, seed=4)
    )
    assert all(
        low < estimate < high
        for (low, high), estimate in zip(
            first,
            (
                scalars.auc(positives, negatives),
                scalars.tpr_at(positives, negatives, 0.01, "nearest"),
            ),
        )
    )


def test_a_figure_without_spread_has_the_exact_interval_or_none():
    """None wrong of the smaller set's n prompts: the lower end is 0.025 ** (1 / n)."""
    perfect, above, below = [2.0, 3.0, 4.0], [0.0, 1.0], [5.0, 6.0]
    figures = [roc.Curves.auc, roc.Curves.accuracy, lambda curves: curves.tpr_at(0.01, "at_most")]
    low = pytest.approx(0.025**0.5)
    auc, accuracy, tpr = roc.intervals(perfect, above, figures)
    assert auc == tpr == (low, 1.0) and np.isnan(accuracy).all()  # of the best threshold
    auc, accuracy, tpr = roc.intervals(perfect, below, figures)
    assert auc == tpr == (0.0, pytest.approx(1 - 0.025**0.5))
    assert np.isnan(accuracy).all()  # 0.5, by chance or not


@pytest.mark.parametrize(
    "sets",
    [([2.0], [0.0, 1.0]), ([2.0, 3.0], [0.0]), ([1.0] * 9, [1.0] * 5)],
    ids=["one memorized prompt", "one ordinary prompt", "a constant score"],
)
def test_what_has_no_interval(sets):
    figures = [roc.Curves.auc, lambda curves: curves.tpr_at(0.1, "nearest")]
    assert np.isnan(roc.intervals(*sets, figures)).all()
