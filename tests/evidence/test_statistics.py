"""What the paper's evidence is computed with: properties that hold for all numbers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from memorization_suite.experiments.evidence.divergence import (
    divergence,
    jensen_shannon,
    of_equal,
)
from memorization_suite.experiments.evidence.escape import first_free_start, first_minimum
from memorization_suite.experiments.evidence.front import (
    Box,
    Series,
    area,
    area_difference,
    area_of,
    box_of,
    heights,
    lead,
    pareto,
)
from memorization_suite.experiments.evidence.ranks import association, spearman
from memorization_suite.experiments.evidence.resampling import (
    Estimate,
    change_of_share,
    draws,
    estimate,
    mean_of,
    means,
)
from memorization_suite.metrics.intervals import interval
from memorization_suite.mitigation.dynamic_transition import FirstMinimum
from memorization_suite.sampling import Step

FEW = settings(max_examples=60, deadline=None)
SHARE = st.floats(0, 1, allow_subnormal=False)
POINTS = st.lists(st.tuples(SHARE, SHARE), min_size=1, max_size=6)
UNIT = Box(0.0, 1.0, 0.0, 1.0)


def area_of_points(points, box=UNIT):
    return float(area(np.array([points]), box)[0])


# --- resampling


def test_clusters_are_drawn_whole():
    weights = draws((7, 7, 3, 3, 3, 1), resamples=200)
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 2] == weights[:, 2:5].T).all()
    assert (weights[:, [0, 2, 5]].sum(1) == 3).all() and weights.std(0).min() > 0


def test_prompts_of_their_own_have_the_interval_of_the_summary():
    values = np.random.default_rng(0).normal(size=40)
    found = mean_of(values, range(40))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(interval(values), abs=0.02)


def test_repeated_prompts_do_not_narrow_the_interval():
    """Ten copies of each prompt are no more evidence than the prompt alone."""
    values = np.random.default_rng(1).normal(size=12)
    once = mean_of(values, range(12))
    often = mean_of(np.repeat(values, 10), np.repeat(range(12), 10))
    naive = mean_of(np.repeat(values, 10), range(120))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.5 * (often.high - often.low)


def test_one_cluster_has_no_interval():
    found = mean_of([1.0, 2.0], [0, 0])
    assert found.value == 1.5 and math.isnan(found.low) and str(found) == "1.500"
    assert str(mean_of([], [])) == "-"
    assert str(Estimate(0.5, 0.25, 1)) == "0.500 [0.250, 1.000]"


def test_resamples_with_gaps_have_no_interval():
    """An interval of those that are left would be one of other prompts."""
    found = estimate(lambda weights: np.where(weights[:, 0] > 1, np.nan, weights[:, 1]), range(5))
    assert found.value == 1 and math.isnan(found.low) and math.isnan(found.high)


# --- escape


@FEW
@given(st.lists(st.floats(0.01, 9), min_size=3, max_size=12), st.sampled_from([0.0, 0.3]))
def test_the_first_minimum_is_where_the_dynamic_transition_begins(values, drop):
    schedule = FirstMinimum(before=0.0, fallback_step=99, drop=drop)
    for i, value in enumerate(values):
        prediction = SimpleNamespace(
            x=torch.zeros(1, 1),
            magnitude=lambda value=value: torch.tensor([value], dtype=torch.float64),
        )
        step = Step(index=i, t=torch.tensor(0.0), num_steps=50, guidance_scale=7.0)
        schedule.scale(step, prediction)
    found = first_minimum(values, drop)
    assert schedule.numbers()["transition_step"].item() == (-1 if found is None else found + 1)


def test_minima_by_hand():
    assert first_minimum([3, 2, 1, 2, 0, 1]) == 2
    assert first_minimum([3, 2, 1, 2, 0, 1], drop=0.9) == 4
    assert first_minimum([3, 2, 2, 3]) is None and first_minimum([1, 2, 3]) is None


def test_a_free_start_is_for_good():
    assert first_free_start({0: True, 2: False, 4: True, 6: False, 8: False}) == 6
    assert first_free_start({0: True, 2: True}) is None and first_free_start({2: False}) == 2


# --- ranks


@FEW
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=20))
def test_spearman_equals_scipys_and_knows_no_scale(pairs):
    found = spearman(pairs)
    x, y = zip(*pairs)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert math.isnan(found)
        return
    assert found == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman([(math.exp(a), -b) for a, b in pairs]) == pytest.approx(-found)


def test_never_ranks_last():
    assert spearman([(1, 3), (2, 5), (3, math.inf)]) == pytest.approx(1)
    with pytest.raises(ValueError, match="a rank needs numbers"):
        spearman([(1, 3), (2, 5), (3, math.nan)])
    assert math.isnan(spearman([(1, 3)]))


def test_an_association_is_a_mean_over_prompts():
    up = [(k, 2 * k) for k in range(10)]
    down = [(k, -k) for k in range(12)]
    same = [(k, 1) for k in range(10)]
    pairs = {0: up, 1: up, 2: down, 3: same, 4: up[:9]}
    seeds = dict.fromkeys((*pairs, 5), 12)
    found = association(pairs, seeds, {0: 0, 1: 0})
    assert found.of_prompts == pytest.approx({0: 1, 1: 1, 2: -1})
    assert found.mean.value == pytest.approx(1 / 3)
    assert (found.unranked, found.clusters, found.seeds) == (3, 2, 12)
    assert found.both == pytest.approx(51 / 72)
    assert (found.mean.low, found.mean.high) == pytest.approx((-1, 1))  # either cluster alone


# --- front and area


@FEW
@given(POINTS)
def test_points_of_a_front_are_beaten_by_none_and_the_others_by_one(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    front = pareto(points)
    for i, point in enumerate(points):
        assert (i not in front) == any(beats(other, point) for other in points)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


@FEW
@given(POINTS, st.tuples(SHARE, SHARE), st.randoms(use_true_random=False))
def test_an_area_grows_with_its_points_and_is_that_of_the_front(points, more, random):
    whole = area_of_points(points)
    assert 0 <= whole <= 1
    assert area_of_points([*points, more]) >= whole - 1e-12
    assert area_of_points([points[i] for i in pareto(points)]) == pytest.approx(whole)
    shuffled = random.sample(points, len(points))
    assert area_of_points(shuffled) == pytest.approx(whole)


@FEW
@given(POINTS)
def test_an_area_is_a_share_whatever_the_units(points):
    stretched = [(3 + 5 * x, 100 * y - 20) for x, y in points]
    box = Box(3.0, 8.0, -20.0, 80.0)
    assert area_of_points(stretched, box) == pytest.approx(area_of_points(points), abs=1e-9)


def test_areas_by_hand():
    assert area_of_points([(0, 1)]) == 1
    assert area_of_points([(1, 1)]) == 0 and area_of_points([(2, 1)]) == 0
    assert area_of_points([(0.5, 0.5)]) == pytest.approx(0.25)
    assert area_of_points([(0.5, 0.5), (0.75, 1)]) == pytest.approx(0.375)
    with pytest.raises(ValueError, match="needs room"):
        Box(1, 1, 0, 1)


def series(name, better, seed=0, prompts=30):
    """Two settings; better: how much more alignment than the noise around 0.5."""
    of_prompt = np.random.default_rng(9).normal(0, 0.2, (prompts, 1))
    rng = np.random.default_rng(seed)
    x = np.array([[0.2, 0.6]]) + 0 * of_prompt
    return Series(name, x, 0.5 + better + of_prompt + rng.normal(0, 0.01, (prompts, 2)))


def test_a_paired_difference_is_told_where_the_areas_overlap():
    first, other = series("a", 0.05, seed=0), series("b", 0.0, seed=1)
    clusters = range(30)
    box = Box(0.0, 1.0, 0.0, 1.0)
    areas = [area_of(each, box, clusters) for each in (first, other)]
    assert areas[0].low < areas[1].high
    difference = area_difference(first, other, box, clusters)
    assert difference.low > 0
    assert difference.value == pytest.approx(areas[0].value - areas[1].value)
    same = area_difference(first, first, box, clusters)
    assert same.value == 0 and math.isnan(same.low)


def test_a_box_reaches_from_the_worst_to_the_best_alignment():
    first = series("a", 0.1)
    box = box_of([first, series("b", -0.1)], unmitigated_x=0.9)
    assert (box.left, box.right) == (0.0, 0.9)
    assert box.top == pytest.approx(first.y.mean(0).max())


def test_the_best_methods_interval_reaches_as_far_up_as_down():
    """Its own mean is the top of the box, which half of the resamples exceed."""
    values = np.random.default_rng(3).normal(0.5, 0.1, (60, 1))
    best = Series("best", 0 * values, values)
    box = Box(0.0, 1.0, 0.0, float(values.mean()))
    found = area_of(best, box, range(60))
    assert found.value == pytest.approx(1)
    assert found.high - 1 == pytest.approx(1 - found.low, rel=0.2)


def test_statistics_of_weights_are_those_of_repeated_prompts():
    values = np.array([[1.0, 2.0], [3.0, 5.0]])
    assert means(np.array([[2.0, 1.0]]), values) == pytest.approx(np.array([[5 / 3, 3.0]]))
    found = estimate(lambda weights: means(weights, values[:, 0]), [0, 1])
    assert found == Estimate(2.0, 1.0, 3.0)


# --- divergence


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).normal(size=(400, 4, 8, 8))


@FEW
@given(st.integers(0, 99), st.floats(0, 3))
def test_a_divergence_is_symmetric_and_bounded(seed, shift):
    rng = np.random.default_rng(seed)
    first, other = rng.normal(size=50), rng.normal(shift, 1, size=70)
    found = jensen_shannon(first, other)
    assert 0 <= found <= math.log(2) and found == pytest.approx(jensen_shannon(other, first))
    assert jensen_shannon(first, other, base=2) == pytest.approx(found / math.log(2))
    assert jensen_shannon(first, first) == 0


def test_disjoint_numbers_diverge_by_one_bit():
    assert jensen_shannon(np.zeros(5), np.ones(5), base=2) == pytest.approx(1)
    assert jensen_shannon(np.zeros(5), np.zeros(3)) == 0


def test_equal_distributions_diverge_by_what_is_said(noise):
    """A histogram of few numbers is never that of others."""
    rng = np.random.default_rng(1)
    first, other = rng.normal(size=500), rng.normal(size=500)
    assert jensen_shannon(first, other) == pytest.approx(of_equal(first, other), rel=0.3)
    assert of_equal(first, other) > 0.01


def test_shorter_noise_is_told_by_its_norms_and_hardly_by_its_numbers(noise):
    """A shift of a standard deviation of the norms, as the paper's divergence stands for."""
    spread = np.linalg.norm(noise.reshape(400, -1), axis=1).std()
    factor = 1 - spread / 16
    found = divergence(noise, factor * noise)
    assert found.norm_nats > 2 * found.norm_equal and found.element_nats < found.norm_nats / 10
    assert found.norm_change == pytest.approx(-spread, rel=0.02)
    assert found.moved == pytest.approx(spread, rel=0.02)
    assert found.norm_bits == pytest.approx(found.norm_nats / math.log(2))
    assert found.norm_distance**2 == pytest.approx(found.norm_nats)
    assert found.ks_p < 1e-6 and found.flatness == pytest.approx(1)


def test_what_is_no_white_noise_is_told(noise):
    smooth = (noise + np.roll(noise, 1, axis=3)) / 2**0.5
    assert divergence(noise, smooth).flatness < 0.8
    mixed = noise.copy()
    mixed[:, 1] = 0.8 * noise[:, 0] + 0.6 * noise[:, 1]
    assert divergence(noise, mixed).channel_correlation == pytest.approx(0.8, abs=0.05)
    nothing = divergence(noise, noise)
    assert nothing.norm_nats == 0 and nothing.moved == 0 and nothing.ks_p == pytest.approx(1)
    with pytest.raises(ValueError, match="no pairs"):
        divergence(noise, noise[:5])


def test_a_change_of_all_one_way_has_an_exact_interval():
    assert change_of_share([-1.0] * 6, range(6)) == pytest.approx((-1, -1, -(0.025 ** (1 / 6))))
    assert change_of_share([1.0] * 6, range(6)).low == pytest.approx(0.025 ** (1 / 6))
    assert math.isnan(change_of_share([-1.0] * 6, [0, 0, 1, 2, 3, 4]).low)  # five clusters
    assert change_of_share([-1.0, 0.0] * 3, range(6)) == mean_of([-1.0, 0.0] * 3, range(6))


@FEW
@given(POINTS, st.lists(st.floats(-1, 2), min_size=1, max_size=4))
def test_heights_of_a_front_lie_on_straight_lines(points, at):
    points = sorted(dict(points).items())
    x, best = [x for x, _ in points], np.maximum.accumulate([y for _, y in points])
    found = heights(np.array([points]), np.array([at]), floor=-5.0)[0]
    for place, value in zip(at, found):
        wanted = -5.0 if place < x[0] else np.interp(place, x, best)
        assert value == pytest.approx(wanted)


def test_a_lead_is_over_the_front_and_what_no_mitigation_reaches():
    """The rival's line from (0.2, 0.1) to the unmitigated (1, 0.9) is y = x - 0.1."""
    two = np.ones((2, 1))
    plain, rival = Series("no", two, 0.9 * two), Series("rival", 0.2 * two, 0.1 * two)
    own = Series("own", np.array([[0.5, 0.1]] * 2), np.array([[0.6, 0.3]] * 2))
    found = lead(own, rival, plain, Box(0.0, 1.0, 0.1, 0.9), [0, 1])
    assert found.value == pytest.approx((0.6 - 0.4 + 0.3 - 0.1) / 2)
