"""SAIL: parity with the transcriptions of the paper and of the official code, cost, restarts,
faults.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import memorization_suite as suite
from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.sail import Sail
from memorization_suite.sampling import Batch
from memorization_suite.sampling.sample import denoise
from tests.methods.helpers import Poisoned, equal_rows, relative, sample
from tests.models import predictor_of
from tests.reference import jeon2025

SEEDS, STEPS, FIRST = [21, 22, 23], 4, 751  # timesteps 751, 501, 251, 1
SHAPE = (4, 8, 8)
QUIRKS = "fixed_direction,same_candidates,v_as_x0"


def noises(seed: int, own: torch.Tensor, restarts: int) -> list[torch.Tensor]:
    """The image's own noise and what it starts anew from."""
    drawn = [own]
    for restart in range(1, restarts + 1):
        derived = int(np.random.SeedSequence([seed, restart]).generate_state(1, np.uint64)[0]) >> 1
        drawn.append(torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(derived)))
    return drawn


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("epsilon", {}),
        ("epsilon", {"stop_gradient": 1, "delta": 3.0, "alpha": 0.2, "l_thres": 9.0}),
        ("v_prediction", {"l_thres": 2.45}),
        ("epsilon", {"restarts": 4, "max_steps": 2, "l_thres": 8.35}),
        ("epsilon", {"objective": "paper", "alpha": 0.02, "l_thres": 2.8}),
        ("v_prediction", {"objective": "paper", "alpha": 0.02, "l_thres": 2.75}),
    ],
    ids=str,
)
def test_parity(make_pipe, prompts, noise, kind, settings):
    """Updates, restarts and acceptance are equal, noises within 1e-4 and losses within 1e-4,
    although ours optimizes the images together.
    """
    pipe, settings = (
        make_pipe("ddim", kind),
        {"lr": 0.2, "max_steps": 4, "restarts": 1, "l_thres": 8.0} | settings,
    )
    made = sample(pipe, prompts, noise, build_mitigation("sail", **settings), STEPS, seeds=SEEDS)
    known = {"alpha": 0.05, "delta": 1.0} | settings
    for i, seed in enumerate(SEEDS):
        expected = jeon2025.own_noise(
            pipe.unet,
            noises(seed, noise[i : i + 1], known["restarts"]),
            FIRST,
            torch.cat([pipe.encode([""]).tokens, pipe.encode(prompts[i : i + 1]).tokens]),
            threshold=known["l_thres"],
            lr=known["lr"],
            max_steps=known["max_steps"],
            alpha=known["alpha"],
            delta=known["delta"],
            paper=known.get("objective") == "paper",
            stop_gradient=bool(known.get("stop_gradient")),
            v_model=kind == "v_prediction",
        )
        numbers = {name: values[i].item() for name, values in made.numbers.items()}
        assert [numbers[name] for name in ("iterations", "restarts", "attempt", "reached")] == [
            expected[name] for name in ("updates", "restarts", "attempt", "reached")
        ]
        assert relative(made.adjusted[i : i + 1], expected["x"]) < 1e-4
        assert numbers["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert len(set(made.numbers["iterations"].tolist())) > 1, (
        "a test with equal numbers of updates proves little"
    )


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize(
    ("kind", "threshold", "wanted"),
    [("epsilon", 8.2, 3), ("epsilon", 8.0, 2), ("v_prediction", 2.4, 1)],
)
def test_parity_of_the_official_pool(make_pipe, prompts, noise, kind, threshold, wanted, moving):
    """The official quirks together: noises in order of acceptance within 1e-5. The first case
    repeats a seed and appends duplicates, the others raise the threshold and change the seed.
    """
    pipe, prompt = make_pipe("ddim", kind), prompts[0]
    method = build_mitigation(
        "sail",
        l_thres=threshold,
        lr=0.3,
        budget=4,
        max_steps=2,
        official=QUIRKS + ",moving_candidates" * moving,
    )
    start = noise[torch.arange(wanted) % 3]
    made = sample(
        pipe,
        [prompt] * wanted,
        start,
        method,
        STEPS,
        seeds=list(range(wanted)),
        prompt_seeds=[77] * wanted,
    )
    stacked = torch.cat([pipe.encode([""] * 4).tokens, pipe.encode([prompt] * 4).tokens])
    expected = jeon2025.official_pool(
        pipe.unet,
        FIRST,
        stacked,
        wanted=wanted,
        shape=SHAPE,
        seed=77,
        budget=4,
        lr=0.3,
        max_steps=2,
        threshold=threshold,
        alpha=0.05,
        v_model=kind == "v_prediction",
        most_rounds=9,
        aliased=moving,
    )
    assert len(expected) == wanted and made.numbers["reached"].all()
    assert relative(made.adjusted, torch.stack(expected)) < 1e-5
    assert made.numbers["attempt"].tolist() == {8.2: [0, 0, 1], 8.0: [3, 4], 2.4: [3]}[threshold]


@pytest.mark.parametrize(
    ("kind", "seed", "threshold"),
    [
        ("epsilon", 3, 7.9),
        ("epsilon", 11, 7.9),
        ("v_prediction", 3, 2.47),
        ("v_prediction", 11, 2.45),
    ],
)
def test_parity_of_a_run_with_the_official_seed(
    make_pipe, prompts, random_sd_folder, random_v_folder, tmp_path, kind, seed, threshold
):
    """generate_images.py --rng official --seed S: each prompt's candidates are those of S. Noises
    within 1e-5, and stored ones have moved since they were accepted.
    """
    pipe = make_pipe("ddim", kind)
    pipe.scheduler.set_timesteps(STEPS)
    file = tmp_path / "two.txt"
    file.write_text("\n".join(prompts[:2]) + "\n")
    settings = {"lr": 0.1, "budget": 4, "max_steps": 5}
    made = suite.generate(
        suite.plan(
            model_id=random_sd_folder if kind == "epsilon" else random_v_folder,
            prompts=str(file),
            image_length=32,
            num_inference_steps=STEPS,
            n_samples_per_prompt=3,
            rng="official",
            seed=seed,
            method="sail",
            l_thres=threshold,
            official=QUIRKS + ",moving_candidates",
            save_latents=True,
            quiet=True,
            output_path=str(tmp_path / "made"),
            **settings,
        )
    )
    files = sorted((made.folder.path / "latents").iterdir())
    adjusted = torch.stack([load_file(one)["adjusted"] for one in files])
    moved = []
    for i, prompt in enumerate(prompts[:2]):
        stacked = torch.cat([pipe.encode([""] * 4).tokens, pipe.encode([prompt] * 4).tokens])
        expected = {
            aliased: torch.stack(
                jeon2025.official_pool(
                    pipe.unet,
                    FIRST,
                    stacked,
                    wanted=3,
                    shape=SHAPE,
                    seed=seed,
                    threshold=threshold,
                    alpha=0.05,
                    v_model=kind == "v_prediction",
                    most_rounds=9,
                    aliased=aliased,
                    **settings,
                )
            )
            for aliased in (True, False)
        }
        assert relative(adjusted[3 * i : 3 * i + 3], expected[True]) < 1e-5
        moved.append(relative(expected[True], expected[False]))
    assert max(moved) > 0.01


def test_official_candidates_are_drawn_in_the_dtype_of_the_network(make_pipe, prompts, noise):
    """In bfloat16 other numbers than in float32, and a prompt's own seed plays no part."""
    method = build_mitigation(
        "sail", l_thres=100.0, budget=2, max_steps=1, official="same_candidates"
    )
    for dtype in (torch.float32, torch.bfloat16):
        made = sample(
            make_pipe("ddim", dtype=dtype),
            prompts[:1] * 2,
            noise[:2].to(dtype),
            method,
            2,
            prompt_seeds=[5, 5],
            official_seed=9,
        )
        torch.manual_seed(9)
        drawn = torch.randn((2, *SHAPE), dtype=dtype)
        torch.testing.assert_close(made.adjusted, drawn, rtol=0.02, atol=0.02)


def test_the_pool_gives_duplicates_and_a_prompt_has_its_own(pipe, prompts, noise):
    """A second round with the same seed accepts the same candidates again; prompts do not see each
    other.
    """
    method = build_mitigation(
        "sail", l_thres=9.5, budget=2, max_steps=2, official="same_candidates"
    )
    both = sample(
        pipe,
        [prompts[0]] * 3 + [prompts[1]],
        noise[[0, 1, 2, 0]],
        method,
        STEPS,
        seeds=[1, 2, 3, 4],
        prompt_seeds=[5, 5, 5, 6],
    )
    alone = sample(
        pipe, [prompts[0]] * 3, noise, method, STEPS, seeds=[1, 2, 3], prompt_seeds=[5, 5, 5]
    )
    assert relative(both.adjusted[:3], alone.adjusted) < 1e-5
    assert both.numbers["reached"].all()
    assert (
        both.numbers["attempt"].tolist()[:3] == [0, 0, 1]
        and relative(both.adjusted[:1], both.adjusted[2:3]) < 1e-5
    )
    assert (
        int(both.unet_evals[:3].sum()) % 8 == (3 * (2 * STEPS - 2)) % 8
    )  # four rows for each of two candidates


def test_candidates_that_no_prompt_needs_are_completed_by_the_best(pipe, prompts, noise):
    """No candidate is good enough: the best ones by their loss, and own noises where even those do
    not suffice.
    """
    method = build_mitigation(
        "sail", l_thres=0.1, budget=2, max_steps=2, restarts=0, official="same_candidates"
    )
    made = sample(pipe, [prompts[0]] * 3, noise, method, STEPS, prompt_seeds=[5] * 3)
    assert not made.numbers["reached"].any()
    assert made.numbers["loss"][0] <= made.numbers["loss"][1] and made.numbers["loss"][2].isnan()
    assert torch.equal(made.adjusted[2], noise[2])


@pytest.mark.parametrize(
    ("settings", "quirk"),
    [
        ({}, ""),
        ({"l_thres": 8.0}, ""),
        ({"l_thres": 2.0, "restarts": 1, "max_steps": 3}, ""),
        ({"l_thres": 8.0, "restarts": 1}, "fixed_direction"),
    ],
)
def test_rows(pipe, prompts, noise, settings, quirk):
    """4E + 2N - 2, E = updates + attempts: the last evaluation serves as step 0, unless its
    direction was the start's.
    """
    settings = {"restarts": 2, "max_steps": 3} | settings
    made = sample(pipe, prompts, noise, build_mitigation("sail", official=quirk, **settings), STEPS)
    evaluations = made.numbers["iterations"] + made.numbers["restarts"] + 1
    assert made.unet_evals.tolist() == (4 * evaluations + 2 * STEPS - 2 * (not quirk)).tolist()


def test_every_third_restart_raises_the_threshold():
    assert [round(Sail().threshold(k), 3) for k in range(8)] == [8.2] * 3 + [8.3] * 3 + [8.4] * 2


def test_a_noise_that_is_good_is_left_alone(make_pipe, prompts, noise):
    """Bit for bit the image without the method, also in bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        pipe = make_pipe("euler", dtype=dtype)
        made, plain = (
            sample(pipe, prompts, noise.to(dtype), build_mitigation(name, **settings), 2)
            for name, settings in (("sail", {"l_thres": 1000.0}), ("no_mitigation", {}))
        )
        assert torch.equal(made.final, plain.final)
        assert made.numbers["iterations"].sum() == made.numbers["restarts"].sum() == 0


def test_fresh_noise_is_what_the_sampler_would_draw(euler_pipe, prompts, noise):
    """Under Euler the result, in units of drawn noise, is the noise of the derived seed: no update
    was made after the restart.
    """
    method = build_mitigation("sail", l_thres=0.01, max_steps=1, restarts=1)
    made = sample(euler_pipe, prompts, noise, method, 2, seeds=SEEDS)
    for i, seed in enumerate(SEEDS):
        candidates = noises(seed, noise[i : i + 1], 1)
        assert (
            relative(made.adjusted[i : i + 1], candidates[int(made.numbers["attempt"][i])]) < 1e-5
        )
    assert 1 in made.numbers["attempt"].tolist()


def test_the_empty_prompt(pipe, prompts, noise):
    """Magnitude 0: the loss is the noise's length alone, and nothing is divided by zero."""
    made = sample(
        pipe, ["", *prompts[1:]], noise, build_mitigation("sail", l_thres=0.7, restarts=0), STEPS
    )
    assert made.numbers["first_magnitude"][0] == made.numbers["last_magnitude"][0] == 0
    assert (
        made.numbers["loss"][0] < 0.05 * float(noise[0].norm()) and torch.isfinite(made.final).all()
    )
    assert not made.numbers["failed"].any()


@pytest.mark.parametrize("after", [0, 3])
def test_an_image_with_a_non_finite_loss_keeps_its_noise(pipe, prompts, noise, after):
    """It is flagged; the others are as without it (1e-4)."""
    method, made = build_mitigation("sail", l_thres=7.5, restarts=1, max_steps=4), []
    pipe.scheduler.set_timesteps(STEPS)
    third = pipe.encode(prompts[2:]).tokens
    poisoned = Poisoned(pipe.unet, lambda _, embeds: equal_rows(embeds, third), after)
    for unet in (pipe.unet, poisoned):
        predictor = predictor_of(
            unet, pipe.scheduler, pipe.encode(prompts).tokens, pipe.encode([""] * 3).tokens
        )
        made.append(denoise(predictor, noise, Batch.of_captions(prompts), method, 7.0))
    assert made[1].numbers["failed"].tolist() == [False, False, True]
    assert torch.equal(made[1].adjusted[2], noise[2])
    assert relative(made[1].final[:2], made[0].final[:2]) < 1e-4


def test_parts_change_nothing(pipe, prompts, noise):
    settings = {"l_thres": 7.5, "restarts": 1, "max_steps": 4}
    whole, parts = (
        sample(pipe, prompts, noise, build_mitigation("sail", **settings, grad_rows=rows), STEPS)
        for rows in (0, 2)
    )
    assert relative(parts.adjusted, whole.adjusted) < 1e-4
    assert parts.numbers["iterations"].tolist() == whole.numbers["iterations"].tolist()


def test_bad_values_and_names_of_folders():
    with pytest.raises(ValueError, match="--stop_gradient 2 is neither 0 nor 1"):
        build_mitigation("sail", stop_gradient=2).check(50)
    with pytest.raises(ValueError, match="--official 'seed' is not possible"):
        build_mitigation("sail", official="seed")
    with pytest.raises(ValueError, match="moving_candidates needs same_candidates"):
        build_mitigation("sail", official="moving_candidates").check(50)
    assert build_mitigation("sail").named_values() == {
        "lr": 0.05,
        "ms": 10,
        "l_thres": 8.2,
        "alpha": 0.05,
        "re": 8,
    }
    named = build_mitigation(
        "sail", official="v_as_x0", objective="paper", grad_rows=3
    ).named_values()
    assert (
        named["official"] == "v_as_x0"
        and named["objective"] == "paper"
        and "grad_rows" not in named
    )
