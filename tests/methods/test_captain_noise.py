"""CAPTAIN's initial noise: parity with sums over coefficients, unit variance, what of the noise is
kept, the reference file.
"""

from pathlib import Path

import pytest
import torch
from PIL import Image

from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.captain_noise import low_frequencies, low_pass
from tests.methods.helpers import relative, sample
from tests.methods.pictures import reference_image
from tests.reference import zhang2025


def method(**settings):
    return build_mitigation("captain_noise", **({"reference": reference_image()} | settings))


@pytest.mark.parametrize("rescale", ["image", "band"])
@pytest.mark.parametrize("cutoff", [0.1, 0.3, 0.8])
def test_parity(pipe, prompts, noise, cutoff, rescale):
    """Adjusted noise within 1e-5 of the float64 sums; 2N rows."""
    made = sample(pipe, prompts, noise, method(cutoff=cutoff, rescale=rescale), 2)
    x_r = method().latent(pipe, noise)[0]
    expected = torch.stack(
        [
            zhang2025.initial_noise(eps, x_r, cutoff=cutoff, equal_bands=rescale == "band")
            for eps in noise
        ]
    )
    assert relative(made.adjusted, expected) < 1e-5
    assert made.unet_evals.tolist() == [4, 4, 4]
    torch.testing.assert_close(
        made.numbers["moved"], (expected - noise).flatten(1).norm(dim=1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(8, 8), (64, 64), (6, 10), (7, 9)])
@pytest.mark.parametrize("cutoff", [0.1, 0.5, 1.0])
def test_the_mask_is_symmetric_and_complete(shape, cutoff):
    """So that the result is real; equal to the transcription's; beyond the corner all frequencies
    are low, and at 0 none.
    """
    low = low_frequencies(*shape, cutoff)
    mirrored = low.roll((-1, -1), (0, 1)).flip(0, 1)
    assert torch.equal(low, mirrored)
    assert low.tolist() == [
        [zhang2025.is_low(u, v, *shape, cutoff) for v in range(shape[1])] for u in range(shape[0])
    ]
    assert low_frequencies(*shape, 1.5).all() and not low_frequencies(*shape, 0.0).any()


def test_no_low_frequencies_leave_the_noise_as_drawn(pipe, prompts, noise):
    made = sample(pipe, prompts, noise, method(cutoff=0.0), 2)
    assert torch.equal(made.adjusted, noise)
    assert torch.equal(
        made.final, sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 2).final
    )
    assert made.numbers["moved"].tolist() == [0, 0, 0]


def test_only_low_frequencies_leave_nothing_of_the_noise(pipe, prompts, noise):
    """Every image starts from the reference's latent, at the length of its own noise."""
    made = sample(pipe, prompts, noise, method(cutoff=1.5), 1).adjusted.flatten(1)
    x_r = method().latent(pipe, noise).flatten()
    torch.testing.assert_close(
        made, noise.flatten(1).norm(dim=1)[:, None] * (x_r / x_r.norm()), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("rescale", ["image", "band"])
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_the_length_is_the_noises(make_pipe, prompts, noise, kind, rescale):
    """1e-4; with --rescale band also above and below the cutoff, where what is above is as
    drawn.
    """
    made = sample(make_pipe(kind), prompts, noise, method(cutoff=0.4, rescale=rescale), 1).adjusted
    torch.testing.assert_close(
        made.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1), rtol=1e-4, atol=0
    )
    low = low_frequencies(8, 8, 0.4)
    same = relative(made - low_pass(made, low), noise - low_pass(noise, low)) < 1e-4
    assert same == (rescale == "band")


@pytest.mark.parametrize(("mode", "size"), [("L", (70, 20)), ("RGBA", (9, 90)), ("P", (32, 32))])
def test_any_picture_is_a_reference(pipe, noise, tmp_path, mode, size):
    """Gray, transparent, with a palette; of any shape: cut, not squeezed."""
    path = tmp_path / "any.png"
    Image.linear_gradient("L").resize(size).convert(mode).save(path)
    assert method(reference=str(path)).latent(pipe, noise).shape == (1, 4, 8, 8)


def test_a_wide_latent(pipe, prompts):
    noise = torch.randn((2, 4, 8, 16), generator=torch.Generator().manual_seed(0))
    made = sample(pipe, prompts[:2], noise, method(cutoff=0.3), 1)
    assert made.adjusted.shape == noise.shape and torch.isfinite(made.final).all()


def test_what_is_no_reference_is_refused(pipe, noise, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        method(reference=str(tmp_path / "none.png"))
    with pytest.raises(ValueError, match="needs --reference FILE"):
        build_mitigation("captain_noise").check(50)
    whole = Path(reference_image()).read_bytes()
    for name, content in [("text", b"no picture"), ("empty", b""), ("cut", whole[:-40])]:
        (tmp_path / f"{name}.png").write_bytes(content)
        damaged = method(reference=str(tmp_path / f"{name}.png"))
        with pytest.raises(ValueError, match=f"{name}.png cannot be read as an image"):
            damaged.latent(pipe, noise)
        with pytest.raises(ValueError, match=f"{name}.png cannot be read as an image"):
            damaged.check(50)


def test_a_reference_of_any_format(tmp_path):
    """The first picture of several; the upper 8 of 16 bits."""
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert method(reference=str(tmp_path / "a.gif")).picture().tobytes() == red.tobytes()
    Image.new("I;16", (4, 4), 0x1234).save(tmp_path / "a.png")
    assert set(method(reference=str(tmp_path / "a.png")).picture().tobytes()) == {0x12}


def test_a_latent_that_is_not_finite_is_refused(pipe, noise):
    parameter = next(pipe.vae.encoder.parameters())
    kept = parameter.data.clone()
    try:
        parameter.data.fill_(torch.inf)
        with pytest.raises(ValueError, match="is not finite"):
            method().latent(pipe, noise)
    finally:
        parameter.data.copy_(kept)


def test_names_of_folders():
    """A file stands there as the beginning of its content's hash."""
    assert list(build_mitigation("captain_noise").named_values()) == ["cut"]
    settings = method(rescale="band").named_values()
    assert len(settings["ref"]) == 8 and settings["cut"] == 0.1 and settings["rescale"] == "band"
