"""A build of fake engines, and the means to load it. Imports torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from coolsd_rt.backends.description import Description
from coolsd_rt.backends.tensorrt import engine as engine_module
from coolsd_rt.backends.tensorrt.engine import TrtEngine, load_engines
from coolsd_rt.backends.tensorrt.facts import Facts
from coolsd_rt.backends.tensorrt.package import Gpu
from coolsd_rt.backends.tensorrt.profiles import ProfileSizes, profiles
from coolsd_rt.contract import ModelDims
from coolsd_rt.device.engine import DeviceEngine
from tests.backends.tensorrt.fakes import VERSION, FakeEngine, FakeTrt

DIMS = ModelDims(
    vocab=5, dim=4, layers=1, heads=1, head_dim=2, prefix=10, tokens=9, draft_layers=1, draft_heads=1, draft_head_dim=2
)
LENGTH = 3
GPU = Gpu("Fake 4090", "8.9", 24 << 30)
CPU = torch.device("cpu")


class Bench:
    """A build of fakes, and the means to load it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dims: ModelDims = DIMS) -> None:
        self.dims, self.sizes = dims, ProfileSizes.of(dims, LENGTH, 2)
        self.description = Description(dims, LENGTH, 8, propose=False)
        self.engines: dict[str, FakeEngine] = {}
        self.facts: dict[str, Any] = {}
        for name, record in self.description.graphs.items():
            known = profiles(record.contract, self.sizes)
            scratch = 1000 + len(self.engines)
            self.engines[name] = FakeEngine(record.contract, self.sizes.capacity, len(known), scratch)
            facts = Facts("tensorrt-rtx", VERSION, ("8.9",), "fp32", self.sizes.capacity, known)
            self.facts[name] = facts.as_dict()
        self.trt = FakeTrt({name.encode(): made for name, made in self.engines.items()})
        self.read_names: list[str] = []
        self.gpu = GPU
        monkeypatch.setattr(engine_module, "require_gpu", lambda: self.gpu)
        monkeypatch.setattr(engine_module, "package", lambda flavour: self)

    def load(self) -> FakeTrt:
        return self.trt

    def read(self, file: str) -> bytes:
        self.read_names.append(file)
        return file.removesuffix(".engine").encode()

    def open(self) -> TrtEngine:
        return load_engines(self.description, self.facts, self.read, "tensorrt-rtx", "build it again", CPU)

    def engine(self) -> DeviceEngine:
        """As the backend loads it."""
        return DeviceEngine(self.open())
