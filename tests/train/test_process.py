"""Two processes with half of each batch train the weights of one with the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coolsd_rt.train.before import CHECKPOINT
from coolsd_rt.train.config import TrainConfig
from coolsd_rt.train.run import train_draft
from tests.train.training import request

CODE = """
import sys
from pathlib import Path
import torch
from coolsd_rt.train.run import train_draft
from tests.train.training import request
torch.set_num_threads(1)
train_draft(request(Path(sys.argv[1]), Path(sys.argv[2]), kind="eagle", steps=4, every=2))
"""


def _weights(asked: TrainConfig) -> dict[str, torch.Tensor]:
    state = load_file(str(asked.folder / CHECKPOINT))
    return {k: v for k, v in state.items() if k.startswith("training.model.")}


def test_two_processes_are_one(tiny_spec: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    alone = request(tiny_spec, tmp_path / "alone.safetensors", kind="eagle", steps=4, every=2)
    train_draft(alone)
    out = tmp_path / "two.safetensors"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", CODE, str(tiny_spec), str(out)]
    both = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE)
        for rank in ("0", "1")
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    first, second = _weights(alone), _weights(request(tiny_spec, out, kind="eagle"))
    assert first
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-4), name
