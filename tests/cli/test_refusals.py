"""Wrong arguments and input files: one message, exit code 2, no model."""

from pathlib import Path

import pytest

import memorization_suite.pipelines.models
from memorization_suite import ROOT, tiny
from memorization_suite.generate_images import main
from memorization_suite.mitigation import METHODS
from memorization_suite.mitigation.base import flags, value_type
from tests.cli.helpers import BATCH_WISE, FEW_STEPS, PER_SAMPLE, refused, said


def bad_values(option) -> list[str]:
    """What a flag of a method may not be."""
    kind, above, at_least = (
        value_type(option),
        option.metadata["above"],
        option.metadata["at_least"],
    )
    values = {
        float: ["nan", "inf", "-inf", "x", ""],
        int: ["1.5", "nan", "x", ""],
        bool: ["2", "-1", "0.5", "x", ""],
        str: [],
    }[kind]
    if above is not None:
        values.append(f"{above:g}")
    return values if at_least is None else [*values, f"{at_least - 1:g}"]


GENERAL = {
    "image_length": ["0", "-8", "4", "30", "8192", "64.0"],
    "batch_size": ["0", "-1", "1.5", "x"],
    "n_samples_per_prompt": ["0", "-1", "inf"],
    "num_inference_steps": ["0", "-4", "1001", "4.0"],
    "guidance_scale": ["nan", "inf", "-inf", "-1", "x", ""],
    "seed": ["-1", "9223372036854775808", "1.5", "x"],
    "start": ["-1", "5", "x"],
    "end": ["0", "-1", "6", "x"],
    "scheduler": ["x"],
    "dtype": ["fp8"],
    "rng": ["x"],
    "device": ["nonsense", "cuda:99"],
    "preset": ["missing.toml"],
    "nonsense": ["1"],
}
NUMBERS = [((), name, value) for name, values in GENERAL.items() for value in values]
NUMBERS += [
    (("--method", name), option.name, value)
    for name, cls in METHODS.items()
    for option in flags(cls)
    for value in bad_values(option)
]


@pytest.mark.parametrize(("method", "name", "value"), NUMBERS)
def test_a_bad_value_is_refused(base, tmp_path, capsys, no_model, method, name, value):
    refused(capsys, [*base, "--output_path", str(tmp_path), *method, f"--{name}", value], name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--start", "3", "--end", "3"), "--start 3 --end 3"),
        (("--start", "3", "--end", "1"), "--start 3 --end 1"),
        (("--method", "nonsense"), "there is no method 'nonsense'"),
        (("--method", ""), "there is no method ''"),
        (("--method", "adj_init_noise"), "exactly one of --batch_wise and --per_sample"),
        ((*BATCH_WISE, "--per_sample"), "exactly one of --batch_wise and --per_sample"),
        (("--batch_wise",), "--method adj_init_noise"),
        (("--per_sample",), "--method adj_init_noise"),
        (("--method", "no_mitigation", "--batch_wise"), "--method adj_init_noise"),
        (("--method", "per_sample", "--batch_wise"), "--method adj_init_noise"),
        (("--rho", "50"), "no_mitigation does not take --rho"),
        ((*PER_SAMPLE, "--rho", "50"), "per_sample does not take --rho"),
        ((*BATCH_WISE, *FEW_STEPS, "--lr", "0.1"), "batch_wise does not take --lr"),
        ((*BATCH_WISE, "--apply_cfg_step", "1", "--tau", "500"), "exclude each other"),
        (BATCH_WISE, "--apply_cfg_step 4 leaves no step with guidance: the run has 4 steps (0..3)"),
        ((*BATCH_WISE, "--apply_cfg_step", "3"), "Use at most 2"),
        (("--see", "3"), "--see"),
        (("extra",), "extra"),
        (("--seed",), "--seed"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(base, tmp_path, capsys, no_model, more, told):
    refused(capsys, [*base, "--output_path", str(tmp_path), *more], told)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.csv", None, "cannot read the prompt file"),
        ("empty.txt", b"", "no prompts"),
        ("empty.csv", b"", "no column 'Caption'"),
        ("binary.csv", b"\x89PNG\0", "not UTF-8"),
        ("zeros.txt", bytes(9), "binary"),
        ("column.csv", b"Words,Index\na,1\n", "its columns are Words, Index"),
        ("caption.csv", b";Caption\n0;\n", "is empty"),
        ("line.jsonl", b'{"caption": "a"}\n{\n', "line 2"),
        ("a.json", b"[]", ".jsonl"),
        (".", None, ".jsonl"),
    ],
)
def test_a_bad_prompt_file_is_refused(base, tmp_path, capsys, no_model, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(
        capsys,
        [*base, "--output_path", str(tmp_path / "out"), "--prompts", str(tmp_path / name)],
        told,
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "[generate",
        "[generate]\nnonsense = 1",
        "[batch_wise]\nnonsense = 1",
        "[batchwise]\nrho = 1",
        "nonsense = 1",
        "generate = 3",
        "batch_wise = 3",
        "[generate]\nguidance_scale = 'high'",
        "[generate]\nguidance_scale = nan",
        "[generate]\nguidance_scale = true",
        "[generate]\nbatch_size = 2.0",
        "[generate]\nbatch_size = true",
        "[generate]\nseed = [1]",
        "[generate]\nscheduler = 'x'",
        "[generate]\ndtype = 'x'",
        "[generate]\nrng = 'x'",
        "[generate]\noutput_path = 3",
        "[generate]\nprompts = 3",
        "[generate]\nmodel_id = 3",
        "[generate]\ndevice = 3",
        "[batch_wise]\nrho = 'x'",
        "[batch_wise]\nrho = nan",
        "[batch_wise]\nrho = true",
        "[batch_wise]\nadj_iters = 1.5",
        "[batch_wise]\nadj_iters = []",
        "[batch_wise]\nrho = {a = 1}",
        "\udcff",
    ],
)
def test_a_bad_preset_is_refused(random_sd_folder, prompt_file, tmp_path, capsys, no_model, text):
    (tmp_path / "a.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    argv = ["--model_id", random_sd_folder, *BATCH_WISE, "--preset", str(tmp_path / "a.toml")]
    argv += [] if "prompts" in text else ["--prompts", prompt_file]
    argv += [] if "output_path" in text else ["--output_path", str(tmp_path / "out")]
    refused(capsys, argv)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "model",
    [
        "empty",
        "broken",
        "parts",
        "a_file",
        "missing",
        "./missing/model",
        "no such model",
        "a/b/c",
        "nonsense",
        "",
    ],
)
def test_a_bad_model_is_refused(base, tmp_path, monkeypatch, capsys, no_model, model):
    monkeypatch.chdir(tmp_path)
    for name, index in (("empty", None), ("broken", "{"), ("parts", '{"unet": 1, "vae": 1}')):
        Path(name).mkdir()
        if index:
            (Path(name) / "model_index.json").write_text(index)
    Path("a_file").write_text("x")
    refused(capsys, [*base, "--output_path", "out", "--model_id", model])
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("index", "told"),
    [("[]", "no "), ("null", "no "), ('{"unet": 1, "vae": 1}', "text_encoder"), ("3", "no ")],
)
def test_a_model_index_that_is_none_is_refused(base, tmp_path, capsys, no_model, index, told):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text(index)
    refused(
        capsys,
        [*base, "--output_path", str(tmp_path / "out"), "--model_id", str(tmp_path / "model")],
        told,
    )


@pytest.mark.parametrize("place", ["a_file", "a_file/below"])
def test_an_output_path_that_is_a_file_is_refused(base, tmp_path, capsys, no_model, place):
    (tmp_path / "a_file").write_text("x")
    refused(capsys, [*base, "--output_path", str(tmp_path / place)], "Give another --output_path")
    assert (tmp_path / "a_file").read_text() == "x"


def test_a_folder_with_other_files_is_refused(base, tmp_path, capsys, no_model):
    foreign = tmp_path / "no_mitigation" / "g7_seed2" / "notes.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    refused(capsys, [*base, "--output_path", str(tmp_path)], "notes.txt")
    assert list(foreign.parent.iterdir()) == [foreign]


def test_the_official_command_without_the_official_prompts(monkeypatch, tmp_path, capsys, no_model):
    monkeypatch.setattr(
        memorization_suite.commands.generate_plan,
        "OFFICIAL_PROMPTS",
        ROOT / "prompts" / "missing.csv",
    )
    refused(capsys, [*BATCH_WISE, "--output_path", str(tmp_path)], "--model_id tiny")
    assert main([*BATCH_WISE, "--output_path", str(tmp_path)]) == 2
    assert "download/" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [(), ("--unet_id", "owner/missing-unet")])
def test_the_official_command_without_the_weights(monkeypatch, base, tmp_path, capsys, more):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = [] if more else ["--model_id", "owner/missing-model"]
    assert main([*base, *model, *more, "--output_path", str(tmp_path)]) == 2
    message = said(capsys)
    assert "--model_id tiny" in message and "download/" in message and "missing-" in message


def test_an_embedded_model_whose_weights_are_not_here(
    monkeypatch, base, tmp_path, capsys, no_model
):
    monkeypatch.setitem(tiny.MODELS, "tiny", tmp_path / "nowhere")
    refused(capsys, [*base, "--model_id", "tiny", "--output_path", str(tmp_path)], "tiny")
