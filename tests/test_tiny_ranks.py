"""Processes that train one model side by side."""

import json
import os
import socket

import pytest
import torch
from torch import multiprocessing

from memorization_suite import tiny
from memorization_suite.tiny.ranks import ALONE, Ranks
from memorization_suite.tiny.train import main


def job(rank, port, folder):
    """What one of two processes does."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = Ranks.join()
    with ranks.first_alone():
        there = sorted(path.name for path in folder.iterdir())
        (folder / f"{rank}.txt").touch()
    ranks.wait()
    numbers, table = ranks.mean([torch.tensor(4.0 * rank), torch.full((2, 3), float(rank))])
    seen = {"there": there, "numbers": numbers.item(), "table": table.tolist()}
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    ranks.leave()


def test_two_processes_share_their_gradients_and_the_first_goes_first(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(job, (port, tmp_path), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["there"] == [] and second["there"] == ["0.txt"]
    assert first["numbers"] == second["numbers"] == 2.0
    assert first["table"] == second["table"] == [[0.5] * 3] * 2


def test_one_process_waits_for_nobody():
    tensors = [torch.ones(2), torch.zeros(3)]
    ALONE.wait()
    with ALONE.first_alone():
        assert ALONE.mean(tensors) == tensors


def test_a_batch_that_processes_cannot_share_equally(monkeypatch, capsys):
    batch = tiny.settings()["unet"]["batch"]
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SystemExit) as stopped:
        main(["tiny"])
    assert stopped.value.code == 2
    assert f"3 processes cannot share a batch of {batch}" in capsys.readouterr().err
