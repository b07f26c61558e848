"""The transcriptions of the scores are sane by themselves: what their definitions say of equal,
empty and hidden images.
"""

import math

import lpips
import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference import image_reward as reward
from tests.reference import scores
from tests.reference.sscd_model import random_sscd, save_scripted

PRESETS = ("official320", "sq288", "small288", "wen224")


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Colored patches with sharp edges; size is (width, height)."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.NEAREST)


class ToySSCD(torch.nn.Module):
    """Fixed random projection of an 8 x 8 version of the image, (n, 3, h, w) -> (n, 16); not
    normalized, and signed.
    """

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(192, 16, generator=torch.Generator().manual_seed(0))

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1) @ self.weight


class ToyCLIP:
    """open_clip's two methods: mean colors of four quarters, (n, 12), and the token numbers
    themselves.
    """

    def encode_image(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)

    def encode_text(self, ids):
        return ids.float()


def tokens(text, **kwargs):
    """A word's number is its length; 35 tokens between 101 and 102, then zeros."""
    assert kwargs == {
        "padding": "max_length",
        "truncation": True,
        "max_length": 35,
        "return_tensors": "pt",
    }
    ids = [101] + [1000 + len(word) for word in text.split()][:33] + [102]
    padding = [0] * (35 - len(ids))
    return {
        "input_ids": torch.tensor([ids + padding]),
        "attention_mask": torch.tensor([[1] * len(ids) + padding]),
    }


@pytest.fixture(scope="module")
def model():
    """A fast stand-in for SSCD."""
    return ToySSCD()


@pytest.mark.parametrize("preset", PRESETS)
def test_an_image_is_its_own_best_reference(model, preset):
    assert scores.sscd_score(
        model, picture(0), [picture(1), picture(0), picture(2)], preset
    ) == pytest.approx(1.0, abs=1e-6)
    assert scores.sscd_score(model, picture(0), [picture(1), picture(2)], preset) < 0.99


def test_presets_give_their_sizes():
    shapes = [
        tuple(scores.sscd_transform(preset)(picture(0, (60, 40))).shape) for preset in PRESETS
    ]
    assert shapes == [(3, 320, 320), (3, 288, 288), (3, 288, 432), (3, 224, 224)]
    assert float(scores.sscd_transform("wen224")(Image.new("RGB", (9, 9))).max()) == -1.0
    with pytest.raises(ValueError, match="official320"):
        scores.sscd_transform("288")


def test_clip_score_is_the_raw_cosine():
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    values = {
        "same": 1.0,
        "opposite": -1.0,
    }  # number in the text's embedding -> cosine with a white image's

    def preprocess(one):
        return torch.from_numpy(np.array(one, dtype=np.float32)).permute(2, 0, 1) / 255

    def tokenizer(texts):
        return torch.full((1, 12), 3 * values[texts[0]])

    for text, expected in values.items():
        assert scores.clip_score(ToyCLIP(), preprocess, tokenizer, image, text) == pytest.approx(
            expected
        )


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_lpips_of_equal_images_is_zero_and_pairs_are_counted_once():
    torch.manual_seed(0)
    loss_fn = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    a, b = picture(0, (64, 64)), picture(1, (64, 64))
    one = scores.lpips_diversity(loss_fn, [a, b])
    assert scores.lpips_diversity(loss_fn, [a, a, a]) == 0.0
    assert one > 1e-4
    assert scores.lpips_diversity(loss_fn, [a, b, b]) == pytest.approx(2 * one / 3)
    assert math.isnan(scores.lpips_diversity(loss_fn, [a]))


def test_nemo_scores_of_equal_images_are_one(model):
    images = [picture(k) for k in range(3)]
    assert scores.nemo_sscd_gen(model, images, images, "official320") == pytest.approx(
        [1.0] * 3, abs=1e-6
    )
    assert scores.nemo_diversity(model, [images[0]] * 3, "official320") == pytest.approx(
        1.0, abs=1e-6
    )
    assert scores.nemo_diversity(model, images, "official320") < 0.99
    assert (
        scores.lower_median([4.0, 1.0, 3.0, 2.0])
        == float(torch.tensor([4.0, 1.0, 3.0, 2.0]).median())
        == 2.0
    )


def test_localized_similarity_of_equal_images(model):
    mask = np.random.default_rng(0).random((5, 6))
    assert scores.ls_l2(picture(0), picture(0), mask) == 0.0
    assert scores.ls_sscd(model, picture(0), picture(0), mask, "official320") == pytest.approx(
        1.0, abs=1e-6
    )
    assert scores.ls_gated(model, picture(0), picture(0), mask, "official320") == 0.0
    assert math.isnan(
        scores.ls_gated(model, picture(0), picture(0), mask, "official320", threshold=1.1)
    )
    assert math.isnan(scores.ls_l2(picture(0), picture(1), np.zeros((5, 6))))


def test_localized_distance_of_black_and_white_is_one_for_any_mask():
    black, white = Image.new("RGB", (48, 40)), Image.new("RGB", (48, 40), (255, 255, 255))
    assert scores.ls_l2(black, white, np.random.default_rng(0).random((5, 6))) == pytest.approx(
        -1.0
    )
    assert scores.ls_l2(
        black, Image.new("RGB", (7, 9), (255, 255, 255)), np.ones((5, 6))
    ) == pytest.approx(-1.0)


def test_mean_color_hides_what_is_outside_of_the_mask(model):
    mask = np.zeros((5, 6))
    mask[:, :3] = 1.0  # left half: 24 of 48 columns at the image's size
    one = np.array(picture(0))
    other = one.copy()
    other[:, 24:] = one[
        ::-1, :23:-1
    ]  # the right half turned round: another picture with the same mean color
    filled, turned = (
        scores.filled_outside(Image.fromarray(one), mask),
        scores.filled_outside(Image.fromarray(other), mask),
    )
    assert (one != other).any()
    assert (np.array(filled) == np.array(turned)).all()
    assert (np.array(filled)[:, :24] == one[:, :24]).all()
    assert (np.array(filled)[:, 24:] == np.rint(one.mean(axis=(0, 1)))).all()
    assert (
        scores.ls_l2(
            Image.fromarray(one), Image.fromarray(other), np.repeat(np.repeat(mask, 8, 0), 8, 1)
        )
        == 0.0
    )
    assert scores.ls_sscd(
        model, Image.fromarray(one), Image.fromarray(other), mask, "sq288"
    ) == pytest.approx(1.0, abs=1e-6)


def test_bootstrap_interval():
    assert scores.bootstrap_interval(
        {3: [0.25, 0.75], 1: [0.5], 2: [0.5, 0.5]}, resamples=50, seed=0
    ) == (0.5, 0.5)
    low, high = scores.bootstrap_interval({k: [k / 10] for k in range(10)}, resamples=200, seed=0)
    assert 0.0 < low < 0.45 < high < 0.9
    assert (low, high) == scores.bootstrap_interval(
        {k: [k / 10] for k in reversed(range(10))}, resamples=200, seed=0
    )


def test_summary():
    assert scores.summary([0.5, 0.7, 0.8, 1.0]) == pytest.approx(
        {"mean": 0.75, "above_0.5": 0.75, "above_0.7": 0.5, "percentile_95": 0.97}
    )


def test_image_reward_is_deterministic_and_sees_image_and_text():
    state = reward.random_state(0, vision_layers=2, text_layers=2)
    score = reward.image_reward(state, tokens, picture(0), "a red square")
    assert math.isfinite(score)
    assert reward.image_reward(state, tokens, picture(0), "a red square") == score
    assert abs(reward.image_reward(state, tokens, picture(1), "a red square") - score) > 1e-3
    assert abs(reward.image_reward(state, tokens, picture(0), "a green square") - score) > 1e-3


def test_image_reward_has_the_checkpoints_size():
    """447 M parameters; the two projections, through which no reward passes, are among them."""
    counts = {name: math.prod(shape) for name, shape in reward.state_shapes().items()}
    assert sum(counts.values()) == 446_665_953
    assert (
        sum(count for name, count in counts.items() if "_proj." in name)
        == 1024 * 256 + 768 * 256 + 2 * 256
    )


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_random_sscd_tells_images_apart_and_is_scripted_for_any_size(tmp_path):
    sscd = random_sscd(0)
    save_scripted(sscd, tmp_path / "sscd.torchscript.pt")
    loaded = torch.jit.load(tmp_path / "sscd.torchscript.pt")
    with torch.no_grad():
        for size in ((320, 320), (288, 384), (224, 224)):
            x = torch.rand((1, 3, *size))
            assert torch.equal(loaded(x), sscd(x))
    first, second, third = (scores.sscd_descriptor(loaded, picture(k), "wen224") for k in range(3))
    assert first.shape == (512,)
    assert (
        max(scores.cosine(first, second), scores.cosine(first, third), scores.cosine(second, third))
        < 0.95
    )
