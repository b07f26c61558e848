"""Dynamic transition point: the rule, parity with the transcription, cost."""

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.dynamic_transition import FirstMinimum
from memorization_suite.sampling import Step
from tests.methods.helpers import relative, sample
from tests.reference import jain2025


class Known:
    """A prediction whose magnitudes are given."""

    def __init__(self, magnitudes: list[float]):
        self.x, self.values = torch.zeros(len(magnitudes), 4, 2, 2), torch.tensor(magnitudes)

    def magnitude(self) -> torch.Tensor:
        return self.values


def scales(curves: list[list[float]], **settings) -> tuple[list[list[float]], list[int]]:
    """Applied scales of each image, and the step at which its guidance begins."""
    schedule, length = FirstMinimum(-3.0, **settings), len(curves[0])
    made = [
        schedule.scale(Step(i, torch.tensor(0), length, 7.0), Known([curve[i] for curve in curves]))
        for i in range(length)
    ]
    return torch.stack(made, 1).tolist(), schedule.numbers()["transition_step"].tolist()


CURVES = [
    [5, 4, 3, 4, 5, 4, 3, 9],
    [1, 2, 3, 4, 5, 6, 7, 8],
    [8, 7, 6, 5, 4, 3, 2, 1],
    [3, 3, 2, 2, 3, 3, 1, 2],
    [3, 1, 2, 9, 9, 9, 9, 9],
    [9, 9, 9, 9, 9, 9, 8, 9],
    [1, 9, 8, 9, 2, 3, 1, 1],
    [5, float("nan"), 2, 4, 5, 6, 7, 8],
]


def test_guidance_begins_one_step_after_the_first_strict_minimum():
    """For good, whatever comes later; an equal neighbor is no minimum, nor is an end. Against the
    reference's search.
    """
    made, start = scales(CURVES, fallback_step=8)
    expected = [-1 if (k := jain2025.first_minimum(curve)) is None else k + 1 for curve in CURVES]
    assert start == expected == [3, -1, -1, 7, 2, 7, 3, -1]
    assert made == [[-3.0] * k + [7.0] * (8 - k) for k in (k if k >= 0 else 8 for k in expected)]


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [(None, [3, 4, 4, 4, 2, 4, 3, 4]), (0, [0] * 8), (2, [2] * 8), (7, [3, 7, 7, 7, 2, 7, 3, 7])],
)
def test_the_fallback_is_the_latest_step(fallback, expected):
    """Not given: half of the steps."""
    assert scales(CURVES, fallback_step=fallback)[1] == expected


@pytest.mark.parametrize(("drop", "expected"), [(0.0, 3), (0.3, 3), (0.4, 3), (0.5, 7)])
def test_a_shallow_minimum_is_passed_over(drop, expected):
    """Against the largest value before it: 6 is 0.4 below 10, 5 is 0.5 below."""
    assert scales([[10, 8, 6, 7, 6.5, 6, 5, 6, 7]], fallback_step=9, drop=drop)[1] == [expected]


@pytest.mark.parametrize(("before", "latest"), [(0.0, None), (0.0, 12), (1.0, 7), (-1.5, 3)])
def test_parity(pipe, prompts, noise, before, latest):
    """12 steps; first guided steps are equal and final latents within 1e-4. One image of the random
    model has a minimum.
    """
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("dynamic_transition", w_before=before, fallback_step=latest),
        12,
    )
    starts, empty = [], pipe.encode([""]).tokens
    for i in range(3):
        expected, start = jain2025.dynamic(
            pipe.unet,
            noise[i : i + 1],
            empty,
            pipe.encode(prompts[i : i + 1]).tokens,
            num_steps=12,
            guidance_scale=7.0,
            before=before,
            latest=6 if latest is None else latest,
        )
        assert relative(made.final[i : i + 1], expected) < 1e-4
        starts.append(start)
    assert made.numbers["transition_step"].tolist() == starts
    assert len(set(starts)) > 1


@pytest.mark.parametrize("official", ["", "raw_units"])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_parity_in_both_units(make_pipe, prompts, noise, kind, official):
    """As above, with the script's scale of 1 before and without a fallback, within 1e-5. In units
    of v there are other minima than in those of the noise; an epsilon model has one kind of units.
    """
    pipe = make_pipe("ddim", kind)
    method = build_mitigation(
        "dynamic_transition", w_before=1.0, fallback_step=12, official=official
    )
    made = sample(pipe, prompts, noise, method, 12)
    starts, empty = [], pipe.encode([""]).tokens
    for i in range(3):
        expected, start = jain2025.dynamic(
            pipe.unet,
            noise[i : i + 1],
            empty,
            pipe.encode(prompts[i : i + 1]).tokens,
            num_steps=12,
            guidance_scale=7.0,
            before=1.0,
            latest=12,
            v_model=kind == "v_prediction",
            raw=bool(official),
        )
        assert relative(made.final[i : i + 1], expected) < 1e-5
        starts.append(start)
    assert made.numbers["transition_step"].tolist() == starts
    expected = {"epsilon": [-1, 2], "v_prediction": [3, 4] if official else [-1, -1]}
    assert starts[:2] == expected[kind]


def test_guided_from_the_start_is_no_mitigation(pipe, prompts, noise):
    made = sample(pipe, prompts, noise, build_mitigation("dynamic_transition", fallback_step=0), 4)
    assert torch.equal(
        made.final, sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 4).final
    )


def test_rows_are_2n_whether_or_not_there_is_a_transition(pipe, prompts, noise):
    made = sample(
        pipe, prompts, noise, build_mitigation("dynamic_transition", fallback_step=20), 12
    )
    assert made.numbers["transition_step"].tolist() == [-1, 2, -1]
    assert made.unet_evals.tolist() == [24, 24, 24]


def test_names_of_folders_and_bad_values():
    assert build_mitigation("dynamic_transition").named_values() == {"w": 0.0}
    assert build_mitigation(
        "dynamic_transition", fallback_step=5, drop=0.3, w_before=1
    ).named_values() == {"w": 1.0, "fallback": 5, "drop": 0.3}
    with pytest.raises(ValueError, match="--drop 1 is no share below 1"):
        build_mitigation("dynamic_transition", drop=1.0).check(50)
