"""Changes of a copy of the embedded model's folder."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

UNET = "diffusion_pytorch_model.safetensors"
# Part -> file of its tensors.
WEIGHTS = {"unet": UNET, "vae": UNET, "text_encoder": "model.safetensors"}
State = dict[str, torch.Tensor]


def changed(model: Path, part: str, change: Callable[[State], State]) -> None:
    """Stores a part's tensors anew."""
    file = model / part / WEIGHTS[part]
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(name: str) -> Callable[[State], State]:
    """A change that leaves a tensor out."""

    def change(state: State) -> State:
        assert name in state
        return {key: tensor for key, tensor in state.items() if key != name}

    return change


def configured(model: Path, file: str, **values) -> None:
    """Changes values of a JSON file; None removes one."""
    content = json.loads((model / file).read_text()) | values
    kept = {name: value for name, value in content.items() if value is not None}
    (model / file).write_text(json.dumps(kept))
