"""Statistics of norms on disk, for the random model under any sampler: its updates are inside, a
little outside and far outside.
"""

from functools import cache
from pathlib import Path

import torch

from memorization_suite.detection.stability import Statistics
from tests.methods.pictures import FOLDER

MEAN = {"update": 45.0, "latent": 100.0, "clean": 150.0}
SD = {"update": 8.0, "latent": 20.0, "clean": 20.0}


@cache
def statistics_file(steps: int) -> str:
    """Path of a file for this number of steps."""
    path = Path(FOLDER.name) / f"stability_{steps}.json"
    mean = {name: torch.full((steps,), value) for name, value in MEAN.items()}
    sd = {name: torch.full((steps,), value) for name, value in SD.items()}
    path.write_text(Statistics(mean, sd, made_with={}).as_text())
    return str(path)
