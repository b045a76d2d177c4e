"""One ONNX Runtime session, and calls with memory that is bound in advance.

Knows IOBinding, buckets and providers. Does not know what a graph computes. A call is bound once for each of its
shapes: its inputs and outputs are NumPy arrays that ONNX Runtime reads and writes in place, so a step copies small
inputs and outputs, and never the caches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coolsd_rt import cores
from coolsd_rt.backends.onnxruntime.caches import Caches, OrtMemory
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.captured import native_words
from coolsd_rt.contract import GraphContract, TensorSpec
from coolsd_rt.errors import CoolsdError
from coolsd_rt.install import install_line

with native_words([]):  # the import looks for GPUs, and prints warnings if it may not read the devices
    import onnxruntime as ort

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_TYPES = {
    "int64": "tensor(int64)", "float32": "tensor(float)", "float16": "tensor(float16)",
    "bfloat16": "tensor(bfloat16)", "uint8": "tensor(uint8)", "bool": "tensor(bool)",
}  # fmt: skip
_WARNING, _FATAL = 2, 4
_SPIN_MICROSECONDS = "1000"
ort.set_default_logger_severity(_FATAL)  # errors are also raised, with the same text
_SETTINGS = {CUDA: {"use_tf32": "0"}}
"""Options of providers. The default on a GPU multiplies float32 with 10 bits of mantissa, which would fail parity."""


def session_options(options: LoadOptions, beside: Path | None = None, mapped: bool = False) -> Any:
    """Return ONNX Runtime's options for a session.

    beside: folder of the weights that are not in the graph.
    mapped: keep weights mapped from their file, without a copy in the layout that makes products fastest.
    """
    so = ort.SessionOptions()
    so.log_severity_level = _WARNING if options.verbose else _FATAL
    so.intra_op_num_threads = cores.threads_for(options.threads)  # ONNX Runtime's default, 0, ignores cgroups
    so.inter_op_num_threads = 1  # nodes run one after another
    # Block DequantizeLinear + MatMul becomes MatMulNBits with int8 arithmetic; level 1 would be float, and far slower.
    so.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    so.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    # Each session has a thread pool; without this the threads of one graph would spin while the next graph runs.
    so.add_session_config_entry("session.force_spinning_stop", "1")
    # Within a run the next operation comes sooner. By default the thread of a new session spins 20 to 30 ms.
    so.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    if beside is not None:
        so.add_session_config_entry("session.model_external_initializers_file_folder_path", str(beside.absolute()))
    if mapped:
        so.add_session_config_entry("session.disable_prepacking", "1")
    return so


class OrtGraph:
    """An ONNX Runtime session whose inputs and outputs match its contract."""

    def __init__(
        self,
        name: str,
        data: bytes,
        contract: GraphContract,
        options: LoadOptions,
        beside: Path | None = None,
        mapped: bool = False,
        linked: Mapping[str, Path] | None = None,
    ) -> None:
        """Load a graph.

        data: the serialised graph, with its weights unless they are in the folder `beside`.
        mapped: as in `session_options`.
        linked: weight files by the names that the graph uses, if these are links out of the folder: ONNX Runtime
        follows no such links, so it gets the contents instead.

        Raises CoolsdError: ONNX Runtime cannot load the graph, falls back to other providers, or the graph does not
        match its contract.
        """
        self.name, self.contract = name, contract
        asked = list(options.providers) or [CPU]
        self.device = "cuda" if asked[0] == CUDA else "cpu"  # device of the caches
        if absent := [p for p in asked if p not in ort.get_available_providers()]:
            found = ", ".join(ort.get_available_providers())
            fix = f"{install_line('gpu')} in place of onnxruntime, on a machine with an NVIDIA GPU"
            raise CoolsdError("ONNX Runtime's providers", expected=absent[0], found=found, fix=fix)
        try:
            providers = [(name, _SETTINGS.get(name, {})) for name in asked]
            so = session_options(options, None if linked else beside, mapped)
            contents = [
                np.memmap(path, np.uint8, "r") for path in (linked or {}).values()
            ]  # must live until the session exists
            if linked:
                so.add_external_initializers_from_files_in_memory(list(linked), contents, [c.size for c in contents])
            self.session = ort.InferenceSession(data, so, providers=providers)
        except Exception as error:  # its exceptions share no base class
            raise CoolsdError(
                f"graph {name}", expected="a graph that ONNX Runtime loads", found=_line(error)
            ) from error
        running = self.session.get_providers()
        if running[: len(asked)] != asked:
            raise CoolsdError(
                f"graph {name}", expected=f"execution on {', '.join(asked)}", found=f"{', '.join(running)}"
            )
        self._check()

    def _check(self) -> None:
        sides = ((self.session.get_inputs(), self.contract.inputs), (self.session.get_outputs(), self.contract.outputs))
        for found, wanted in sides:
            here = [(a.name, a.type, tuple(a.shape)) for a in found]
            there = [(s.name, _TYPES[s.dtype], s.shape) for s in wanted]
            if here != there:
                odd = next((pair for pair in zip(here, there, strict=False) if pair[0] != pair[1]), (here, there))
                raise CoolsdError(f"graph {self.name}", expected=str(odd[1]), found=str(odd[0]), fix="build it again")

    def call(self, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the graph once and return new output arrays by name. Raises CoolsdError if the run fails."""
        try:
            outputs = self.session.run(None, inputs)
        except Exception as error:  # its exceptions share no base class
            raise CoolsdError(f"graph {self.name}", expected="a successful run", found=_line(error)) from error
        return dict(zip((s.name for s in self.contract.outputs), outputs, strict=True))


class OrtGraphs(Mapping[str, OrtGraph]):
    """The graphs of an engine by name. A graph is loaded when it is first looked up, and then kept.

    Its file is hashed at that time, so that what is loaded late is what the manifest names too.
    """

    def __init__(self, load: Mapping[str, Callable[[], OrtGraph]]) -> None:
        self._load, self.loaded = dict(load), dict[str, OrtGraph]()

    def __getitem__(self, name: str) -> OrtGraph:
        if name not in self.loaded:
            self.loaded[name] = self._load[name]()
        return self.loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._load

    def __iter__(self) -> Iterator[str]:
        return iter(self._load)

    def __len__(self) -> int:
        return len(self._load)


class OrtStep:
    """A graph bound to memory for one set of shapes. A call copies inputs in, runs, and copies outputs out."""

    def __init__(
        self, graph: OrtGraph, sizes: Mapping[str, int], fixed: Mapping[str, OrtMemory], caches: Caches
    ) -> None:
        self._graph = graph
        self._binding = graph.session.io_binding()
        self._inputs: dict[str, OrtMemory] = {}
        self._outputs: dict[str, NDArray[Any]] = {}
        self._kept: list[OrtMemory] = []  # a binding does not own what it points to
        in_place = dict(caches.names)
        for spec in graph.contract.inputs:
            memory = fixed.get(spec.name) or caches.memory.get(spec.name)
            if memory is None:
                memory = _empty(spec, sizes)
                self._inputs[spec.name] = memory
            self._bind(self._binding.bind_ortvalue_input, spec.name, memory)
            if spec.name in in_place:
                self._bind(self._binding.bind_ortvalue_output, in_place[spec.name], memory)
        for spec in graph.contract.outputs:
            if spec.name not in in_place.values():
                memory = _empty(spec, sizes)
                self._outputs[spec.name] = memory.array
                self._bind(self._binding.bind_ortvalue_output, spec.name, memory)

    def _bind(self, bind: Any, name: str, memory: OrtMemory) -> None:
        self._kept.append(memory)
        bind(name, memory.value)

    def __call__(self, **inputs: Any) -> dict[str, NDArray[Any]]:
        """Run on these inputs and return copies of the outputs by name. Raises CoolsdError if the run fails."""
        for name, memory in self._inputs.items():
            memory.array[...] = inputs[name]
            if self._graph.device != "cpu":  # on a device, binding makes a copy
                self._binding.bind_ortvalue_input(name, memory.value)
        try:
            self._graph.session.run_with_iobinding(self._binding)
        except Exception as error:  # its exceptions share no base class
            raise CoolsdError(f"graph {self._graph.name}", expected="a successful run", found=_line(error)) from error
        return {name: array.copy() for name, array in self._outputs.items()}


class OrtSteps:
    """The bound calls of one graph on one set of caches, created when a shape first occurs."""

    def __init__(self, graph: OrtGraph, caches: Caches, fixed: Mapping[str, OrtMemory]) -> None:
        self._graph, self._caches, self._fixed = graph, caches, fixed
        self._bound: dict[int, OrtStep] = {}
        self._capacity = 0

    def at(self, sizes: Mapping[str, int], positions: int) -> OrtStep:
        """Return the call for these sizes (they differ in S alone), with caches for `positions` positions."""
        self._caches.reach(positions)
        if self._capacity != self._caches.capacity:
            self._bound.clear()
            self._capacity = self._caches.capacity
        step = self._bound.get(sizes["S"])
        if step is None:
            step = self._bound[sizes["S"]] = OrtStep(self._graph, sizes, self._fixed, self._caches)
        return step


def _empty(spec: TensorSpec, sizes: Mapping[str, int]) -> OrtMemory:
    return OrtMemory.zeros([sizes[n] if isinstance(n, str) else n for n in spec.shape], spec.dtype)


def _line(error: Exception) -> str:
    """Return the first line of an ONNX Runtime message, without its error number and source location."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : |/onnxruntime_src/\S+ ", "", first)[:300]


@lru_cache(maxsize=16)
def along_a_chain(rows: int, size: int) -> Mapping[str, NDArray[Any]]:
    """Return `depth` and `seen` of a chain, which nobody may write to: made once for each width of a step."""
    depth, seen = np.arange(size), np.tri(size, dtype=np.bool_)
    return {"depth": np.broadcast_to(depth, (rows, size)), "seen": np.broadcast_to(seen, (rows, size, size))}
