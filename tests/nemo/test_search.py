"""The search for neurons against its plain transcription, step by step and as a whole; batches of
candidates change nothing.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from memorization_suite.commands.neuron_settings import NoiseMaps
from memorization_suite.commands.neurons import make_maps, ordinary_statistics
from memorization_suite.mitigation.nemo.measures import (
    activations,
    mean_and_std,
    pair_similarities,
    scaled_maps,
)
from memorization_suite.mitigation.nemo.search import (
    SearchOptions,
    Statistics,
    by_layer,
    drop,
    first_good,
    localize,
    selections,
)
from tests.nemo.conftest import MEMORIZED, ORDINARY
from tests.reference import hintersdorf2024 as reference


# activations
def test_activations_equal_the_loops(pipe, prompts):
    """Layer by layer, 1e-5, without a UNet pass; layers in the order of their calls."""
    embeds, passes = pipe.encode(prompts[:2]).tokens, []
    hook = pipe.unet.register_forward_pre_hook(lambda *args: passes.append(1))
    try:
        found = activations(pipe, embeds)
    finally:
        hook.remove()
    layers = reference.layers_of(pipe.unet, up=True)
    assert list(found) == list(layers) and not passes
    for name, to_v in layers.items():
        for i in range(2):
            assert found[name][i].tolist() == pytest.approx(
                reference.activation(to_v, embeds[i]), abs=1e-5
            )


def test_statistics_do_not_depend_on_the_batches():
    """Mean and unbiased std, 1e-5; one prompt has no std."""
    values = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)) * 0.01 + 5.0
    mean, std = mean_and_std({"layer": part} for part in values.split(3))
    means, stds = reference.mean_and_std(values.tolist())
    assert mean["layer"].tolist() == pytest.approx(means, abs=1e-5)
    assert std["layer"].tolist() == pytest.approx(stds, rel=1e-3)
    with pytest.raises(ValueError, match="at least two ordinary prompts, not 1"):
        mean_and_std([{"layer": values[:1]}])


# maps and their similarity
def test_seeds_that_look_alike():
    """Two of four maps share their structure: these two are memorized seeds, in the loops too."""
    maps = torch.rand((4, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    maps[2] = 0.9 * maps[0] + 0.1 * maps[2]
    table = pair_similarities(maps)
    assert torch.equal(table, table.T) and (table.diagonal() == -torch.inf).all()
    assert (
        (table.amax(1) > 0.8).nonzero().flatten().tolist()
        == [0, 2]
        == reference.memorized_seeds(maps.numpy(), 0.8, kernel=3, sigma=4.5 / 11)
    )


def test_a_constant_channel_is_zero():
    """And no 0 / 0."""
    x = torch.zeros(1, 4, 16, 16)
    noise_pred = torch.ones(1, 4, 16, 16)
    noise_pred[0, 1, 3, 3] = 2.0
    assert scaled_maps(noise_pred, x).sum() == 1


@pytest.mark.parametrize("t_index", [0, 1])
def test_maps_equal_the_loops(tiny, t_index):
    """Blocked in two ways and not, all candidates together, `rows` at once: 1e-4. t: 981, or with
    the official oversight 961.
    """
    settings = NoiseMaps(seeds=3, t_index=t_index, rows=4)
    maps = make_maps(tiny, MEMORIZED, settings, 0.25)
    first, *_, last = reference.layers_of(tiny.unet, up=True)
    candidates = [[], [(first, 3), (last, 0)], [(last, 5), (last, 6)]]
    made = maps.of(candidates)
    assert (
        made.shape == (3, 3, 4, 16, 16)
        and maps.unet_rows == 9
        and float(maps.t) == 981 - 20 * t_index
    )
    for maps_of_one, candidate in zip(made, candidates):
        expected = reference.noise_maps(
            tiny.unet,
            tiny.encode([MEMORIZED]).tokens,
            maps.x,
            981 - 20 * t_index,
            by_layer(candidate),
            0.25,
        )
        np.testing.assert_allclose(maps_of_one.numpy(), expected, rtol=0, atol=1e-4)
    assert not any(module._forward_hooks for module in tiny.unet.modules())


def test_maps_are_in_epsilon_units_for_v_models(euler_pipe, prompts):
    """e - x, not v - x: 1e-5."""
    maps = make_maps(euler_pipe, prompts[0], NoiseMaps(seeds=2))
    with torch.no_grad():
        v = euler_pipe.unet(
            maps.x, maps.t, encoder_hidden_states=euler_pipe.encode([prompts[0]] * 2).tokens
        ).sample
    bar = euler_pipe.scheduler.alphas_cumprod[999]
    torch.testing.assert_close(
        maps.of([[]])[0],
        scaled_maps(bar.sqrt() * v + (1 - bar).sqrt() * maps.x, maps.x),
        rtol=0,
        atol=1e-5,
    )


# selection and refinement
def fake_statistics(width=40):
    """Activations of three layers, some of them out of distribution, and their statistics."""
    draw = torch.Generator().manual_seed(1)
    active = {name: torch.rand(width, generator=draw) * 6 for name in ("a", "b", "c")}
    return active, Statistics(
        {name: torch.ones(width) for name in active},
        {name: torch.ones(width) for name in active},
        0.4,
    )


def test_the_tries_of_the_initial_selection():
    """theta = 5, 4.75 ... 1.25 with k = 0, 1 ... 15, as the loops try them when nothing suffices;
    no neuron twice.
    """
    active, statistics = fake_statistics()
    tried = []
    plain = {
        name: (statistics.mean[name].tolist(), statistics.std[name].tolist()) for name in active
    }
    reference.initial_selection(
        {name: a.tolist() for name, a in active.items()},
        plain,
        lambda chosen: tried.append(chosen) or 1.0,
        0.4,
    )
    ours = list(selections(active, statistics, SearchOptions()))
    assert len(ours) == len(tried) == 16
    for neurons, expected in zip(ours, tried):
        assert len(set(neurons)) == len(neurons)
        assert by_layer(neurons) == {
            name: channels for name, channels in expected.items() if channels
        }


@pytest.mark.parametrize("good", [0, 1, 2, 6, 15, 99])
@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_the_first_good_try_is_taken(good, at_once):
    """Also when many are evaluated together; the last one when none is good."""
    tries = [[("a", i)] for i in range(16)]
    neurons, value = first_good(
        tries,
        lambda part: [0.3 if one[0][1] >= good else 0.9 for one in part],
        threshold=0.4,
        at_once=at_once,
    )
    assert neurons == [("a", min(good, 15))] and value == (0.3 if good < 16 else 0.9)


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_refinement_equals_one_after_the_other(at_once):
    """For 60 arbitrary likenesses, from 'drop nearly all' to 'drop nearly none', neither monotone
    nor additive.
    """
    neurons = [(name, channel) for name in ("a", "b", "c") for channel in range(7)]
    for case in range(60):

        def likeness_of(layers, case=case):
            kept = sorted(
                (name, channel) for name, channels in layers.items() for channel in channels
            )
            return random.Random(repr((case, kept))).random() ** (0.2 + case / 15)

        def many(candidates, likeness_of=likeness_of):
            return [likeness_of(by_layer(one)) for one in candidates]

        expected = reference.refinement(by_layer(neurons), likeness_of, 0.4)
        layers = [[neuron for neuron in neurons if neuron[0] == name] for name in "cba"]
        kept = drop(neurons, layers, many, threshold=0.4, at_once=at_once)
        single = [[neuron] for layer in layers for neuron in layer if neuron in kept]
        kept = drop(kept, single, many, threshold=0.4, at_once=at_once)
        assert by_layer(kept) == {name: channels for name, channels in expected.items() if channels}


# whole searches
@pytest.mark.parametrize("at_once", [1, 8])
def test_the_whole_search_equals_the_loops(tiny, statistics, at_once):
    """A memorized prompt of the embedded model: the same neurons, few of them, and a similarity
    below the threshold.
    """
    maps = make_maps(tiny, MEMORIZED, NoiseMaps(seeds=3))
    embedding = tiny.encode([MEMORIZED]).tokens
    plain = {
        name: (statistics.mean[name].tolist(), statistics.std[name].tolist())
        for name in statistics.mean
    }
    expected = reference.find(
        tiny.unet,
        embedding,
        maps.x,
        981,
        plain,
        statistics.threshold,
        up=True,
        kernel=3,
        sigma=4.5 / 11,
    )
    found = localize(maps, statistics, SearchOptions(blocks="all", at_once=at_once))
    assert found.neurons == expected and 0 < sum(map(len, expected.values())) < found.initial
    assert found.similarity < found.threshold == statistics.threshold and found.seeds == 3
    assert found.unet_rows == maps.unet_rows > 0


def test_a_search_that_fails_keeps_what_it_reached(tiny, statistics):
    """The embedded model's prompts do not act in its down blocks: the last selection is refined at
    the similarity that it reached.
    """
    found = localize(make_maps(tiny, MEMORIZED, NoiseMaps(seeds=2)), statistics)
    assert found.initial_similarity == found.threshold > statistics.threshold
    assert found.similarity <= found.threshold and set(found.neurons) <= {
        name for name in statistics.mean if not name.startswith("up")
    }


def test_a_prompt_that_does_not_look_memorized_has_none(tiny, statistics):
    """It costs its unblocked maps; so does one whose predictions are not finite."""
    maps = make_maps(tiny, ORDINARY[0], NoiseMaps(seeds=3))
    found = localize(maps, replace(statistics, threshold=0.99))
    assert found.neurons == {} and found.seeds == 0 and found.unet_rows == 3
    maps = make_maps(tiny, MEMORIZED, NoiseMaps(seeds=3))
    maps.x = maps.x * torch.nan
    assert localize(maps, statistics).neurons == {}


def test_the_threshold_is_mean_plus_std_of_all_pairs(tiny, statistics):
    """Of six prompts with three pairs each, 1e-5; without prompts there is none."""
    pairs = []
    for caption in ORDINARY:
        maps = make_maps(tiny, caption, NoiseMaps(seeds=3)).of([[]])[0].numpy()
        pairs += reference.ms_ssim(maps[[0, 0, 1]], maps[[1, 2, 2]], 3, 4.5 / 11)
    assert statistics.threshold == pytest.approx(np.mean(pairs) + np.std(pairs, ddof=1), abs=1e-4)
    made, count = ordinary_statistics(tiny, ORDINARY, [], NoiseMaps(seeds=3, rows=4))
    assert count == 0 and np.isnan(made.threshold)
    for name, mean in statistics.mean.items():
        torch.testing.assert_close(made.mean[name], mean, rtol=1e-5, atol=1e-6)
