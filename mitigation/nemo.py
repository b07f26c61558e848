"""NeMo: memorization neurons are switched off. Hintersdorf et al., NeurIPS 2024."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from memorization_suite.lazy import torch
from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.mitigation.neurons import (
    Neurons,
    read_neurons,
    scaled_values,
    value_factors,
)
from memorization_suite.sampling import Batch, NoisePredictor


@register("nemo", paper="Hintersdorf et al., NeurIPS 2024", cost="2N")
class Nemo(Mitigation):
    """Value neurons that a file lists for a prompt are multiplied by a factor: at every token and
    step, in both halves.

    localize_neurons.py finds them. Prompts that the file does not name are sampled as without the
    method.
    """

    neurons: str = flag(
        "", "file of localize_neurons.py with the neurons of each prompt", file=True
    )
    scaling_factor: float = flag(
        0.0, "what their values are multiplied by", short="factor", at_least=0.0
    )

    def blocked(self, batch: Batch) -> list[Neurons]:
        """The neurons of each image's prompt."""
        listed = read_neurons(Path(self.neurons))
        return [listed.get(prompt, {}) for prompt in batch.prompts]

    def patch(self, predictor: NoisePredictor, batch: Batch) -> contextlib.AbstractContextManager:
        blocked = self.blocked(batch)
        counts = [sum(len(set(channels)) for channels in layers.values()) for layers in blocked]
        batch.numbers["blocked_neurons"] = torch.tensor(counts)
        factors = value_factors(predictor.unet, blocked, self.scaling_factor)
        return scaled_values(predictor.unet, factors, predictor.call.image_of_row)

    def check(self, num_steps: int) -> None:
        if not self.neurons:
            raise ValueError(
                "nemo needs --neurons FILE. Make one: python localize_neurons.py statistics "
                "--prompts ORDINARY --out STATISTICS, then "
                "python localize_neurons.py localize --prompts MEMORIZED --statistics STATISTICS "
                "--out FILE (--help tells more)"
            )
        read_neurons(Path(self.neurons))

    def check_run(self, identity: dict) -> None:
        made_for = json.loads(Path(self.neurons).read_text(encoding="utf-8")).get("model")
        if made_for not in (None, identity["model_id"]):
            raise ValueError(
                f"--neurons {self.neurons} is of another model ({made_for}), not of "
                f"{identity['model_id']}"
            )
