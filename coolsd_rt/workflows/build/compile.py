"""The build stage that compiles a graph to a TensorRT engine.

Knows the graphs of a build and the compiler. Does not know caching or the requests that the engine will serve.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, cast

import onnx

from coolsd_rt.backends import Description
from coolsd_rt.backends.tensorrt.build import BuildOptions, SourceGraph, build_engine, check_heads
from coolsd_rt.backends.tensorrt.engine import FILE
from coolsd_rt.backends.tensorrt.loaders import loaders
from coolsd_rt.backends.tensorrt.memory import Estimate, check_memory
from coolsd_rt.backends.tensorrt.package import ON_A_CPU, Flavour, local_gpu, package
from coolsd_rt.backends.tensorrt.profiles import ProfileSizes, profiles
from coolsd_rt.errors import CoolsdError, MissingExtra
from coolsd_rt.export.tensorrt_graph import for_tensorrt
from coolsd_rt.spec import LoadedSpec, Spec
from coolsd_rt.store.weights import check_safetensors

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
ALWAYS_FP32 = ("image",)  # runs once per image, so its speed matters little


def check_fits(loaded: LoadedSpec, description: Description) -> Estimate | None:
    """Estimate the GPU memory that the engine will need, before anything is built.

    Returns None if this machine has no GPU.

    Raises:
        CoolsdError: the engine would not fit (the message names a batch size or precision that would), or TensorRT has
            no GPU to build for.
        UserError: TensorRT has no attention kernels for this head width.
        MissingExtra: the compiler's package or polygraphy is not installed.
    """
    engine = loaded.spec.engine
    chosen = package(engine.backend)
    if not chosen.installed:
        raise MissingExtra(chosen.module, engine.backend, "compiling an engine")
    loaders(cast(Flavour, engine.backend))
    for name, record in description.graphs.items():
        check_heads(cast(Flavour, engine.backend), record.contract, engine.precision, name)
    gpu = local_gpu()
    if gpu is None and engine.backend == "tensorrt":
        fix = f"build with engine.backend tensorrt-rtx, which needs none, or {ON_A_CPU}"
        raise CoolsdError("building with TensorRT", expected="an NVIDIA GPU to build for", found="none", fix=fix)
    if gpu is None:
        return None
    files = [path for key, path in loaded.files.items() if key.endswith(".weights")]
    numbers = sum(prod(t.shape) for path in files for t in check_safetensors(path).tensors.values())
    sizes = ProfileSizes.of(description.dims, description.draft_length, engine.max_batch)
    contracts = [record.contract for record in description.graphs.values()]
    return check_memory(numbers * _BYTES[engine.precision], contracts, sizes, gpu.memory)


def compile_graph(
    name: str,
    source: Path,
    folder: Path,
    spec: Spec,
    description: Description,
    on_progress: Callable[[str, int, int], None],
    times: Path,
) -> dict[str, Any]:
    """Compile the ONNX file `source` to `<folder>/<name>.engine`. Returns facts for the manifest.

    times: folder of timing caches, shared by all builds.
    Raises CoolsdError if TensorRT rejects the graph or needs a GPU and finds none, MissingExtra if its package is
    missing.
    """
    contract = description.graphs[name].contract
    sizes = ProfileSizes.of(description.dims, description.draft_length, spec.engine.max_batch)
    # External weights stay in their file: TensorRT reads them there, and a protobuf message is limited to 2 GB.
    graph = for_tensorrt(onnx.load(str(source), load_external_data=False), {"T": sizes.capacity}, name=name)
    precision = "fp32" if name in ALWAYS_FP32 else spec.engine.precision
    gpu = local_gpu()  # timings are valid for one compute capability only
    options = BuildOptions(timing_cache=times / (gpu.capability if gpu else "any"))
    built = build_engine(
        SourceGraph(name, graph.SerializeToString(), contract, precision, beside=source),
        profiles(contract, sizes),
        flavour=cast(Flavour, spec.engine.backend),
        options=options,
        on_progress=on_progress,
    )
    (folder / FILE.format(name)).write_bytes(built.data)
    return {name: built.facts.as_dict()}
