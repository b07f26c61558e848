"""Every score equals a plain transcription that looks at one image or one pair at a time."""

import math
import statistics

import numpy as np
import pytest
import torch
from PIL import Image

from memorization_suite.metrics.clip_score import ClipScore
from memorization_suite.metrics.image_reward import ImageReward
from memorization_suite.metrics.localized import at_size_of, ls_gated, ls_l2, masked_out
from memorization_suite.metrics.lpips_diversity import LpipsDiversity
from memorization_suite.metrics.scores import FeatureScore
from memorization_suite.metrics.sscd import PRESETS, SSCD
from tests.metrics.conftest import picture
from tests.reference import scores as plain
from tests.reference.image_reward import image_reward

IMAGES = [picture(i, size) for i, size in enumerate([(48, 40), (48, 40), (64, 64), (30, 90)])]
TEXTS = ["a red square", "two green ring", "the great wave " * 20, "zebra"]


@pytest.mark.parametrize("preset", PRESETS)
def test_sscd(sscd_file, sscd_model, preset):
    ours = SSCD(sscd_file, preset=preset, batch_size=3)
    assert ours.name == f"disc_mixup_{preset}"
    references = [picture(50), IMAGES[2], picture(51)]
    found = (ours.features(IMAGES) @ ours.features(references).T).amax(1)
    expected = [plain.sscd_score(sscd_model, image, references, preset) for image in IMAGES]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert found[2] == pytest.approx(1, abs=1e-5) and max(found[[0, 1, 3]]) < 0.999


def test_clip_score(clip_file):
    import open_clip

    ours = ClipScore(clip_file, batch_size=3)
    model, _, preprocess = open_clip.create_model_and_transforms(
        "ViT-B-32", pretrained=str(clip_file)
    )
    model.eval()
    found = ours.features(IMAGES) @ ours.text_features(TEXTS).T
    expected = [
        [
            plain.clip_score(model, preprocess, open_clip.get_tokenizer("ViT-B-32"), image, text)
            for text in TEXTS
        ]
        for image in IMAGES
    ]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-4) and found.std() > 1e-3
    assert not ours.model.training


def test_a_caption_is_encoded_once(clip_file):
    ours = ClipScore(clip_file)
    ours.text_features(TEXTS)
    ours.model.encode_text = None
    assert ours.text_features(TEXTS[::-1]).shape == (4, 512)


def test_lpips(alexnet_file):
    import lpips

    package = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    ours = LpipsDiversity(alexnet_file, batch_size=2)
    package.load_state_dict(ours.model.state_dict())
    images = [picture(i, (96, 80)) for i in range(4)]
    assert ours.score(images).mean().item() == pytest.approx(
        plain.lpips_diversity(package, images), abs=1e-5
    )
    distances = ours.distances(images)
    assert torch.equal(distances, distances.T) and distances.diag().abs().max() == 0
    assert distances[0, 1].item() == pytest.approx(
        plain.lpips_diversity(package, images[:2]), abs=1e-5
    )
    assert ours.distances([images[0], images[0]]).max() == 0


def test_lpips_loads_the_convolutions_of_the_file(alexnet_file):
    ours, state = LpipsDiversity(alexnet_file), torch.load(alexnet_file, weights_only=True)
    assert torch.equal(ours.model.net.slice1[0].weight, state["features.0.weight"])
    assert torch.equal(ours.model.net.slice5[-2].weight, state["features.10.weight"])


def test_lpips_heads_cannot_make_a_root_complex(alexnet_file):
    assert all(
        (head.model[-1].weight >= 0).all() for head in LpipsDiversity(alexnet_file).model.lins
    )


def test_image_reward(reward_file, reward_state, tokenizer_folder):
    ours = ImageReward(reward_file, tokenizer_folder, batch_size=3)
    expected = [
        image_reward(reward_state, ours.tokenizer, image, text)
        for image, text in zip(IMAGES, TEXTS)
    ]
    assert ours.score(IMAGES, TEXTS).tolist() == pytest.approx(expected, abs=1e-4)
    assert statistics.stdev(expected) > 0.01
    assert ours.tokenizer("zebra red").input_ids == [2, 1, 6, 3]


@pytest.mark.slow
def test_image_reward_at_full_size(tmp_path, tokenizer_folder):
    from tests.reference.image_reward import random_state

    state = random_state(1)
    torch.save(state, tmp_path / "ImageReward.pt")
    ours = ImageReward(tmp_path / "ImageReward.pt", tokenizer_folder)
    expected = [
        image_reward(state, ours.tokenizer, image, text) for image, text in zip(IMAGES[:2], TEXTS)
    ]
    assert ours.score(IMAGES[:2], TEXTS[:2]).tolist() == pytest.approx(expected, abs=1e-4)


# --- localized, same-seed, intervals


def test_localized_similarities(sscd_file, sscd_model):
    ours = SSCD(sscd_file)
    mask = np.zeros((8, 8), np.float32)
    mask[2:6, 1:5] = 1
    mask[0, 0] = 0.4
    for image, reference in [
        (IMAGES[0], IMAGES[1]),
        (IMAGES[2], IMAGES[3]),
        (IMAGES[0], IMAGES[0]),
    ]:
        l2 = ls_l2(image, reference, torch.tensor(mask))
        first, second = ours.features(
            [masked_out(one, torch.tensor(mask)) for one in (image, at_size_of(image, reference))]
        )
        assert l2 == pytest.approx(plain.ls_l2(image, reference, mask), abs=1e-5)
        assert (first @ second).item() == pytest.approx(
            plain.ls_sscd(sscd_model, image, reference, mask, "official320"), abs=1e-4
        )
        whole = (ours.features([image]) @ ours.features([reference]).T).item()
        expected = plain.ls_gated(sscd_model, image, reference, mask, "official320")
        assert ls_gated(l2, whole) == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert math.isnan(ls_gated(-0.1, 0.5)) and ls_gated(-0.1, 0.51) == -0.1


def test_outside_of_the_mask_nothing_counts():
    mask = torch.zeros(50, 60)
    mask[:, :30] = 1
    image, other = picture(1, (60, 50)), picture(1, (60, 50))
    other.paste((0, 0, 0), (31, 0, 60, 50))
    assert ls_l2(image, other, mask) == 0 and ls_l2(image, other, 1 - mask) < -0.1


def test_same_seed_and_diversity(sscd_file, sscd_model):
    from memorization_suite.metrics.pictures import Picture
    from memorization_suite.metrics.runs import Group
    from memorization_suite.metrics.same_seed import pairwise_similarity
    from memorization_suite.prompts.files import Prompt

    ours, pictures = SSCD(sscd_file), []
    for image in IMAGES:
        pictures.append(Picture(None))
        pictures[-1].decoded = image
    group, score = (
        Group(Prompt(0, "a"), [0, 1, 2, 3], pictures, []),
        FeatureScore("sscd_pairs", ours, pairwise_similarity),
    )
    score.prepare([group])
    assert score.values(group)[None] == pytest.approx(
        plain.nemo_diversity(sscd_model, IMAGES, "official320"), abs=1e-4
    )


def test_median_and_deviation():
    from memorization_suite.metrics.same_seed import median_and_deviation

    assert median_and_deviation([[1, 2, 3, 4], [10], [5, 7, 6]]) == (6, 4)


def test_interval_is_that_of_a_plain_bootstrap():
    from memorization_suite.metrics.intervals import interval

    means = np.random.default_rng(3).normal(0.4, 0.2, 40)
    expected = plain.bootstrap_interval({i: [value] for i, value in enumerate(means)}, 4000, 5)
    assert interval(means) == pytest.approx(expected, abs=0.004)


def test_means_without_spread_have_no_interval():
    """But a share of none or all has the exact one: scipy's Clopper-Pearson."""
    from scipy.stats import binomtest

    from memorization_suite.metrics.intervals import interval, share_of_copies

    alike = ([0.5], [0.5] * 7, [0.1 + 0.2, 0.3], [0.0] * 20, [-0.2] * 4)
    assert all(math.isnan(value) for means in alike for value in interval(means))
    assert all(math.isnan(value) for value in interval([0.5] * 7, share=True))
    for share in (0, 1):
        exact = binomtest(20 * share, 20).proportion_ci(0.95, "exact")
        assert interval([float(share)] * 20, share=True) == pytest.approx(tuple(exact))
    none = share_of_copies(((prompt, 0.1) for prompt in range(20)), 0.75)
    assert (none.mean, none.low) == (0, 0) and none.high == pytest.approx(0.168, abs=1e-3)


def test_a_tighter_set_has_a_tighter_interval():
    from memorization_suite.metrics.intervals import interval

    wide, narrow = (interval(list(np.linspace(0.5 - half, 0.5 + half, 30))) for half in (0.4, 0.1))
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]


def test_gray_images_are_read_as_rgb(sscd_file, tmp_path):
    from memorization_suite.metrics.pictures import Picture

    Image.new("L", (20, 20), 90).save(tmp_path / "gray.png")
    Image.new("RGBA", (20, 20), (90, 90, 90, 10)).save(tmp_path / "rgba.png")
    first, second = SSCD(sscd_file).features(
        [Picture(tmp_path / name).image for name in ("gray.png", "rgba.png")]
    )
    assert torch.allclose(first, second)
