"""A+B: hooks of both work, what collides is refused."""

from dataclasses import dataclass

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.base import Mitigation
from memorization_suite.mitigation.composite import Composite
from tests.methods import helpers


@dataclass(frozen=True)
class Shift(Mitigation):
    """Changes the embeddings a little."""

    name = "shift"

    def edit_embeddings(self, predictor, x, t, batch):
        predictor.set_tokens("text", predictor.tokens("text") * 0.5)
        return {"iterations": torch.ones(len(batch))}


def sample(pipe, prompts, noise, method):
    return helpers.sample(pipe, prompts, noise, method, 3)


def test_both_methods_act(pipe, prompts, noise):
    """Noise, and then guidance, of the two alone."""
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("per_sample+static_transition", optim_iters=1, cfg_step=0),
    )
    assert torch.equal(
        made.adjusted,
        sample(pipe, prompts, noise, build_mitigation("per_sample", optim_iters=1)).adjusted,
    )
    assert not torch.equal(
        made.final,
        sample(pipe, prompts, noise, build_mitigation("per_sample", optim_iters=1)).final,
    )
    assert (made.unet_evals == 4 + 4).all()  # step 0 is the last evaluation of the noise


def test_equal_names_of_figures_are_told_apart(pipe, prompts, noise):
    made = sample(
        pipe,
        prompts,
        noise,
        Composite(methods=(build_mitigation("per_sample", optim_iters=1), Shift())),
    )
    assert {"per_sample.iterations", "shift.iterations"} <= set(made.numbers)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "batch_wise+per_sample",
            {},
            "batch_wise and per_sample cannot be combined: both have the hook adjust_initial_noise",
        ),
        ("batch_wise+static_transition", {}, "both have the hook guidance"),
        ("per_sample+nothing", {}, "no method 'nothing'"),
        ("per_sample+static_transition", {"rho": 1.0}, "none of them takes it"),
    ],
)
def test_what_cannot_be_combined_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        build_mitigation(name, **settings)


def test_the_folder_names_both_methods_settings():
    settings = build_mitigation("per_sample+static_transition", cfg_step=4).named_values()
    assert list(settings) == ["lr", "tl", "oi", "step"]
    assert build_mitigation("per_sample+static_transition").name == "per_sample+static_transition"
