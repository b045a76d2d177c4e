"""One TensorRT engine on a GPU: its execution contexts, each bound once to memory that torch allocated.

Knows TensorRT's runtime and torch tensors. Does not know which model it is, nor the loop. It has not run on a GPU: the
tests use a fake of TensorRT's runtime that checks all bindings, and look up every name that is called.

A step is one context with one set of shapes and addresses. Calling it copies small inputs into the memory of the
context and enqueues on torch's current stream: it neither allocates nor waits, so a CUDA graph can capture it after its
first run (TensorRT-RTX compiles in a shape's first run). A cache has one address for input and output. All contexts
share one scratch memory; they must run on one stream, one after another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coolsd_rt.backends.tensorrt.facts import Facts
from coolsd_rt.backends.tensorrt.inspect import DTYPES
from coolsd_rt.backends.tensorrt.log import Log, native_words, reason
from coolsd_rt.backends.tensorrt.package import ON_A_CPU
from coolsd_rt.backends.tensorrt.profiles import choose
from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.errors import CoolsdError

_LEAST_SCRATCH = 256  # at least some bytes, so that there is an address
LESS = "close other programs that use the GPU, or build with a smaller engine.max_batch"
_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|cudaErrorMemoryAllocation", re.IGNORECASE)
_DRIVER = ("driver version is insufficient", "no CUDA-capable device", "CUDA initialization")


class Scratch:
    """Scratch memory that the contexts of all models share; it has the size of the largest requirement."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._memory = torch.empty(_LEAST_SCRATCH, dtype=torch.uint8, device=device)
        self.fixed = False

    def want(self, size: int) -> None:
        """Grow to at least `size` bytes. Every model calls this while it is loaded.

        Raises RuntimeError once a context is bound to the address.
        """
        if size <= self._memory.numel():
            return
        if self.fixed:
            raise RuntimeError("scratch memory grows after a context was bound to it")
        self._memory = torch.empty(size, dtype=torch.uint8, device=self.device)

    def bind(self, context: Any) -> None:
        """Let a context use this memory. It cannot grow afterwards."""
        self.fixed = True
        context.set_device_memory(self._memory.data_ptr(), self._memory.numel())


class TrtModel:
    """A deserialised engine of one graph."""

    def __init__(
        self,
        trt: Any,
        log: Log,
        runtime: Any,
        data: bytes,
        contract: GraphContract,
        facts: Facts,
        name: str,
        scratch: Scratch,
    ) -> None:
        """Deserialise an engine, which may run code from it.

        data: bytes whose hash was checked, and whose `facts` were compared with this machine.

        Raises CoolsdError: TensorRT refuses the engine (the error says why: a driver that is too old, too little
        memory), or its tensors do not match the contract.
        """
        self.name, self.contract, self.profiles = name, contract, facts.profiles
        self.device, self._scratch = scratch.device, scratch
        self._trt, self._log, self._fixed = trt, log, {"T": facts.capacity}
        with native_words(log):
            self._engine = runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise CoolsdError(
                f"engine {name}", expected="an engine that TensorRT loads", found=reason(log), fix=_fix(log)
            )
        self._check()
        self._config = self._runtime_config()
        scratch.want(int(self._engine.device_memory_size_v2))

    def _check(self) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        specs = {s.name: s for s in (*self.contract.inputs, *self.contract.outputs)}
        if odd := sorted(set(names) ^ set(specs)):
            there = "no such tensor" if odd[0] in specs else "an additional tensor"
            raise CoolsdError(f"engine {self.name}", expected="the contract's tensors", found=f"{odd[0]}: {there}")
        inputs = {s.name for s in self.contract.inputs}
        for name, spec in specs.items():
            way = "INPUT" if name in inputs else "OUTPUT"
            wanted = (way, spec.dtype, self._shape(spec, {}))
            dtype = engine.get_tensor_dtype(name).name
            shape = tuple(int(n) for n in engine.get_tensor_shape(name))
            found = (engine.get_tensor_mode(name).name, DTYPES.get(dtype, dtype), shape)
            if found != wanted:
                raise CoolsdError(f"engine {self.name}: {name}", expected=str(wanted), found=str(found))
        if engine.num_optimization_profiles != len(self.profiles):
            expected, there = f"{len(self.profiles)} profiles", str(engine.num_optimization_profiles)
            raise CoolsdError(f"engine {self.name}", expected=expected, found=there)
        for spec in self.caches:
            aliased = engine.get_aliased_input_tensor(f"{spec.name}_out")
            if aliased != spec.name:
                expected, there = f"memory of {spec.name}", aliased or "separate memory"
                raise CoolsdError(f"engine {self.name}: {spec.name}_out", expected=expected, found=there)

    def _runtime_config(self) -> Any:
        """Return the runtime config: scratch memory is allocated here, not by TensorRT.

        TensorRT-RTX compiles for a shape before its first run and does not specialise kernels during later runs: a
        captured graph would keep the kernel that was current. The loop captures graphs, not TensorRT.
        """
        trt, config = self._trt, self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            strategies = trt.DynamicShapesKernelSpecializationStrategy
            config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
            config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
            # Contexts of one model share compiled kernels.
            config.set_runtime_cache(config.create_runtime_cache())
        return config

    @property
    def caches(self) -> list[TensorSpec]:
        """Inputs of the contract that are KV caches."""
        return [s for s in self.contract.inputs if "T" in s.shape]

    def _shape(self, spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape of a tensor at these sizes; -1 where `sizes` has no value."""
        known = {**self._fixed, **sizes}
        return tuple(known.get(n, -1) if isinstance(n, str) else n for n in spec.shape)

    def zeros(self, spec: TensorSpec, sizes: Mapping[str, int]) -> Tensor:
        """Return zeros for a tensor of the contract on this model's device."""
        with torch.inference_mode(False):  # inference tensors cannot be written outside inference mode
            return torch.zeros(self._shape(spec, sizes), dtype=getattr(torch, spec.dtype), device=self.device)

    def bind(self, sizes: Mapping[str, int], memory: Mapping[str, Tensor]) -> TrtStep:
        """Create a step for these sizes.

        memory: tensors by input name that the step reads, or updates, in place (caches, a batch's prefix); the other
        inputs and the outputs get new memory.

        Must not be called while a CUDA graph is captured. Raises CoolsdError: no profile has these sizes; TensorRT
        refuses a binding.
        """
        index = choose(self.profiles, sizes)
        if index is None:
            found = ", ".join(f"{n} = {v}" for n, v in sizes.items())
            raise CoolsdError(
                f"engine {self.name}",
                expected="sizes that it was built for",
                found=found,
                fix="build with another engine.max_batch or draft.length",
            )
        with native_words(self._log):
            context = self._engine.create_execution_context(self._config)
        if context is None:
            raise self.failed("an execution context")
        self._scratch.bind(context)
        self.expect(context.set_optimization_profile_async(index, stream(self.device)), f"profile {index}")
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return TrtStep(self, context, sizes, memory)

    def expect(self, done: Any, what: str) -> None:
        """Raise CoolsdError unless TensorRT reports success. what: the action, for the error."""
        if not done:
            raise self.failed(what)

    def failed(self, what: str) -> CoolsdError:
        """Return the error for an action that TensorRT refused."""
        fix = LESS if _memory_is_out(self._log) else ""
        return CoolsdError(f"engine {self.name}", expected=f"{what} from TensorRT", found=reason(self._log), fix=fix)


class TrtStep:
    """A context bound to its memory. `inputs` and `outputs` are tensors at addresses that never change."""

    def __init__(self, model: TrtModel, context: Any, sizes: Mapping[str, int], memory: Mapping[str, Tensor]) -> None:
        self._model, self._context = model, context
        contract = model.contract
        self.inputs = {s.name: model.zeros(s, sizes) for s in contract.inputs if s.name not in memory}
        bound = {**memory, **self.inputs}
        for spec in contract.inputs:
            model.expect(context.set_input_shape(spec.name, tuple(bound[spec.name].shape)), f"shape of {spec.name}")
        in_place = {f"{s.name}_out": s.name for s in model.caches}
        self.outputs = {s.name: model.zeros(s, sizes) for s in contract.outputs if s.name not in in_place}
        bound |= self.outputs | {out: bound[name] for out, name in in_place.items()}
        for name, tensor in bound.items():
            if not tensor.is_contiguous():
                raise ValueError(f"{name}: memory that is not contiguous")
            model.expect(context.set_tensor_address(name, tensor.data_ptr()), f"address of {name}")
        if missing := list(context.infer_shapes()):
            raise CoolsdError(
                f"engine {model.name}", expected="known shapes of all tensors", found=f"no shape of {missing[0]}"
            )
        self._kept = bound  # a context does not own what it points to

    def enqueue(self) -> None:
        """Run on torch's current stream, on the current contents of the memory.

        Raises CoolsdError if TensorRT refuses.
        """
        self._model.expect(self._context.execute_async_v3(stream(self._model.device)), "a step")

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Copy the inputs in, enqueue, and return the outputs by name.

        An input of one row is copied to all rows of the memory. The outputs are the step's memory: the next call
        overwrites them.
        """
        for name, memory in self.inputs.items():
            if inputs[name].data_ptr() != memory.data_ptr():
                memory.copy_(inputs[name])
        self.enqueue()
        return self.outputs


def stream(device: torch.device) -> int:
    """Return the handle of torch's current stream; 0 on a CPU. TensorRT is slower on the default stream."""
    return int(torch.cuda.current_stream(device).cuda_stream) if device.type == "cuda" else 0


def make_runtime(trt: Any, log: Log) -> Any:
    """Return TensorRT's runtime. Raises CoolsdError if there is no driver that it can use."""
    try:
        with native_words(log):
            return trt.Runtime(log)
    except (RuntimeError, TypeError) as error:  # pybind reports a null pointer as TypeError
        found = reason(log) if log.errors or log.words else str(error)
        raise CoolsdError("TensorRT's runtime", expected="a compatible driver", found=found, fix=_fix(log)) from error


def _memory_is_out(log: Log) -> bool:
    last = (*list(log.errors)[-3:], *log.words[-3:])
    return any(_MEMORY.search(line) for line in last)


def _fix(log: Log) -> str:
    if _memory_is_out(log):
        return LESS
    said = " ".join((*log.errors, *log.words))
    if any(word in said for word in _DRIVER):
        return f"install an NVIDIA driver for this TensorRT's CUDA, {ON_A_CPU}"
    return "build it again on this machine"
