"""Opposite guidance: parity with the transcription for both kinds of transition, the cosine
signal.
"""

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from tests.methods.helpers import relative, sample
from tests.reference import jain2025

STEPS = 12


def theirs(pipe, prompts, noise, function, **settings) -> list:
    """The transcription on one image after the other."""
    empty = pipe.encode([""]).tokens
    return [
        function(
            pipe.unet,
            noise[i : i + 1],
            empty,
            pipe.encode(prompts[i : i + 1]).tokens,
            num_steps=STEPS,
            **settings,
        )
        for i in range(len(prompts))
    ]


@pytest.mark.parametrize(("s", "latest"), [(2.0, None), (2.0, 12), (1.0, 7)])
def test_parity_with_the_dynamic_transition(pipe, prompts, noise, s, latest):
    """12 steps; first guided steps are equal and final latents within 1e-4."""
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("opposite_guidance", opposite_scale=s, fallback_step=latest),
        STEPS,
    )
    expected = theirs(
        pipe,
        prompts,
        noise,
        jain2025.dynamic,
        guidance_scale=7.0,
        before=-s,
        latest=6 if latest is None else latest,
    )
    assert relative(made.final, torch.cat([final for final, _ in expected])) < 1e-4
    assert made.numbers["transition_step"].tolist() == [start for _, start in expected]


@pytest.mark.parametrize(("s", "tau"), [(2.0, 650.0), (5.0, 900.0), (0.0, 500.0)])
def test_parity_with_a_fixed_transition(pipe, prompts, noise, s, tau):
    """Final latents within 1e-4; with s = 0 it is the static transition."""
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("opposite_guidance", opposite_scale=s, tau=tau),
        STEPS,
    )
    expected = theirs(
        pipe, prompts, noise, jain2025.opposite_until, guidance_scale=7.0, s=s, tau=tau
    )
    assert relative(made.final, torch.cat(expected)) < 1e-4
    assert not made.numbers
    if s == 0:
        assert (
            relative(
                made.final,
                sample(
                    pipe, prompts, noise, build_mitigation("static_transition", tau=tau), STEPS
                ).final,
            )
            < 1e-5
        )


def test_cosine_is_the_same_minimum_one_step_later(pipe, prompts, noise):
    """The whole pass of opposite guidance finds it at k; the same pass can tell once step k + 1 is
    taken, so guidance begins at k + 2.
    """
    minima = [
        jain2025.first_minimum(changes)
        for changes in theirs(pipe, prompts, noise, jain2025.cosine_changes, s=2.0)
    ]
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("opposite_guidance", signal="cosine", fallback_step=STEPS),
        STEPS,
    )
    assert any(k is not None for k in minima)
    assert made.numbers["transition_step"].tolist() == [
        -1 if k is None or k + 2 >= STEPS else k + 2 for k in minima
    ]


def test_no_opposition_is_the_dynamic_transition(pipe, prompts, noise):
    made, expected = (
        sample(pipe, prompts, noise, build_mitigation(name, **settings), 6)
        for name, settings in (
            ("opposite_guidance", {"opposite_scale": 0.0}),
            ("dynamic_transition", {}),
        )
    )
    assert torch.equal(made.final, expected.final)


@pytest.mark.parametrize("settings", [{}, {"tau": 500.0}, {"signal": "cosine"}])
def test_rows_are_2n(pipe, prompts, noise, settings):
    assert sample(
        pipe, prompts, noise, build_mitigation("opposite_guidance", **settings), 6
    ).unet_evals.tolist() == [12, 12, 12]


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({}, {"opposite": 2.0}),
        ({"tau": 650.0, "drop": 0.3}, {"opposite": 2.0, "tau": 650.0}),
        (
            {"signal": "cosine", "fallback_step": 5},
            {"opposite": 2.0, "fallback": 5, "signal": "cosine"},
        ),
    ],
)
def test_names_of_folders(settings, folder):
    assert build_mitigation("opposite_guidance", **settings).named_values() == folder
