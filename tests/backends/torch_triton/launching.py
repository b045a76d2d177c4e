"""Fused steps launched as on a GPU, with a driver that takes the launches and does nothing. Read by `test_fused`.

A script: it replaces triton's driver for the whole process.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch
from triton.runtime import driver

from coolsd_rt.backends.torch.eager import TorchEngine
from coolsd_rt.backends.torch.triton.engine import FusedEngine
from tests.device.launching import Driver, launched
from tests.models.family_cases import CONFIGS, random_draft, random_target
from tests.tiny import networks


def launch_all(pdl: bool) -> None:
    """A plain and a speculative step of a guided image, on target and head, twice."""
    target = random_target(replace(CONFIGS["llamagen"], layers=3))
    engine = FusedEngine(TorchEngine(target, random_draft(target), networks()[2]).to("cpu", "bfloat16"), pdl)
    session = engine.steps(2, 64)
    pos = torch.full((2,), 5)
    for size in (1, 4, 1, 4):
        ids, features = torch.zeros(2, size, dtype=torch.int64), torch.zeros(2, size, 64)
        session.target(ids, pos)
        session.draft(ids, features, pos)


if __name__ == "__main__":
    driver.set_active(Driver())
    launch_all(sys.argv[1] == "1")
    print(json.dumps({"launched": launched}))
