"""Bright Ending embedding adjustment: parity with the transcription, the joint norm, rows, binary
masks. float32.
"""

from dataclasses import dataclass

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.base import Mitigation
from memorization_suite.mitigation.composite import Composite
from tests.methods.helpers import check_updates, relative, sample, sample_plainly
from tests.reference import chen2025, wen2024

NAME = "bright_ending_embedding"
LAYERS, SIZE, STEPS = ["down_blocks.0.attentions.0.transformer_blocks.0.attn2"], (8, 8), 4


def masks_of(pipe, prompts, noise):
    """The transcription's masks, one image after the other."""
    ends = [pipe.token_span(prompt).stop for prompt in prompts]
    return [
        chen2025.first_run_mask(
            pipe.unet,
            noise[i : i + 1],
            pipe.encode([""]).tokens,
            pipe.encode([prompt]).tokens,
            ends[i],
            LAYERS,
            SIZE,
            num_steps=STEPS,
            guidance_scale=7.0,
        )
        for i, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize(("target", "iters"), [(8.0, 8), (1.0, 3), (1000.0, 10)])
def test_parity_per_image(pipe, prompts, noise, target, iters):
    """Each image alone; final latents 1e-4, updates equal, losses 1e-4."""
    method = build_mitigation(
        NAME, optim_lr=0.01, optim_target_loss=target, optim_iters=iters, official="last_iterate"
    )
    made, empty, updates = sample(pipe, prompts, noise, method, STEPS), pipe.encode([""]).tokens, []
    for i, mask in enumerate(masks_of(pipe, prompts, noise)):
        x = noise[i : i + 1]
        embedding, losses = wen2024.official_embedding(
            pipe.unet,
            x,
            751,
            empty,
            pipe.encode(prompts[i : i + 1]).tokens,
            lr=0.01,
            target_loss=target,
            optim_iters=iters,
            mask=mask,
            decay_begin=False,
        )
        updates.append(sum(loss > target for loss in losses))
        assert float(made.numbers["first_loss"][i]) == pytest.approx(losses[0], rel=1e-4)
        if losses[-1] <= target:
            assert float(made.numbers["last_loss"][i]) == pytest.approx(losses[-1], rel=1e-3)
        final = sample_plainly(pipe, x, embedding, STEPS)
        assert relative(made.final[i : i + 1], final) < 1e-4
    check_updates(made.numbers, updates, differ=target == 8.0)


def test_parity_with_the_joint_norm(pipe, prompts, noise):
    """Norm, and mean of the mask, over the two images of a prompt; the third image has its own.
    1e-4.
    """
    texts, target = [prompts[0], prompts[2], prompts[0]], 11.0
    method = build_mitigation(
        NAME,
        optim_lr=0.01,
        optim_target_loss=target,
        optim_iters=4,
        official="joint_norm,last_iterate",
    )
    made, masks = sample(pipe, texts, noise, method, STEPS), masks_of(pipe, texts, noise)
    for images in ([0, 2], [1]):
        start = pipe.encode([texts[images[0]]]).tokens
        embedding, losses = wen2024.official_embedding(
            pipe.unet,
            noise[images],
            751,
            pipe.encode([""]).tokens,
            start,
            lr=0.01,
            target_loss=target,
            optim_iters=4,
            mask=torch.cat([masks[i] for i in images]),
        )
        final = sample_plainly(pipe, noise[images], embedding, STEPS)
        assert made.numbers["iterations"][images].tolist() == [
            sum(loss > target for loss in losses)
        ] * len(images)
        assert float(made.numbers["first_loss"][images].norm()) == pytest.approx(
            losses[0], rel=1e-4
        )
        assert relative(made.final[images], final) < 1e-4


def test_rows_are_those_of_two_runs_and_the_search(pipe, prompts, noise):
    """4N - 2 for an image that met the target at once, else 4N + J - 1; as they really pass through
    the UNet.
    """
    passed = []
    hook = pipe.unet.register_forward_pre_hook(lambda module, args: passed.append(len(args[0])))
    try:
        made = sample(
            pipe,
            prompts,
            noise,
            build_mitigation(NAME, optim_lr=0.01, optim_target_loss=8.0),
            STEPS,
        )
    finally:
        hook.remove()
    updates = made.numbers["iterations"].tolist()
    assert 0 in updates and max(updates) > 0
    assert made.unet_evals.tolist() == [4 * STEPS - 2 + (j + 1 if j else 0) for j in updates]
    assert int(made.unet_evals.sum()) == sum(passed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_an_image_below_the_target_is_the_image_without_the_method(
    make_pipe, prompts, noise, kind, dtype
):
    """Bit for bit: the first run leaves no trace."""
    pipe = make_pipe(kind, dtype=dtype)
    expected = sample(pipe, prompts, noise.to(dtype), build_mitigation("no_mitigation"), 3)
    assert torch.equal(
        sample(
            pipe, prompts, noise.to(dtype), build_mitigation(NAME, optim_target_loss=1000.0), 3
        ).final,
        expected.final,
    )


def test_binary_masks_weigh_the_bright_part_only(pipe, prompts, noise):
    """The loss of a mask of a tenth of the pixels is their norm over that share."""
    (mask,) = masks_of(pipe, prompts[:1], noise)
    seen = []
    settings = {"optim_iters": 0, "mask_binarise": "quantile", "mask_quantile": 0.9}
    made = sample(
        pipe,
        prompts[:1],
        noise[:1],
        build_mitigation(NAME, **settings),
        STEPS,
        on_step=lambda step, prediction: seen.append(prediction),
    )
    bright = (
        mask.flatten() >= mask.flatten().sort().values[57]
    )  # position 0.9 x 63 = 56.7 lies between the 57th and 58th value
    squares = (seen[0].conditional[0] ** 2).sum(0).flatten()[bright]
    assert float(made.numbers["first_loss"][0]) == pytest.approx(
        float(squares.sum().sqrt()) / (int(bright.sum()) / 64), rel=1e-4
    )


@dataclass(frozen=True)
class Longer(Mitigation):
    """Adds two words."""

    name = "longer"

    def edit_prompts(self, batch):
        return [prompt + " two cats" for prompt in batch.prompts]


def test_the_end_token_is_the_edited_prompts(pipe, prompts, noise):
    """Where another method edits the prompts, the mask belongs to what was encoded."""
    both = Composite(methods=(Longer(), build_mitigation(NAME, optim_iters=0)))
    made = sample(pipe, prompts, noise, both, STEPS)
    alone = sample(
        pipe,
        [prompt + " two cats" for prompt in prompts],
        noise,
        build_mitigation(NAME, optim_iters=0),
        STEPS,
    )
    torch.testing.assert_close(
        made.numbers["first_loss"], alone.numbers["first_loss"], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mask_binarise": "half"},
            "--mask_binarise 'half' is not possible; there are none, otsu, quantile",
        ),
        ({"mask_quantile": 0.0}, "--mask_quantile 0.0 is out of range"),
        ({"mask_quantile": 1.0}, "--mask_quantile 1 leaves no bright pixel"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build_mitigation(NAME, **settings).check(50)


def test_defaults_and_folder_name():
    assert build_mitigation(NAME).named_values() == {"tl": 1.0, "lr": 0.05, "oi": 10}
