"""Blocked neurons: parity with the transcription, who is blocked, files that are refused."""

import json
from pathlib import Path

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from memorization_suite.mitigation.nemo.method import scaled_values, value_factors
from tests.methods.helpers import relative, sample
from tests.reference import hintersdorf2024 as reference

FILE = (
    Path(__file__).parent / "neurons.json"
)  # neurons of the first two prompts of conftest.py, chosen by hand
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2"


def saved(path: Path, prompts) -> str:
    path.write_text(json.dumps({"model": "m", "settings": {}, "prompts": prompts}))
    return str(path)


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_parity(pipe, prompts, noise, factor):
    """Final latents of 3 steps within 1e-4: ours of three prompts together, one without neurons;
    the official way one prompt a call.
    """
    listed = json.loads(FILE.read_text())["prompts"]
    made = sample(
        pipe, prompts, noise, build_mitigation("nemo", neurons=str(FILE), scaling_factor=factor), 3
    )
    expected = torch.cat(
        [
            reference.generate(
                pipe.unet,
                pipe.text_encoder,
                pipe.tokenizer,
                prompt,
                x[None],
                listed.get(prompt, {}),
                factor,
                num_steps=3,
                guidance_scale=7.0,
            )
            for prompt, x in zip(prompts, noise)
        ]
    )
    assert relative(made.final, expected) < 1e-4
    assert made.unet_evals.tolist() == [6, 6, 6]
    assert made.numbers["blocked_neurons"].tolist() == [
        sum(map(len, listed.get(prompt, {}).values())) for prompt in prompts
    ]
    plain = sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 3)
    assert (
        relative(made.final[2:], plain.final[2:]) < 1e-4
        and relative(made.final[1:2], plain.final[1:2]) > 1e-3
    )


def test_a_factor_of_one_changes_nothing(pipe, prompts, noise):
    made = sample(
        pipe, prompts, noise, build_mitigation("nemo", neurons=str(FILE), scaling_factor=1.0), 2
    )
    assert torch.equal(
        made.final, sample(pipe, prompts, noise, build_mitigation("no_mitigation"), 2).final
    )


def test_images_of_one_prompt_are_all_blocked(pipe, prompts, noise):
    made = sample(
        pipe,
        [prompts[0], prompts[0], prompts[2]],
        noise,
        build_mitigation("nemo", neurons=str(FILE)),
        2,
    )
    counts = made.numbers["blocked_neurons"].tolist()
    assert counts[0] == counts[1] > counts[2] == 0


def test_layers_without_blocked_neurons_are_not_touched(pipe):
    factors = value_factors(pipe, [{LAYER: []}, {}], 0.0)
    assert factors == {}


def test_hooks_are_gone_after_an_exception(pipe, prompts, noise):
    def hooks():
        return sum(len(module._forward_hooks) for module in pipe.unet.modules())

    stop = pipe.unet.up_blocks[1].register_forward_pre_hook(lambda *args: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            sample(pipe, prompts, noise, build_mitigation("nemo", neurons=str(FILE)), 2)
    finally:
        stop.remove()
    assert hooks() == 0
    with (
        pytest.raises(RuntimeError),
        scaled_values(pipe, value_factors(pipe, [{LAYER: [0]}], 0.0), lambda: torch.zeros(1)),
    ):
        assert hooks() == 1
        raise RuntimeError
    assert hooks() == 0


def test_without_a_file_it_says_how_to_make_one():
    with pytest.raises(
        ValueError,
        match="nemo needs --neurons FILE.*localize_neurons.py statistics.*localize_neurons.py "
        "localize",
    ):
        build_mitigation("nemo").check(50)
    with pytest.raises(ValueError, match="there is no file missing.json"):
        build_mitigation("nemo", neurons="missing.json")


@pytest.mark.parametrize(
    "prompts",
    [
        None,
        [],
        {"a": []},
        {"a": {LAYER: 3}},
        {"a": {LAYER: [1.5]}},
        {"a": {LAYER: [-1]}},
        {"a": {LAYER: [True]}},
    ],
)
def test_files_that_are_none(tmp_path, prompts):
    file = saved(tmp_path / "neurons.json", prompts)
    with pytest.raises(ValueError, match="is no neuron file of localize_neurons.py"):
        build_mitigation("nemo", neurons=file).check(50)


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ({LAYER: [64]}, "names channel 64 of mid_block.*which has 64: it belongs to another model"),
        (
            {"mid_block.attentions.9.transformer_blocks.0.attn2": [0]},
            "names the layer mid_block.attentions.9.*which this UNet does not have",
        ),
    ],
)
def test_a_file_of_another_model(pipe, noise, tmp_path, neurons, message):
    file = saved(tmp_path / "neurons.json", {"red": neurons})
    with pytest.raises(ValueError, match=message):
        sample(pipe, ["red"], noise[:1], build_mitigation("nemo", neurons=file), 2)


def test_the_folder_is_named_by_the_file_s_content(tmp_path):
    """Not by its path; the same content under another name is the same run."""
    first, second = (saved(tmp_path / name, {"red": {LAYER: [1]}}) for name in ("a.json", "b.json"))
    other = saved(tmp_path / "c.json", {"red": {LAYER: [2]}})
    names = [
        build_mitigation("nemo", neurons=file).named_values()["neurons"]
        for file in (first, second, other)
    ]
    assert names[0] == names[1] != names[2]


def test_a_file_of_another_model_is_refused_before_one_is_loaded(tmp_path):
    path = tmp_path / "neurons.json"
    path.write_text('{"model": "folder a", "prompts": {}}')
    method = build_mitigation("nemo", neurons=str(path))
    method.check_run({"model_id": "folder a"})
    with pytest.raises(ValueError, match=r"of another model \(folder a\), not of folder b"):
        method.check_run({"model_id": "folder b"})
