"""Results that were seen once must be seen again: latents of every method on the random model,
stored with six digits.

After a change that is meant to move them: pytest tests/test_golden.py --write-golden, and a line
under *Changed numbers* in CHANGELOG.md.
"""

import json
from pathlib import Path

import pytest
import torch

from memorization_suite.mitigation import build_mitigation
from tests.methods.helpers import sample

GOLDEN = Path(__file__).parent / "golden.json"
SETTINGS = {
    "no_mitigation": {},
    "batch_wise": {"rho": 5.0},
    "static_transition": {"tau": 900.0},
    "per_sample": {"lr": 0.05, "target_loss": 1.0, "optim_iters": 5},
}


def latents(pipe, noise, prompts, name: str) -> list[float]:
    """First image's first latent channel, 8 x 8, after ten steps."""
    final = sample(pipe, prompts, noise, build_mitigation(name, **SETTINGS[name]), 10).final
    return [round(value, 6) for value in final[0, 0].flatten().tolist()]


@pytest.mark.parametrize("name", SETTINGS)
def test_latents_are_as_before(pipe, noise, prompts, name, request):
    found = latents(pipe, noise, prompts, name)
    if request.config.getoption("--write-golden"):
        stored = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps(stored | {name: found}) + "\n")
    torch.testing.assert_close(
        torch.tensor(found),
        torch.tensor(json.loads(GOLDEN.read_text())[name]),
        rtol=1e-3,
        atol=1e-3,
    )
