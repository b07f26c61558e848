"""Properties of whole detectors: one trajectory for all equals one each, images never see each
other, rows are as stated. float32, random model.
"""

import json
from pathlib import Path

import pytest
import torch

from memorization_suite.detection import DETECTORS, Detector, build_detector
from memorization_suite.detection.base import register
from memorization_suite.detection.stability import NormRecorder, measure
from memorization_suite.detection.trajectory import detect
from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import predictor_of
from memorization_suite.sampling.sample import sample as sample_batch
from tests.reference import detectors as plain

STEPS, SCALE = 5, 7.5
ROWS = {
    "noise_norm": 2,
    "noise_norm_all": 2 * STEPS,
    "attention_entropy": 2 * STEPS,
    "layer_entropy": 2,
    "bright_ending": 2 * STEPS,
    "sharpness": 4,
    "anisotropy": 4,
    "tile_distance": 2 * STEPS,
    "seed_similarity": 2 * STEPS,
    "stability": 2 * STEPS,
}
OF_PROMPTS = ("tile_distance", "seed_similarity")  # scores among a prompt's images


FILES: dict[str, str] = {}  # made once, for the detectors that need one


@pytest.fixture(autouse=True)
def statistics(make_pipe, prompts, noise, tmp_path_factory):
    """Norms of a few images for `stability`, of DDIM and of Euler; epsilon and v of the random
    model have different ones.
    """
    for kind, prediction_type in (("ddim", "epsilon"), ("euler", "v_prediction")):
        if kind not in FILES:
            pipe, recorder = make_pipe(kind, prediction_type), NormRecorder()
            final = sample_batch(
                pipe,
                Batch.of_captions(prompts),
                noise,
                build_mitigation("no_mitigation"),
                num_inference_steps=STEPS,
                guidance_scale=SCALE,
                on_step=recorder.on_step,
            ).final
            FILES[kind] = str(tmp_path_factory.mktemp("statistics") / f"{kind}.json")
            made = measure(recorder.finish(final), {"guidance_scale": SCALE}, {})
            Path(FILES[kind]).write_text(made.as_text(), encoding="utf-8")


def built(name: str, kind: str = "ddim"):
    """The detector with its defaults; one that needs more steps than STEPS is built with those."""
    own = {"statistics": FILES[kind]} if name == "stability" else {}
    detector = build_detector(name, **own)
    if detector.steps(STEPS) > STEPS:
        detector = build_detector(name, num_steps=STEPS, **own)
    detector.check(STEPS)
    return detector


def run(pipe, chosen, prompts, noise, **known):
    """(what detect() saw, the predictor). known: of the batch."""
    batch = Batch.of_captions(prompts, **known)
    predictor = predictor_of(pipe, batch, STEPS)
    return detect(chosen, predictor, noise, batch, SCALE), predictor


@pytest.mark.parametrize("name", DETECTORS)
def test_rows_are_as_stated(pipe, prompts, noise, name):
    seen, predictor = run(pipe, [built(name)], prompts, noise)
    assert name in ROWS, f"ROWS of {__file__} does not say how many NFE {name} takes"
    assert seen.results[0].rows.tolist() == predictor.unet_evals.tolist() == [ROWS[name]] * 3


@pytest.mark.parametrize("name", sorted(set(DETECTORS) - set(OF_PROMPTS)))
@pytest.mark.parametrize("kind", [("ddim", "epsilon"), ("euler", "v_prediction")], ids="-".join)
def test_a_batch_of_three_equals_three_batches_of_one(make_pipe, prompts, noise, kind, name):
    """To 1e-4 of the score."""
    pipe, detector = make_pipe(*kind), built(name, kind[0])
    together = run(pipe, [detector], prompts, noise)[0].results[0].scores
    alone = [
        run(pipe, [detector], prompts[i : i + 1], noise[i : i + 1])[0].results[0].scores
        for i in range(3)
    ]
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_one_trajectory_for_all_gives_the_scores_and_rows_of_one_each(pipe, prompts, noise):
    """And costs the longest trajectory plus what the others add: 2N, 2 of the sharpness, 2 of the
    anisotropy.
    """
    chosen = [built(name) for name in DETECTORS]
    seen, predictor = run(pipe, chosen, prompts, noise, prompt_seeds=[1, 1, 1])
    assert predictor.unet_evals.tolist() == [2 * STEPS + 2 + 2] * 3
    for detector, watched in zip(chosen, seen.results):
        alone = run(pipe, [detector], prompts, noise, prompt_seeds=[1, 1, 1])[0].results[0]
        torch.testing.assert_close(watched.scores, alone.scores, rtol=1e-3, atol=1e-4)
        assert torch.equal(watched.rows, alone.rows)


def test_the_trajectory_is_the_unmitigated_run(pipe, prompts, noise):
    """Its last latents are those of plain guidance, so masks and images belong together."""

    class Last(Detector):
        needs_final = True

        def finish(self, look):
            return look.final.flatten(1).norm(dim=1)

    expected = sample_batch(
        pipe,
        Batch.of_captions(prompts),
        noise,
        build_mitigation("no_mitigation"),
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
    ).final
    torch.testing.assert_close(
        run(pipe, [Last()], prompts, noise)[0].results[0].scores, expected.flatten(1).norm(dim=1)
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_nothing_is_left_behind(pipe, prompts, noise, name):
    processors = dict(pipe.unet.attn_processors)
    run(pipe, [built(name)], prompts, noise)
    assert pipe.unet.attn_processors == processors and all(
        p.grad is None for p in pipe.unet.parameters()
    )


def test_masks_have_the_latents_size(pipe, prompts, noise):
    for name in DETECTORS:
        detector = built(name)
        if detector.spatial:
            masks = run(pipe, [detector], prompts, noise)[0].results[0].masks
            assert masks.shape == (3, 8, 8) and (masks >= 0).all()


def test_settings_are_checked():
    with pytest.raises(ValueError, match="--num_steps 60 is more than the 50 steps"):
        build_detector("noise_norm", num_steps=60).check(50)
    with pytest.raises(ValueError, match="no detector 'nose_norm'; there are anisotropy"):
        build_detector("nose_norm")
    with pytest.raises(ValueError, match="noise_norm does not take 'layer'"):
        build_detector("noise_norm", layer=1)
    with pytest.raises(ValueError, match="two detectors are called 'noise_norm'"):
        register("noise_norm", paper="x", cost="x")(type("Other", (), {}))


# parity
def trajectory(pipe, prompts, noise):
    """The plain transcription's own DDIM run: a list of (x, uncond, text) for each step."""
    embeds = [pipe.encode([prompt]).tokens for prompt in prompts]
    return [
        plain.trajectory(
            pipe.unet, noise[i : i + 1], embeds[i], pipe.encode([""]).tokens, STEPS, SCALE
        )
        for i in range(len(prompts))
    ]


@pytest.mark.parametrize("count", [1, 3, STEPS])
def test_noise_norm(pipe, prompts, noise, count):
    """1e-4 of the score."""
    expected = [plain.noise_norm(steps, count) for steps in trajectory(pipe, prompts, noise)]
    detector = build_detector("noise_norm", num_steps=count)
    torch.testing.assert_close(
        run(pipe, [detector], prompts, noise)[0].results[0].scores,
        torch.tensor(expected),
        rtol=1e-4,
        atol=0,
    )
    if count == STEPS:
        torch.testing.assert_close(
            run(pipe, [build_detector("noise_norm_all")], prompts, noise)[0].results[0].scores,
            torch.tensor(expected),
            rtol=1e-4,
            atol=0,
        )


@pytest.mark.parametrize("difference", ["absolute", "signed"])
def test_attention_entropy(pipe, prompts, noise, difference):
    """1e-4 absolute on entropies of about 4."""
    expected = [
        plain.attention_entropy(
            pipe, prompt, noise[i : i + 1], STEPS, SCALE, difference == "absolute"
        )
        for i, prompt in enumerate(prompts)
    ]
    scores = (
        run(pipe, [build_detector("attention_entropy", difference=difference)], prompts, noise)[0]
        .results[0]
        .scores
    )
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_attention_is_seen_where_guidance_needs_one_half(pipe, prompts, noise, scale):
    """The first step does not depend on the guidance scale. 1e-4."""
    detector = build_detector("layer_entropy")
    batch = Batch.of_captions(prompts)
    predictor = predictor_of(pipe, batch, STEPS)
    seen = detect([detector], predictor, noise, batch, scale)
    guided = run(pipe, [detector], prompts, noise)[0]
    torch.testing.assert_close(seen.results[0].scores, guided.results[0].scores, rtol=0, atol=1e-4)


def test_layer_entropy(pipe, prompts, noise):
    expected = [
        plain.layer_entropy(pipe, prompt, noise[i : i + 1], STEPS, 3)
        for i, prompt in enumerate(prompts)
    ]
    torch.testing.assert_close(
        run(pipe, [build_detector("layer_entropy")], prompts, noise)[0].results[0].scores,
        torch.tensor(expected),
        rtol=0,
        atol=1e-4,
    )


def test_bright_ending_in_one_pass_equals_the_two_pass_procedure(pipe, prompts, noise):
    """1e-4 of the score."""
    expected = [
        plain.bright_ending(pipe, prompt, noise[i : i + 1], STEPS, SCALE)
        for i, prompt in enumerate(prompts)
    ]
    torch.testing.assert_close(
        run(pipe, [build_detector("bright_ending")], prompts, noise)[0].results[0].scores,
        torch.tensor(expected),
        rtol=1e-4,
        atol=0,
    )


def test_anisotropy(pipe, prompts, noise):
    expected = [
        plain.anisotropy(pipe, prompt, noise[i : i + 1], STEPS, 1.0, 2.0)
        for i, prompt in enumerate(prompts)
    ]
    torch.testing.assert_close(
        run(pipe, [build_detector("anisotropy")], prompts, noise)[0].results[0].scores,
        torch.tensor(expected),
        rtol=1e-4,
        atol=1e-4,
    )


def test_tile_distance():
    """The largest distance of corresponding tiles, in loops."""
    from memorization_suite.detection.seed_similarity import tile_distance

    images = torch.rand(3, 3, 9, 10, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor(
        [[plain.tile_distance(a, b, 2) for b in images.tolist()] for a in images.tolist()]
    )
    torch.testing.assert_close(tile_distance(images, 2), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OF_PROMPTS)
def test_alike_images_score_higher(pipe, prompts, noise, name):
    """Equal noise and prompt give equal images: the largest possible score; a prompt with one image
    has none.
    """
    noise = torch.cat([noise[:1], noise[:1], noise])
    scores = (
        run(
            pipe,
            [build_detector(name)],
            [prompts[0]] * 4 + [prompts[1]],
            noise,
            prompt_seeds=[1, 1, 2, 2, 3],
        )[0]
        .results[0]
        .scores
    )
    assert scores[0] == pytest.approx(1.0 if name == "seed_similarity" else 0.0, abs=1e-4)
    assert scores[0] > scores[2] and scores[4].isnan()


def test_stability(pipe, prompts, noise):
    """The largest deviation of an update's length, in loops; 1e-3 of the score (a difference of
    near-equal numbers).
    """
    stored = json.loads(Path(FILES["ddim"]).read_text())
    expected = []
    plain_method = build_mitigation("no_mitigation")
    for i in range(3):
        final = sample_batch(
            pipe,
            Batch.of_captions(prompts[i : i + 1]),
            noise[i : i + 1],
            plain_method,
            num_inference_steps=STEPS,
            guidance_scale=SCALE,
        ).final
        zs = [x for x, _, _ in trajectory(pipe, prompts[i : i + 1], noise[i : i + 1])[0]] + [final]
        lengths = [plain.norm(b - a) for a, b in zip(zs, zs[1:])]
        expected.append(
            max(
                abs(length - mean) / sd
                for length, mean, sd in zip(
                    lengths, stored["mean"]["update"], stored["sd"]["update"]
                )
            )
        )
    scores = run(pipe, [built("stability")], prompts, noise)[0].results[0].scores
    torch.testing.assert_close(scores, torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_stability_refuses_statistics_of_another_run(pipe, prompts, noise):
    with pytest.raises(ValueError, match="num_inference_steps is 5 there, 50 here"):
        built("stability").check(50)
    assert "needs --statistics FILE" in build_detector("stability").missing()
