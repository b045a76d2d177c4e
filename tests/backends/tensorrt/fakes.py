"""TensorRT's runtime without a GPU: contexts that compute on the addresses they are given, and say what was called.

The model inside is a sum over the cache: position p of a row writes its token + 1 into the cache, and its logits are
the sum of what stands at positions 0 .. p, and the code. So a step that reads or writes another cache, row or position
has other logits. Like the real one it runs on raw addresses and stated shapes alone.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.contract import GraphContract, TensorSpec

VERSION = "1.7.1"
NAMES = {"float32": "FLOAT", "int64": "INT64", "uint8": "UINT8"}


class FakeTrt:
    """The part of the module that loading and stepping use."""

    __name__ = "fake_rtx"
    __version__ = VERSION

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    ExecutionContextAllocationStrategy = SimpleNamespace(STATIC="static", USER_MANAGED="user")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager")
    CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole")

    def __init__(self, engines: Mapping[bytes, FakeEngine]) -> None:
        self.engines = dict(engines)
        self.refuses: str = ""  # what the runtime's constructor says when it fails
        self.unread = "Error Code 1: Serialization (bad header)"  # what it says of an engine it does not know

    def Runtime(self, log: Any) -> Any:  # noqa: N802  (TensorRT's name)
        if self.refuses:
            log.log(self.ILogger.ERROR, self.refuses)
            raise TypeError("pybind11::init(): factory function returned nullptr")

        def deserialize(data: bytes) -> FakeEngine | None:
            engine = self.engines.get(bytes(data))
            if engine is None:
                log.log(self.ILogger.ERROR, f"IRuntime::deserializeCudaEngine: {self.unread}")
            return engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)


class FakeEngine:
    """One engine: its tensors are a contract's."""

    def __init__(self, contract: GraphContract, capacity: int, profiles: int, scratch: int = 64) -> None:
        self.contract, self.capacity, self.num_optimization_profiles = contract, capacity, profiles
        self.device_memory_size_v2 = scratch
        self.contexts: list[FakeContext] = []
        self.aliased = {f"{s.name}_out": s.name for s in contract.inputs if "T" in s.shape}
        self.configs: list[Any] = []
        self.specs: dict[str, TensorSpec] = {s.name: s for s in (*contract.inputs, *contract.outputs)}

    @property
    def num_io_tensors(self) -> int:
        return len(self.specs)

    def get_tensor_name(self, index: int) -> str:
        return list(self.specs)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name in {s.name for s in self.contract.inputs} else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=NAMES[self.specs[name].dtype])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        known = {"T": self.capacity}
        return tuple(known.get(n, -1) if isinstance(n, str) else n for n in self.specs[name].shape)

    def get_aliased_input_tensor(self, name: str) -> str | None:
        return self.aliased.get(name)

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace(
            dynamic_shapes_kernel_specialization_strategy="lazy", cuda_graph_strategy="", strategy="", cache=None
        )
        config.set_execution_context_allocation_strategy = lambda s: setattr(config, "strategy", s)
        config.create_runtime_cache = object
        config.set_runtime_cache = lambda c: setattr(config, "cache", c)
        self.configs.append(config)
        return config

    def create_execution_context(self, config: Any) -> FakeContext:
        assert config in self.configs
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeContext:
    """Records every call by name; `execute_async_v3` computes on the addresses."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.calls: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.profile = -1
        self.memory = (0, 0)
        self.refuses = ""  # the name of a call that fails

    def _called(self, name: str) -> bool:
        self.calls.append(name)
        return name != self.refuses

    def set_device_memory(self, address: int, size: int) -> None:
        self._called("set_device_memory")
        self.memory = (address, size)

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert self.memory[1] >= self.engine.device_memory_size_v2, "scratch memory that is too small"
        self.profile = index
        return self._called("set_optimization_profile_async")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return self._called("set_input_shape")

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address
        self.addresses[name] = address
        return self._called("set_tensor_address")

    def infer_shapes(self) -> list[str]:
        return [s.name for s in self.engine.contract.inputs if s.name not in self.shapes]

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self.addresses) == set(self.engine.specs), "a tensor without an address"
        if done := self._called("execute_async_v3"):
            self._compute()
        return done

    def array(self, name: str, sizes: Mapping[str, int]) -> NDArray[Any]:
        """The memory a tensor is bound to."""
        spec = self.engine.specs[name]
        shape = self.shapes.get(name) or tuple(sizes[n] if isinstance(n, str) else n for n in spec.shape)
        return at_address(self.addresses[name], shape, spec.dtype)

    def _compute(self) -> None:
        sizes = {
            dim: size
            for name, shape in self.shapes.items()
            for dim, size in zip(self.engine.specs[name].shape, shape, strict=True)
            if isinstance(dim, str)
        }
        first = self.array(self.engine.contract.inputs[0].name, sizes)
        if "pos" not in self.shapes:
            self.array(self.engine.contract.outputs[0].name, sizes)[...] = first.sum()
            return
        pos, cache = self.array("pos", sizes), self.array("k_0", sizes)
        written = self.array("k_0_out", sizes)
        logits, features = self.array("logits", sizes), self.array("features", sizes)
        shift = self.array("features_in", sizes) if "features_in" in self.shapes else np.zeros((*first.shape, 1))
        base = self.array("prefix", sizes).sum(axis=(1, 2))
        for r, s in np.ndindex(*first.shape):
            p = int(pos[r]) + s
            assert p < sizes["T"], "a write past the cache"
            written[r, :, p] = first[r, s] + 1
            total = cache[r, 0, : p + 1, 0].sum() + base[r] + shift[r, s].sum()
            logits[r, s] = total + np.arange(logits.shape[-1])
            features[r, s] = total


def at_address(address: int, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """An array over memory of somebody else's."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    found: NDArray[Any] = np.frombuffer(memory, dtype=kind).reshape(shape)
    return found
