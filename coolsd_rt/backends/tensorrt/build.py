"""Compile an ONNX graph of the contract with a fixed T to a serialised TensorRT engine, and record facts about it.

Knows TensorRT's builder. Does not know where an engine is stored, nor which model it is. TensorRT-RTX builds on any
machine, by default for all GPUs it supports; TensorRT needs the GPU it builds for, and its path through this module has
only been tested with TensorRT-RTX.

Nothing is written before the whole engine exists, so an interrupted build leaves nothing behind. The builder runs in a
separate thread: an interrupt reaches Python at once, and the builder stops at its next step.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coolsd_rt.backends.tensorrt.facts import Facts
from coolsd_rt.backends.tensorrt.inspect import Layers, check_layers, compiled, read_layers
from coolsd_rt.backends.tensorrt.loaders import loaders, refused
from coolsd_rt.backends.tensorrt.log import Log, make_log, native_words, reason
from coolsd_rt.backends.tensorrt.network import Parsed, parse, tune_attention
from coolsd_rt.backends.tensorrt.package import ON_A_CPU, Flavour, Package, local_gpu
from coolsd_rt.backends.tensorrt.profiles import Profile
from coolsd_rt.contract import GraphContract
from coolsd_rt.errors import CoolsdError, UserError

OnProgress = Callable[[str, int, int], None]  # phase of the builder, finished steps, all steps
HEAD = 8
_TICK = 0.1  # seconds between two checks for an interrupt


@dataclass(frozen=True)
class BuildOptions:
    """Settings of the builder; they do not change what is built.

    capabilities: compute capabilities such as `8.9` to build for (TensorRT-RTX only); None: the local GPU, or every
    supported one if there is none.
    workspace: bytes of scratch memory that an engine may use; None: TensorRT's limit.
    timing_cache: a file that builds share (TensorRT only; TensorRT-RTX times nothing).
    level: optimisation level, 0 (fast build) to 5.
    """

    capabilities: tuple[str, ...] | None = None
    workspace: int | None = None
    timing_cache: Path | None = None
    level: int | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine in TensorRT's memory. Write `data` with `open(path, "wb").write`, without a copy."""

    data: memoryview
    facts: Facts


@dataclass(frozen=True)
class SourceGraph:
    """An ONNX graph of the contract to compile.

    data: bytes, or the path of a file whose weights lie beside it. beside: path of a graph file in whose folder the
    weights are that `data`, given as bytes, names. precision: of the graph's tensors, as in a spec.
    """

    name: str
    data: bytes | Path
    contract: GraphContract
    precision: str
    beside: Path | None = None


@dataclass(frozen=True)
class _Build:
    """Parts of TensorRT that the steps of one build share."""

    trt: Any
    log: Log
    flavour: Flavour
    options: BuildOptions
    monitor: Any


def build_engine(
    graph: SourceGraph,
    profiles: Sequence[Profile],
    *,
    flavour: Flavour,
    options: BuildOptions | None = None,
    on_progress: OnProgress | None = None,
) -> BuiltEngine:
    """Parse a graph, check its layers, and build its engine for the shapes of `profiles`.

    on_progress is called in another thread; what it raises ends the build and is raised here.

    Raises:
        MissingExtra: the package is not installed.
        UserError: a compute capability that the package does not know.
        CoolsdError: no GPU where one is needed; a node that TensorRT does not accept; layers that do not match the
            contract; a failed build. One line each, with TensorRT's reason.
        KeyboardInterrupt: after the builder has stopped.
    """
    options, trt = options or BuildOptions(), Package(flavour).load()
    contract, precision = graph.contract, graph.precision
    check_heads(flavour, contract, precision, graph.name)
    log = make_log(trt)
    begun = time.perf_counter()
    with native_words(log):
        capabilities = _capabilities(trt, flavour, options)
        parsed = parse(trt, log, graph.data, graph.name, graph.beside)
        products = tune_attention(trt, parsed.network)
        layers = read_layers(trt, parsed.network)
        capacity = profiles[0].fixed.get("T", 0)
        check_layers(layers, contract, capacity, precision, name=f"graph {graph.name}")
        build = _Build(trt, log, flavour, options, _monitor(trt, on_progress))
        config = _config(build, parsed, contract, profiles, capabilities)
        data = _serialise(build, parsed, config, graph.name)
    details = _details(layers, contract, data, products, time.perf_counter() - begun)
    facts = Facts(flavour, str(trt.__version__), capabilities, precision, capacity, tuple(profiles), details)
    return BuiltEngine(data, facts)


def check_heads(flavour: Flavour, contract: GraphContract, precision: str, name: str) -> None:
    """Raise UserError for head widths without kernels: TensorRT-RTX 1.7.1 fails on them with an internal error."""
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
    """Return the compute capabilities to build for; empty: all that TensorRT-RTX supports.

    It is also empty for a local GPU that TensorRT-RTX does not list.
    """
    gpu = local_gpu()
    if flavour == "tensorrt":
        if options.capabilities is not None:
            expected = "none for tensorrt, which builds for its own GPU"
            raise UserError("compute capabilities", expected=expected, found=", ".join(options.capabilities))
        if gpu is None:
            fix = f"build with engine.backend tensorrt-rtx, which needs none, or {ON_A_CPU}"
            raise CoolsdError("building with TensorRT", expected="an NVIDIA GPU to build for", found="none", fix=fix)
        return (gpu.capability,)
    if options.capabilities is not None:
        return options.capabilities
    return (gpu.capability,) if gpu and gpu.capability in _targets(trt) else ()


def _targets(trt: Any) -> dict[str, Any]:
    """Return TensorRT-RTX's targets by compute capability: `8.9` is SM89."""
    members = trt.ComputeCapability.__members__
    return {f"{name[2:-1]}.{name[-1]}": aim for name, aim in members.items() if name.startswith("SM")}


def _config(
    build: _Build,
    parsed: Parsed,
    contract: GraphContract,
    profiles: Sequence[Profile],
    capabilities: tuple[str, ...],
) -> Any:
    """Return the builder's config. Raises UserError: an unknown compute capability; CoolsdError: a refused profile."""
    trt, options, known = build.trt, build.options, loaders(build.flavour)
    wanted = [known.profile() for _ in profiles]
    for made, profile in zip(wanted, profiles, strict=True):
        for spec in contract.inputs:
            made.add(spec.name, *profile.shapes(spec))
    pools = None if options.workspace is None else {trt.MemoryPoolType.WORKSPACE: options.workspace}
    own = {"compute_capabilities": _aims(trt, capabilities)} if build.flavour == "tensorrt-rtx" else {"tf32": False}
    create = known.config(
        profiles=wanted,
        memory_pool_limits=pools,
        builder_optimization_level=options.level,
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
        progress_monitor=build.monitor,
        load_timing_cache=_times(build.flavour, options),
        **own,
    )
    try:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # TensorRT-RTX times nothing
            config = create(parsed.builder, parsed.network)
    except Exception as error:
        if not refused(error):
            raise
        found = f"{reason(build.log)} ({', '.join(profile.name for profile in profiles)})"
        raise CoolsdError("profiles", expected="profiles that TensorRT accepts", found=found) from error
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 stays float32: TensorRT-RTX enables TF32 by default
    return config


def _aims(trt: Any, capabilities: tuple[str, ...]) -> list[tuple[int, int]] | None:
    """Return TensorRT-RTX's targets; None: all. Raises UserError: a capability that it does not know."""
    known = _targets(trt)
    if odd := [capability for capability in capabilities if capability not in known]:
        raise UserError("compute capabilities", expected=f"only {', '.join(known)}", found=odd[0])
    pairs = [capability.split(".") for capability in capabilities]
    return [(int(major), int(minor)) for major, minor in pairs] or None


def _times(flavour: Flavour, options: BuildOptions) -> str | None:
    """Return the timing cache file, which is loaded before a build and merged into, under a lock, after it.

    It is not written atomically: timings lost when the process is killed are measured again.
    """
    if options.timing_cache is None or flavour == "tensorrt-rtx":
        return None
    options.timing_cache.parent.mkdir(parents=True, exist_ok=True)
    return str(options.timing_cache)


def _serialise(build: _Build, parsed: Parsed, config: Any, name: str) -> memoryview:
    """Run the builder and return the engine in the builder's memory."""
    known, monitor = loaders(build.flavour), build.monitor
    network = (parsed.builder, parsed.network)
    run = known.engine(network, config=config, save_timing_cache=_times(build.flavour, build.options))
    try:
        memory = _interruptible(run, monitor)
    except Exception as error:
        if monitor.error is not None:
            raise monitor.error from None
        if not refused(error):
            raise
        raise CoolsdError(f"graph {name}", expected="an engine from TensorRT", found=reason(build.log)) from error
    if monitor.error is not None:
        raise monitor.error
    return memoryview(memory)


def _monitor(trt: Any, on_progress: OnProgress | None) -> Any:
    """Return a progress monitor that reports the builder's steps and can stop it."""

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
            # An exception must not cross TensorRT's native frames.
            try:
                if on_progress is not None and not self.stop:
                    on_progress(phase_name, int(step) + 1, self._steps.get(phase_name, 0))
            except BaseException as error:
                self.error, self.stop = error, True
            return not self.stop

    return _Monitor()


def _interruptible(work: Callable[[], Any], monitor: Any) -> Any:
    """Run `work()` in a thread. On an interrupt, stop the builder at its next step, wait for it, and raise."""
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
