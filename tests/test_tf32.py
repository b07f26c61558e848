"""float32 on CUDA keeps its digits unless --tf32 is typed."""

import pytest
import torch

from memorization_suite.commands.generate import generate
from memorization_suite.commands.generate_plan import plan
from memorization_suite.commands.score import score
from memorization_suite.pipelines.loading import load_pipeline
from memorization_suite.runs.environment import set_tf32


@pytest.fixture(autouse=True)
def back():
    """torch's own setting, which allows it in convolutions, before and after."""
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    set_tf32(False)


def is_allowed() -> set[bool]:
    """Of convolutions and of products."""
    return {torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32}


def test_a_loaded_model_keeps_the_digits_unless_told_otherwise():
    load_pipeline("tiny")
    assert is_allowed() == {False}
    load_pipeline("tiny", tf32=True)
    assert is_allowed() == {True}


@pytest.mark.parametrize("tf32", [False, True])
def test_a_run_and_its_scores(tmp_path, tf32):
    small = {"end": 1, "n_samples_per_prompt": 1, "num_inference_steps": 2, "quiet": True}
    run = generate(plan(model_id="tiny", output_path=str(tmp_path), tf32=tf32, **small))
    assert is_allowed() == {tf32}
    set_tf32(True)
    score(run, ["copy"])
    assert is_allowed() == {False}
