"""What a stopped training goes on from."""

from __future__ import annotations

import io
from pathlib import Path

from memorization_suite.runs.files import write_bytes
from memorization_suite.runs.lazy import torch


def save(path: Path, parts: dict, step: int) -> None:
    """Writes a checkpoint; a kill leaves the old one whole. parts: name -> what has a
    state_dict.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    content = io.BytesIO()
    torch.save(state | {"step": step}, content)
    write_bytes(path, content.getvalue())


def resume(path: Path, parts: dict) -> int:
    """Loads a checkpoint into the parts. Returns its step, 0 when there is none."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]
