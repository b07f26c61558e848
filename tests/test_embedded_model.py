"""The embedded model is what its card says, in small: it memorized, prompts that it memorized stand
out, the paper's methods help.
"""

import pytest
import torch

from memorization_suite import tiny
from memorization_suite.experiments.evaluate_tiny import magnitudes, recolored
from memorization_suite.experiments.late_guidance import STARTS, first_escape
from memorization_suite.experiments.tune_guidance import choose as choose_guidance
from memorization_suite.experiments.tune_presets import choose, toml
from memorization_suite.metrics.copy_score import THRESHOLD, copy_scores
from memorization_suite.metrics.embedded import read_captions
from memorization_suite.metrics.intervals import is_copy
from memorization_suite.mitigation import build_mitigation
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.pipelines.models import load_preset
from memorization_suite.sampling import image_seed, initial_noise
from tests.methods.helpers import sample

shipped = pytest.mark.skipif(
    not tiny.MODELS["tiny"].is_dir(), reason="the weights of tiny are not in this checkout"
)
both = pytest.mark.parametrize("model", ["tiny", "tiny-v"], indirect=True)
PLAIN, PER_SAMPLE = "no_mitigation", "per_sample"


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("tiny")


@pytest.fixture(scope="module")
def captions():
    return some_captions("tiny")


@pytest.fixture(scope="module")
def model(request):
    """(name, pipeline, captions) of an embedded model."""
    return request.param, load_pipeline(request.param), some_captions(request.param)


def some_captions(name: str):
    """Two captions of each memorized kind and group, as far as there are."""
    rows = read_captions(tiny.prompts(name))
    return [
        row
        for kind, group in (("VM", "A"), ("VM", "B"), ("TM", None), ("LM", None))
        for row in [row for row in rows if row.kind == kind and group in (None, row.group)][:2]
    ]


def share_of_copies(model, method: str) -> float:
    """Two images of each caption, 25 steps."""
    name, pipe, captions = model
    settings = load_preset("auto", name)[1].get(method, {})
    seeds = [image_seed(2, caption.row, k) for caption in captions for k in range(2)]
    prompts, noise = (
        [caption.text for caption in captions for _ in range(2)],
        initial_noise(seeds, (4, 16, 16)),
    )
    made = sample(pipe, prompts, noise, build_mitigation(method, **settings), 25)
    images = pipe.decode(made.final).unflatten(0, (len(captions), 2))
    scores = torch.stack(
        [
            copy_scores(pair, caption.references(), caption.mask()).amax(1)
            for caption, pair in zip(captions, images)
        ]
    )
    return sum(is_copy(score, THRESHOLD) for score in scores.flatten().tolist()) / scores.numel()


@shipped
@both
def test_memorized_prompts_reproduce_their_training_images_and_the_method_lowers_that(model):
    plain = share_of_copies(model, PLAIN)
    assert plain >= 0.7 and share_of_copies(model, PER_SAMPLE) <= plain / 2


@shipped
@both
def test_memorized_prompts_have_larger_magnitudes(model):
    name, pipe, captions = model
    ordinary = read_captions(tiny.prompts(name, "ordinary_test"))[::9]
    low, high = (magnitudes(pipe, rows, seeds=4).mean(1) for rows in (ordinary, captions))
    assert high.median() > 1.3 * low.median() and (high[:, None] > low).float().mean() > 0.9


@shipped
@both
def test_the_models_are_what_they_stand_for(model):
    name, pipe, _ = model
    kinds = {
        "tiny": ("epsilon", "DDIMScheduler"),
        "tiny-v": ("v_prediction", "EulerDiscreteScheduler"),
    }
    assert (pipe.scheduler.config.prediction_type, type(pipe.scheduler).__name__) == kinds[name]
    assert sum(file.stat().st_size for file in tiny.MODELS[name].rglob("*.safetensors")) < 12e6


def test_first_escape_is_for_good():
    copies = [True] * 3 + [False] + [True] + [False] * (len(STARTS) - 5)
    assert (
        first_escape(copies) == STARTS[5]
        and first_escape([False] * len(STARTS)) == 0
        and first_escape([True] * len(STARTS)) is None
    )


def test_a_template_is_compared_in_the_colors_of_the_image():
    """Pictures of two areas and a subject, each area in a color of its own."""
    torch.manual_seed(0)
    main, trim = torch.zeros(2, 8, 8)
    main[:4], trim[4:] = 0.9, 0.5  # an area may be mixed with white
    subject = torch.rand(3, 8, 8) * 0.1

    def picture(colors):
        return subject + colors[0][:, None, None] * main + colors[1][:, None, None] * trim

    references = torch.stack([picture(torch.rand(2, 3)) for _ in range(4)])
    other = picture(torch.rand(2, 3))[None]
    assert recolored(references, other) == pytest.approx(other.numpy(), abs=1e-4)
    stained = other.clone()
    stained[0, :, :2, :2] = 1
    left = (stained - recolored(references, stained)).square().mean().sqrt().item()
    assert left > 0.05


def test_the_rule_for_presets_weighs_subject_against_copies():
    tried = [
        {"copies": copies, "subject shown": shown}
        for copies, shown in ((0.0, 0.2), (0.3, 0.76), (0.3, 0.9), (0.6, 1.0))
    ]
    assert choose(tried) is tried[2]
    assert (
        toml({"generate": {"scheduler": "keep", "image_length": 64}})
        == '[generate]\nscheduler = "keep"\nimage_length = 64\n'
    )


def test_guidance_meets_most_goals_and_is_the_largest_of_those():
    def line(scale, one, two, distance):
        return {"guidance_scale": scale, "one": one, "two": two, "distance of copies": distance}

    high, low = line(7, 0.9, 0.8, 0.1), line(2, 0.9, 0.8, 0.08)
    assert choose_guidance([high, line(3, 0.9, 0.8, 0.081), low]) == 2
    assert choose_guidance([high, line(3, 0.9, 0.5, None), line(2, 0.5, 0.8, 0.07)]) == 7


@shipped
def test_images_of_another_batch_are_the_same_with_one_gradient_at_a_time(pipe, captions):
    method = build_mitigation("per_sample", lr=0.05, target_loss=0.8, optim_iters=20, grad_rows=1)
    texts, noise = (
        [caption.text for caption in captions[:3]],
        initial_noise([image_seed(2, k, 0) for k in range(3)], (4, 16, 16)),
    )

    def pictures(rows):
        made = sample(pipe, [texts[i] for i in rows], noise[rows], method, 10)
        return pipe.decode(made.final)

    alone = torch.cat([pictures([i]) for i in range(3)])
    assert (255 * (pictures([0, 1, 2]) - alone)).abs().max() <= 1.01
