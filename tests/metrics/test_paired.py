"""Changes between two runs on the same images."""

import math

import pytest

from memorization_suite.metrics.intervals import mean_over_prompts
from memorization_suite.metrics.paired import Pair, change, change_of_copies, is_sure, pairs_of
from memorization_suite.runs.table import Result


def rows(values, quantity="copy_score", variant="v"):
    """Results of images: (prompt, sample) -> value."""
    return [Result("r", "m", *key, quantity, variant, value) for key, value in values.items()]


def test_pairs_are_of_one_image_quantity_and_variant():
    first = [*rows({(0, 0): 0.1, (0, 1): 0.2}), *rows({(0, 0): 5.0}, variant="w")]
    first.append(Result("r", "m", None, None, "fid", "v", 3.0))
    other = [*rows({(0, 1): 0.5, (1, 0): 0.9}), Result("r", "m", None, None, "fid", "v", 4.0)]
    assert pairs_of(first, other) == {("copy_score", "v"): [Pair(0, 0.2, 0.5)]}


def test_a_change_is_a_mean_over_prompts():
    pairs = [Pair(0, 0.0, 1.0), Pair(0, 0.0, 0.0), Pair(1, 0.5, 0.0), Pair(2, 0.0, 0.3)]
    mean = change(pairs)
    assert mean.mean == pytest.approx((0.5 - 0.5 + 0.3) / 3)
    assert mean == mean_over_prompts([(0, 1.0), (0, 0.0), (1, -0.5), (2, 0.3)])


def test_the_share_of_copies_changes_where_the_threshold_is_crossed():
    pairs = [Pair(0, 0.9, 0.75), Pair(1, 0.8, 0.1), Pair(2, 0.1, 0.2), Pair(3, 0.2, 0.8)]
    assert change_of_copies(pairs, 0.75).mean == 0.0
    assert change_of_copies(pairs[:3], 0.75).mean == pytest.approx(-1 / 3)


@pytest.mark.parametrize("before, after, low, high", [(1, 0, -1, -0.541), (0, 1, 0.541, 1)])
def test_where_every_image_changes_the_interval_is_exact(before, after, low, high):
    """0.025^(1/6) = 0.541. Five prompts are too few to say."""
    pairs = [Pair(i, before, after) for i in range(6)]
    mean = change_of_copies(pairs, 0.75)
    assert (mean.mean, mean.low, mean.high) == pytest.approx((after - before, low, high), abs=1e-3)
    assert is_sure(mean) and not is_sure(change_of_copies(pairs[:5], 0.75))


def test_sure_is_what_leaves_out_zero():
    assert is_sure(change([Pair(i, 1.0, 0.1 * i) for i in range(6)]))
    assert not is_sure(change([Pair(i, 0.0, (-1) ** i) for i in range(6)]))
    same = change([Pair(i, 0.5, 0.5) for i in range(6)])
    assert same.mean == 0 and math.isnan(same.low) and not is_sure(same)
