"""One model and a few finished runs for all tests of generate_images.py."""

import functools
from pathlib import Path

import pytest

import memorization_suite.pipelines.loading
from memorization_suite.generate_images import main
from tests.cli.helpers import CAPTIONS, VARIANTS


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory) -> str:
    """Five prompts: with -b 2 the last batch is incomplete."""
    path = tmp_path_factory.mktemp("prompts") / "five.txt"
    path.write_text("\n".join(CAPTIONS) + "\n")
    return str(path)


@pytest.fixture(scope="session")
def loaded():
    """The loader with a memory: one model for all runs."""
    return functools.cache(memorization_suite.pipelines.loading.load_pipeline)


@pytest.fixture(scope="session")
def base(random_sd_folder, prompt_file) -> list[str]:
    return [
        "--model_id",
        random_sd_folder,
        "--prompts",
        prompt_file,
        "--image_length",
        "32",
        "--num_inference_steps",
        "4",
        "-b",
        "2",
        "--n_samples_per_prompt",
        "2",
        "--quiet",
    ]


@pytest.fixture(scope="session")
def generate(base, loaded):
    """generate(out, *flags, code=0): the run folder below out, after a run with that exit code."""

    def run(out, *more, code=0) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memorization_suite.pipelines.loading, "load_pipeline", loaded)
            assert main([*base, "--output_path", str(out), *more]) == code
        folders = list(Path(out).glob("*/*"))
        if code and not folders:
            return None
        (folder,) = folders
        return folder

    return run


@pytest.fixture(scope="session")
def whole(generate, tmp_path_factory):
    """whole(variant): run folder of an uninterrupted run; made once."""
    return functools.cache(
        lambda variant="per_image": generate(tmp_path_factory.mktemp(variant), *VARIANTS[variant])
    )


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test when a model is loaded."""

    def load(*args, **kwargs):
        pytest.fail("a model was loaded")

    monkeypatch.setattr(memorization_suite.pipelines.loading, "load_pipeline", load)


@pytest.fixture(scope="session")
def traced(generate, tmp_path_factory):
    """traced(variant): a run with --save_latents and --trace."""
    return functools.cache(
        lambda variant: generate(
            tmp_path_factory.mktemp("traced"), *VARIANTS[variant], "--save_latents", "--trace"
        )
    )
