"""What becomes of a picture before a network reads it: in the official order, and in fixed numbers,
so that a change of a library is noticed.
"""

import math
import shutil

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from memorization_suite.metrics import copy_score, fid, image_reward, lpips_diversity
from memorization_suite.metrics.image_features import EfficientNet
from memorization_suite.metrics.image_reward import ImageReward
from memorization_suite.metrics.images import to_tensor
from memorization_suite.metrics.localized import at_size_of
from memorization_suite.metrics.pictures import Picture
from memorization_suite.metrics.resizing import Resize, in_order, resized
from memorization_suite.metrics.sscd import PRESETS, SSCD
from tests.metrics.conftest import CAPTIONS, picture
from tests.metrics.test_scripts import sscd_clip, values
from tests.reference import scores as plain
from tests.reference.image_reward import image_reward as plain_reward
from tests.reference.pillow_resize import resize, small_edge

BILINEAR = Image.Resampling.BILINEAR
BICUBIC = Image.Resampling.BICUBIC


def drawn(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Whole numbers of 0..255 by a rule that no library has a part in: edges, and slow changes."""
    y, x, c = np.mgrid[:height, :width, :channels]
    return ((7 * x + 5 * y + x * y // 9 + 60 * c + 90 * ((x // 11 + y // 7) % 2)) % 256).astype(
        "u1"
    )


def in_mode(mode: str, width: int = 500, height: int = 330) -> Image.Image:
    """The same picture, in colors with a varied opacity, a palette, gray, ...

    P: 16 colors; P transparent: one of them is, as in many a PNG from the web.
    """
    rgba = Image.fromarray(drawn(width, height, 4))
    if mode in ("P", "P transparent"):
        palette = Image.fromarray(drawn(width, height, 1)[..., 0] // 16).convert("P")
        palette.putpalette(drawn(16, 1).tobytes())
        if mode == "P transparent":
            palette.info["transparency"] = 3
        return palette
    if mode == "LA":
        red, _, _, alpha = rgba.split()
        return Image.merge("LA", [red, alpha])
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


OWN_MODES = ("RGBA", "P", "P transparent", "LA")


def saved(mode: str, folder, **size: int):
    """A PNG file of the picture."""
    path = folder / f"{mode.replace(' ', '_')}.png"
    in_mode(mode, **size).save(path)
    return path


# --- the order of a resize


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "CMYK"])
@pytest.mark.parametrize("size", [(48, 40), (40, 60), (60, 190)])
def test_resizing_is_that_of_the_pillow_of_the_official_codes(mode, size):
    image = in_mode(mode, *size)
    for target in ((32, 32), (64, 64), (20, 100), (32, size[1])):
        for name, resample in (("bilinear", BILINEAR), ("bicubic", BICUBIC)):
            found = resized(image, target, resample)
            assert found.mode == mode and found.size == target
            assert found.tobytes() == resize(image, target, name).tobytes()


@pytest.mark.parametrize("size", [(50, 40), (40, 50), (40, 40), (31, 33), (300, 2000), (65, 4000)])
def test_the_smaller_edge_is_that_of_torchvision(size):
    from torchvision.transforms import Resize as Theirs

    image = in_mode("RGB", *size)
    for edge in (32, 40):
        assert Resize(edge)(image).size == Theirs(edge)(image).size
    assert Resize((32, 20))(image).size == (20, 32) == Theirs((32, 20))(image).size
    assert Resize(32)(image).tobytes() == small_edge(image, 32, "bilinear").tobytes()


def test_a_portrait_for_sscd_in_the_official_order(sscd_file, sscd_model):
    """Pillow 13's own order moves a tenth of this picture's values by a level."""
    image = in_mode("RGB", 330, 500)
    for preset in PRESETS:
        found = SSCD(sscd_file, preset=preset).preprocess(image)
        assert torch.equal(found, plain.sscd_transform(preset)(image))
    columns_first = image.resize((330, 320), BILINEAR).resize((320, 320), BILINEAR)
    changed = np.asarray(resized(image, (320, 320), BILINEAR)) != np.asarray(columns_first)
    assert 0.05 < changed.mean() < 0.2


# --- the modes of files


def of_open_clip():
    """open_clip's own transform, as each of its models here gives it."""
    return image_transform_v2(PreprocessCfg(), is_train=False)


@pytest.mark.parametrize("mode", OWN_MODES)
def test_clip_reads_the_mode_of_the_file(tmp_path, mode):
    """As open_clip's own transform of the opened file, and otherwise than of RGB."""
    read = in_order(of_open_clip())
    one = Picture(saved(mode, tmp_path))
    found = read(one.stored)
    assert torch.allclose(found, of_open_clip()(Image.open(one.path)), atol=1e-5)
    assert torch.allclose(found, plain.clip_pixels(Image.open(one.path)), atol=1e-5)
    assert (found - read(one.image)).abs().max() > 0.1
    tall = Picture(saved(mode, tmp_path, width=250, height=1500))
    assert torch.allclose(read(tall.stored), plain.clip_pixels(Image.open(tall.path)), atol=1e-5)


def test_clip_gt_of_files_in_their_own_mode(run, clip_file, patches_file, capsys):
    """To the end of the script, beside the official order: a mode a prompt."""
    import open_clip

    model, _, theirs = open_clip.create_model_and_transforms("ViT-B-32", pretrained=str(clip_file))
    model.eval()
    words = open_clip.get_tokenizer("ViT-B-32")
    assert repr(theirs) == repr(of_open_clip())
    paths = []
    for row, mode in enumerate(("RGBA", "P", "LA")):
        folder = run.path.parents[2] / "gt" / str(100 + row)
        shutil.rmtree(folder)
        folder.mkdir()
        paths.append(saved(mode, folder))
    sscd_clip(run, "--clip_checkpoint", clip_file, "--sscd_checkpoint", patches_file)
    found = values(run, "clip_gt")
    for row, path in enumerate(paths):
        image = Image.open(path)
        official = plain.clip_score(model, theirs, words, image, CAPTIONS[row])
        other = plain.clip_score(model, theirs, words, image.convert("RGB"), CAPTIONS[row])
        assert found[row, None] == pytest.approx(official, abs=1e-5)
        assert abs(official - other) > 1e-4


@pytest.mark.parametrize("mode", OWN_MODES)
def test_image_reward_reads_the_mode_of_the_file(
    reward_file, reward_state, tokenizer_folder, tmp_path, mode
):
    ours = ImageReward(reward_file, tokenizer_folder)
    one = Picture(saved(mode, tmp_path))
    expected = plain_reward(reward_state, ours.tokenizer, Image.open(one.path), "a red square")
    assert ours.score([one.stored], ["a red square"]).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("mode", OWN_MODES)
def test_others_read_rgb(sscd_file, tmp_path, mode):
    """SSCD's official scripts and clean-fid convert first; LPIPS reads with OpenCV."""
    import lpips

    one = Picture(saved(mode, tmp_path))
    sscd = SSCD(sscd_file)
    sscd.embed([one])
    rgb = Image.open(one.path).convert("RGB")
    assert torch.equal(one.features[sscd.name], sscd.features([rgb])[0])
    theirs = lpips.im2tensor(lpips.load_image(str(one.path)))[0]
    assert torch.allclose(lpips_diversity.pixels_of(one.image), theirs, atol=1e-6)


def test_an_rgb_picture_is_the_same_for_all(tmp_path):
    one = Picture(tmp_path / "a.png")
    picture(0).save(one.path)
    assert one.stored is one.image is one.stored
    one.release()
    assert one.decoded is None


# --- fixed numbers


def reference_at_size(image: Image.Image) -> torch.Tensor:
    """What a localized similarity compares with an image of 120 x 90."""
    return to_tensor([at_size_of(Image.new("RGB", (120, 90)), image.convert("RGB"))])[0]


# What reads it -> the tensor that it reads.
READERS = {
    **{preset: PRESETS[preset].transform() for preset in PRESETS},
    "clip": in_order(of_open_clip()),
    "image_reward": lambda image: image_reward.transform()(image),
    "lpips": lpips_diversity.pixels_of,
    "inception": fid.inception_pixels,
    "clip_fid": fid.clip_pixels,
    "efficientnet": EfficientNet().preprocess,
    "thumbnail": lambda image: copy_score.thumbnails(to_tensor([image]))[0],
    "localized": reference_at_size,
}
PICTURES = {
    "wide": ("RGB", 500, 330),
    "tall": ("RGB", 330, 500),
    "small": ("RGB", 40, 64),
    "opacity": ("RGBA", 330, 500),
    "palette": ("P", 500, 330),
}
# Those that read pictures in the mode of their file.
AS_STORED = ("clip", "image_reward")
# Made once with Pillow 13.0.0, torch 2.14.1, torchvision 0.29.1, open_clip 3.3.0, clean-fid 0.1.35;
# Pillow 10.4.0 and 12.1.1 gave the same.
FIXED = {
    ("official320", "wide"): (0.226657, 0.907337, -0.554514),
    ("official320", "tall"): (0.227370, 0.905349, 0.539763),
    ("official320", "small"): (0.248336, 1.165443, -0.003637),
    ("sq288", "wide"): (0.226687, 0.855824, 0.916367),
    ("sq288", "tall"): (0.227425, 0.852963, 1.007977),
    ("sq288", "small"): (0.247864, 1.162842, 0.105360),
    ("small288", "wide"): (0.226598, 0.949205, 0.272990),
    ("small288", "tall"): (0.227336, 0.945672, 0.792757),
    ("small288", "small"): (0.247338, 1.163248, -0.025257),
    ("wen224", "wide"): (-0.000072, 0.397226, 0.309606),
    ("wen224", "tall"): (0.000705, 0.395967, 0.738363),
    ("wen224", "small"): (-0.012769, 0.507928, -0.129466),
    ("clip", "wide"): (0.187508, 0.823454, 0.555171),
    ("clip", "tall"): (0.188893, 0.822885, 0.281810),
    ("clip", "small"): (0.177992, 1.026787, 0.912532),
    ("clip", "opacity"): (0.133580, 0.878259, 0.335591),
    ("clip", "palette"): (-0.013590, 1.051963, -0.308902),
    ("image_reward", "wide"): (0.187508, 0.823454, 0.555171),
    ("image_reward", "tall"): (0.188893, 0.822885, 0.281810),
    ("image_reward", "small"): (0.177992, 1.026787, 0.912532),
    ("image_reward", "opacity"): (0.133580, 0.878259, 0.335591),
    ("image_reward", "palette"): (-0.013590, 1.051963, -0.308902),
    ("lpips", "wide"): (-0.000012, 0.578442, -0.354009),
    ("lpips", "tall"): (0.000297, 0.578609, 0.274698),
    ("lpips", "small"): (0.009437, 0.579988, 0.257886),
    ("inception", "wide"): (127.497341, 58.378024, -35.463040),
    ("inception", "tall"): (127.538727, 58.086734, 2.324058),
    ("inception", "small"): (128.693206, 70.318277, -1.280537),
    ("clip_fid", "wide"): (0.187508, 0.823454, 0.555171),
    ("clip_fid", "tall"): (0.188893, 0.822885, 0.281810),
    ("clip_fid", "small"): (0.177992, 1.026787, 0.912532),
    ("efficientnet", "wide"): (-0.000014, 0.354613, -0.131402),
    ("efficientnet", "tall"): (0.000293, 0.352669, -0.023118),
    ("efficientnet", "small"): (0.009376, 0.551542, -0.004140),
    ("thumbnail", "wide"): (0.500213, 0.035216, 0.013179),
    ("thumbnail", "tall"): (0.500227, 0.033610, 0.007126),
    ("thumbnail", "small"): (0.504966, 0.245352, -0.019667),
    ("localized", "wide"): (0.500015, 0.081807, -0.078682),
    ("localized", "tall"): (0.500142, 0.084538, -0.035029),
    ("localized", "small"): (0.504803, 0.262644, -0.016469),
}


def figures(tensor: torch.Tensor) -> tuple[float, float, float]:
    """Mean, deviation, and how much there is of a wave that no small change leaves as it is."""
    values = tensor.double().flatten()
    wave = torch.sin(0.7 * torch.arange(len(values), dtype=torch.float64))
    along = (values * wave).sum() / math.sqrt(len(values))
    return values.mean().item(), values.std().item(), along.item()


def figures_of(reader: str, name: str) -> tuple[float, float, float]:
    """The figures of what a reader makes of a picture."""
    return figures(READERS[reader](in_mode(*PICTURES[name])))


def test_the_table_has_every_reader_and_preset():
    assert {reader for reader, _ in FIXED} == set(READERS) and set(PRESETS) < set(READERS)


@pytest.mark.parametrize(("reader", "name"), FIXED)
def test_fixed_numbers(reader, name):
    expected = FIXED[reader, name]
    scale = 255 if reader == "inception" else 1
    assert figures_of(reader, name) == pytest.approx(expected, abs=2e-6 * scale)


def test_a_level_in_a_tenth_of_the_values_is_noticed():
    """Pillow 13's order, in the figures of `official320`."""
    image = in_mode(*PICTURES["tall"])
    columns_first = image.resize((330, 320), BILINEAR)
    other = figures(READERS["official320"](columns_first))
    assert other != pytest.approx(FIXED["official320", "tall"], abs=1e-4)
