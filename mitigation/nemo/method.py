"""NeMo: memorization neurons are switched off. Hintersdorf et al., NeurIPS 2024.

A value neuron is an output of a cross-attention's `to_v`: a channel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from memorization_suite.mitigation.base import Mitigation, flag, register
from memorization_suite.runs.files import kind_of_place
from memorization_suite.runs.identity import same
from memorization_suite.runs.lazy import torch
from memorization_suite.runs.parse import json_of
from memorization_suite.runs.text import fault_of_reading
from memorization_suite.sampling import Batch, NoisePredictor
from memorization_suite.sampling.denoiser import Denoiser

Neurons = dict[str, list[int]]  # name of a cross-attention -> channels of its to_v


@register(
    "nemo",
    paper="Hintersdorf et al., NeurIPS 2024",
    cost="2N",
    code="ml-research/localizing_memorization_in_diffusion_models",
    compared="equal; its search with `--rng official` and `--official doubles`, in half the NFE",
)
class Nemo(Mitigation):
    """Multiplies by a factor the value neurons that a file lists for a prompt, at every token and
    step, in both halves.

    localize_neurons.py finds them, and makes controls of them. Prompts that the file does not name
    are sampled as without the method. The search differs from the official code: neurons are sets
    unless `--official doubles` is typed, a noise map takes one evaluation (official: two), and
    candidates are tried in one batch.
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
        factors = value_factors(predictor.model, blocked, self.scaling_factor)
        return scaled_values(predictor.model, factors, predictor.call.image_of_row)

    def check(self, num_steps: int) -> None:
        if not self.neurons:
            raise ValueError(
                "nemo needs --neurons FILE. Make one: "
                "python mitigation/nemo/localize_neurons.py statistics "
                "--prompts ORDINARY --out STATISTICS, then "
                "python mitigation/nemo/localize_neurons.py localize "
                "--prompts MEMORIZED --statistics STATISTICS --out FILE (--help tells more)"
            )
        read_neurons(Path(self.neurons))

    def check_run(self, identity: dict) -> None:
        made_for = json_of(Path(self.neurons).read_text(encoding="utf-8")).get("model")
        if made_for is not None and not same(made_for, identity["model_id"]):
            raise ValueError(
                f"--neurons {self.neurons} is of another model ({made_for}), not of "
                f"{identity['model_id']}"
            )


# --- the file of neurons ---


def read_neurons(path: Path) -> dict[str, Neurons]:
    """Caption -> neurons, of a file by localize_neurons.py. Raises ValueError when it is none.

    The file: {"model": ..., "settings": ..., "prompts": {caption: {layer: [channels]}}}.
    """
    try:
        whole = json_of(path.read_text(encoding="utf-8"))
        if not isinstance(whole, dict) or not isinstance(whole["prompts"], dict):
            raise ValueError("it lists no prompts by their captions")
        prompts = whole["prompts"]
        for layers in prompts.values():
            if not isinstance(layers, dict) or not all(map(are_channels, layers.values())):
                raise ValueError("neurons are whole numbers of at least 0, listed by layer")
    except (OSError, ValueError, KeyError) as error:
        fault = kind_of_place(path) or fault_of_reading(error)
        raise ValueError(
            f"{path} is no neuron file of localize_neurons.py ({fault}): "
            "python mitigation/nemo/localize_neurons.py localize makes such a file"
        ) from error
    return prompts


def are_channels(values) -> bool:
    """Whether this is a list of whole numbers of at least 0."""
    return isinstance(values, list) and all(type(c) is int and c >= 0 for c in values)


# --- their values ---


def value_factors(
    model: Denoiser, blocked: list[Neurons], factor: float
) -> dict[str, torch.Tensor]:
    """Name of a cross-attention -> (n, width): `factor` for the neurons blocked[i] of image i, else
    1.

    Layers without any are left out. Raises ValueError for a layer or channel that the UNet does not
    have.
    """
    factors: dict[str, torch.Tensor] = {}
    for i, neurons in enumerate(blocked):
        for name, channels in neurons.items():
            if not channels:
                continue
            if name not in factors:
                factors[name] = torch.ones(len(blocked), width_of(model, name))
            width = factors[name].shape[1]
            if max(channels) >= width:
                raise ValueError(
                    f"the neuron list names channel {max(channels)} of {name}, which has {width}: "
                    "it belongs to another model"
                )
            factors[name][i, channels] = factor
    return factors


def width_of(model: Denoiser, name: str) -> int:
    """Channels of a cross-attention's to_v. Raises ValueError for a layer that there is not."""
    if name not in model.attention_names():
        raise ValueError(
            f"the neuron list names the layer {name}, which this UNet does not have: it belongs to "
            "another model"
        )
    return model.value_projection(name).out_features


@contextlib.contextmanager
def scaled_values(
    model: Denoiser, factors: dict[str, torch.Tensor], images: Callable[[], torch.Tensor]
) -> Iterator[None]:
    """Inside the block, values of image i are multiplied by factors[layer][i], at every token.

    images(): each row of the UNet's batch: its image, (rows,).
    """

    def scale(name: str):
        def hook(module, args, values: torch.Tensor) -> torch.Tensor:
            factor = factors[name][images()].to(values.device, values.dtype)
            return values * factor[:, None]

        return hook

    with contextlib.ExitStack() as hooks:
        for name in factors:
            handle = model.value_projection(name).register_forward_hook(scale(name))
            hooks.callback(handle.remove)
        yield
