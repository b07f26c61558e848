"""Noise on the embeddings: parity with the transcription, independence of its parts."""

import numpy as np
import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.sampling import Batch, initial_noise
from tests.methods.helpers import relative, sample
from tests.models import predictor_for
from tests.reference import somepalli2023

SEEDS = [11, 12, 13]


def noised(pipe, prompts, seeds, lam=0.1) -> dict:
    predictor = predictor_for(pipe, prompts)
    batch = Batch.of_captions(prompts, seeds=seeds)
    build_mitigation("embedding_noise", rand_noise_lam=lam).edit_embeddings(
        predictor, None, 981, batch
    )
    return {half: predictor.tokens(half) for half in predictor.conditioning}


@pytest.mark.parametrize("lam", [0.0, 0.1, 0.5])
def test_parity(pipe, prompts, noise, lam):
    """Final latents of 5 steps within 1e-4; the draws of an image: the unconditional row's, then
    the prompt's. 2N rows.
    """
    made = sample(
        pipe,
        prompts,
        noise,
        build_mitigation("embedding_noise", rand_noise_lam=lam),
        5,
        seeds=SEEDS,
    )
    generators = [np.random.default_rng(seed) for seed in SEEDS]
    draws = [
        torch.from_numpy(rng.standard_normal((77, 128), dtype=np.float32))
        for _ in range(2)
        for rng in generators
    ]
    stacked = somepalli2023.noised(
        torch.cat([pipe.encode([""] * 3).tokens, pipe.encode(prompts).tokens]), lam, draws
    )
    assert (
        relative(
            made.final,
            somepalli2023.guided_run(pipe.unet, noise, stacked, num_steps=5, guidance_scale=7.0),
        )
        < 1e-4
    )
    assert made.unet_evals.tolist() == [10, 10, 10]


def test_no_noise_is_no_mitigation(pipe, prompts, noise):
    made = sample(pipe, prompts, noise, build_mitigation("embedding_noise", rand_noise_lam=0.0), 3)
    assert torch.equal(
        made.final, sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 3).final
    )


def test_images_and_halves_have_noise_of_their_own(pipe, prompts):
    """Of standard deviation lambda, uncorrelated between the halves, between images of one prompt,
    and with the images' initial noise.
    """
    captions = [prompts[0]] * 3
    embeds = noised(pipe, captions, SEEDS)
    added = [
        *(embeds["text"] - pipe.encode(captions).tokens).flatten(1),
        *(embeds["uncond"] - pipe.encode([""] * 3).tokens).flatten(1),
    ]
    assert torch.stack(added).std(1).tolist() == pytest.approx([0.1] * 6, rel=0.05)
    rows = torch.stack([*added, *initial_noise(SEEDS, (77, 128)).flatten(1)])
    assert float((torch.corrcoef(rows) - torch.eye(9)).abs().max()) < 0.05


def test_half_precision_embeddings_stay_so_and_are_noised_in_float32(make_pipe, prompts):
    exact, rounded = (
        noised(make_pipe(dtype=dtype), prompts, SEEDS)["text"]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


def test_settings():
    assert build_mitigation("embedding_noise").named_values() == {"lam": 0.1}
    with pytest.raises(ValueError, match="at least 0"):
        build_mitigation("embedding_noise", rand_noise_lam=-0.1)
