"""The private Slurm that the tests of this folder share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import VARIABLES
from tests.preloaded import preloaded
from tests.slurm import private


@pytest.fixture(scope="session")
def private_slurm(tmp_path_factory) -> Iterator[Path]:
    """The file that SLURM_CONF names."""
    reason = private.missing()
    if reason:
        pytest.skip(reason)
    pytest.importorskip("submitit")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        yield private.start(folder)
    finally:
        private.stop(folder)


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """A Python that starts at once."""
    with preloaded(os.environ | VARIABLES) as program:
        yield program
