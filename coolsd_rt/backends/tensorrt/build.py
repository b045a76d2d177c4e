"""An ONNX graph of the contract, its T pinned, to a serialised TensorRT engine and the facts a load compares.

Knows TensorRT's builder. Does not know where an engine is kept, nor which model it is. TensorRT-RTX builds on any
machine, for all GPUs it supports unless told otherwise; TensorRT needs the GPU it builds for, and its way through here
has been tried with nothing but its twin.

Nothing is written before the whole engine is there, so an interrupted build leaves nothing behind. The builder runs in
a thread of its own: an interrupt reaches Python at once, and the next step of the builder ends it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from coolsd_rt.backends.tensorrt.facts import Facts
from coolsd_rt.backends.tensorrt.inspect import Layers, check_layers, compiled, read_layers
from coolsd_rt.backends.tensorrt.log import Log, make_log, native_words, reason
from coolsd_rt.backends.tensorrt.network import Parsed, parse, tune_attention
from coolsd_rt.backends.tensorrt.package import ON_A_CPU, Flavour, Package, local_gpu
from coolsd_rt.backends.tensorrt.profiles import Profile
from coolsd_rt.contract import GraphContract
from coolsd_rt.errors import CoolsdError, UserError
from coolsd_rt.store.atomic import write_atomic

OnProgress = Callable[[str, int, int], None]  # a phase of the builder, its steps done, its steps
HEAD = 8
_TICK = 0.1  # seconds between two looks for an interrupt


@dataclass(frozen=True)
class BuildOptions:
    """How to build, apart from what.

    capabilities: compute capabilities such as `8.9` to build for (TensorRT-RTX only); None is the local GPU, or every
    supported one where there is none. workspace: bytes of scratch memory a plan may want; None is TensorRT's own limit.
    timing_cache: a file shared by builds (TensorRT only; TensorRT-RTX times nothing). level: 0 (fast build) to 5.
    """

    capabilities: tuple[str, ...] | None = None
    workspace: int | None = None
    timing_cache: Path | None = None
    level: int | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine in TensorRT's own memory: write `data` with `open(path, "wb").write`, without a copy."""

    data: memoryview
    facts: Facts


def build_engine(
    graph: bytes | Path,
    contract: GraphContract,
    profiles: Sequence[Profile],
    *,
    name: str,
    flavour: Flavour,
    precision: str,
    options: BuildOptions | None = None,
    on_progress: OnProgress | None = None,
    beside: Path | None = None,
) -> BuiltEngine:
    """Parse, check the layers, build. A path is for a graph whose weights lie beside it.

    beside: a graph's file in whose folder the weights are that `graph`, its bytes, names: they are read by TensorRT
    alone, and no message holds them.

    on_progress is called in another thread; what it raises ends the build and is raised here.

    Raises:
        MissingExtra: the package is not installed.
        UserError: a compute capability that the package does not know.
        CoolsdError: no GPU where one is needed; a node that TensorRT does not take; layers that are not those of the
            contract; a build that failed. One line each, with the library's reason.
        KeyboardInterrupt: after the builder has stopped.
    """
    options, trt = options or BuildOptions(), Package(flavour).load()
    check_heads(flavour, contract, precision, name)
    log = make_log(trt)
    begun = time.perf_counter()
    with native_words(log):
        capabilities = _capabilities(trt, flavour, options)
        parsed = parse(trt, log, graph, name, beside)
        products = tune_attention(trt, parsed.network)
        layers = read_layers(trt, parsed.network)
        capacity = profiles[0].fixed.get("T", 0)
        check_layers(layers, contract, capacity, precision, name=f"graph {name}")
        config = _config(trt, parsed, contract, profiles, options)
        if flavour == "tensorrt-rtx" and capabilities:
            _aim(trt, config, capabilities)
        data = _serialise(trt, log, parsed, config, name, options, on_progress)
    details = _details(layers, contract, data, products, time.perf_counter() - begun)
    facts = Facts(flavour, str(trt.__version__), capabilities, precision, capacity, tuple(profiles), details)
    return BuiltEngine(data, facts)


def check_heads(flavour: Flavour, contract: GraphContract, precision: str, name: str) -> None:
    """Raise UserError where the compiler has no kernels: TensorRT-RTX 1.7.1 fails inside itself, without saying so."""
    if flavour != "tensorrt-rtx":
        return
    widths = {spec.shape[-1] for spec in contract.inputs if "T" in spec.shape}
    odd = [width for width in widths if isinstance(width, int) and width % HEAD]
    if odd and precision != "fp32":
        fix = "build with engine.backend torch, or in fp32"
        expected = f"heads of a multiple of {HEAD} numbers in {precision}"
        raise UserError(f"graph {name}", expected=expected, found=str(odd[0]), fix=fix)


def _details(
    layers: Layers, contract: GraphContract, data: memoryview, products: int, seconds: float
) -> dict[str, Any]:
    return {
        "layers": layers.counts,
        "products_by_one": products,
        "compiled": compiled(data, contract).as_dict(),
        "bytes": data.nbytes,
        "seconds": round(seconds, 1),
    }


def _capabilities(trt: Any, flavour: Flavour, options: BuildOptions) -> tuple[str, ...]:
    """What the engine will be for. Empty: all that TensorRT-RTX supports; also for a GPU that it has no name for."""
    gpu = local_gpu()
    if flavour == "tensorrt":
        if options.capabilities is not None:
            expected = "none for tensorrt, which builds for its own GPU"
            raise UserError("compute capabilities", expected=expected, found=", ".join(options.capabilities))
        if gpu is None:
            fix = f"build with engine.backend tensorrt-rtx, which needs none, or {ON_A_CPU}"
            raise CoolsdError("building with TensorRT", expected="the NVIDIA GPU to build for", found="none", fix=fix)
        return (gpu.capability,)
    if options.capabilities is not None:
        return options.capabilities
    return (gpu.capability,) if gpu and gpu.capability in _targets(trt) else ()


def _targets(trt: Any) -> dict[str, Any]:
    """TensorRT-RTX's targets by compute capability: `8.9` is SM89."""
    members = trt.ComputeCapability.__members__
    return {f"{name[2:-1]}.{name[-1]}": aim for name, aim in members.items() if name.startswith("SM")}


def _config(
    trt: Any, parsed: Parsed, contract: GraphContract, profiles: Sequence[Profile], options: BuildOptions
) -> Any:
    config = parsed.builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 in a graph is float32: TF32 would be on
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.level is not None:
        config.builder_optimization_level = options.level
    for profile in profiles:
        made = parsed.builder.create_optimization_profile()
        for spec in contract.inputs:
            made.set_shape(spec.name, *profile.shapes(spec))
        if config.add_optimization_profile(made) < 0:
            raise CoolsdError(
                f"profile {profile.name}", expected="one that TensorRT takes", found=str(profile.as_dict())
            )
    return config


def _aim(trt: Any, config: Any, capabilities: tuple[str, ...]) -> None:
    """Set TensorRT-RTX's targets. Raises UserError: one that it does not know."""
    known = _targets(trt)
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        if capability not in known or not config.set_compute_capability(known[capability], index):
            raise UserError("compute capabilities", expected=f"some of {', '.join(known)}", found=capability)


def _serialise(
    trt: Any, log: Log, parsed: Parsed, config: Any, name: str, options: BuildOptions, on_progress: OnProgress | None
) -> memoryview:
    """Run the builder; its memory, unread."""
    monitor = _monitor(trt, on_progress)
    config.progress_monitor = monitor
    with _timing(trt, config, options.timing_cache):
        memory = _interruptible(lambda: parsed.builder.build_serialized_network(parsed.network, config), monitor)
    if monitor.error is not None:
        raise monitor.error
    if memory is None:
        raise CoolsdError(f"graph {name}", expected="an engine from TensorRT", found=reason(log))
    return memoryview(memory)


def _monitor(trt: Any, on_progress: OnProgress | None) -> Any:
    """Passes the builder's steps on, and tells it when to stop."""

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stop = False
            self.error: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = int(num_steps)

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            # An exception must not cross TensorRT's own frames.
            try:
                if on_progress is not None and not self.stop:
                    on_progress(phase_name, int(step) + 1, self._steps.get(phase_name, 0))
            except BaseException as error:
                self.error, self.stop = error, True
            return not self.stop

    return _Monitor()


def _interruptible(work: Callable[[], Any], monitor: Any) -> Any:
    """`work()` in a thread. An interrupt here stops the builder at its next step, is waited for, and goes on up."""
    done, result, errors = threading.Event(), [], []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="tensorrt-build", daemon=True).start()
    try:
        while not done.wait(_TICK):
            pass
    except BaseException:
        monitor.stop = True
        while not done.wait(_TICK):
            pass
        raise
    if errors:
        raise errors[0]
    return result[0]


@contextlib.contextmanager
def _timing(trt: Any, config: Any, path: Path | None) -> Iterator[None]:
    """Tactics' times from a file and back into it, merged under a lock with what other builds found meanwhile."""
    if path is None or "rtx" in trt.__name__:
        yield
        return
    config.set_timing_cache(config.create_timing_cache(_read(path)), False)
    yield
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        ours = config.get_timing_cache()
        ours.combine(config.create_timing_cache(_read(path)), True)
        write_atomic(path, bytes(memoryview(ours.serialize())))


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
