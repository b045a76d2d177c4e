"""ONNX Runtime as a backend: an engine's graphs, loaded, and what is run once a request.

It runs on a CPU or with the CUDA provider. Knows files of an engine and graphs. Does not know how steps are run
(`session`). Legend as in `coolsd_rt.contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.arrays import Floats32, Ints
from coolsd_rt.backends.description import DATA, Description, GraphRecord, no_images
from coolsd_rt.backends.onnxruntime.graph import CPU, CUDA, OrtGraph, OrtGraphs
from coolsd_rt.backends.onnxruntime.session import OrtSession
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.contract import ModelDims
from coolsd_rt.spec.engine import EngineOptions
from coolsd_rt.store import VerifiedEngine


def load(verified: VerifiedEngine, options: LoadOptions) -> OrtEngine:
    """Load the graphs of a verified engine, except for those that `options.later` names.

    Raises CoolsdError: a graph does not match its contract; ONNX Runtime cannot run it on the requested providers; the
    engine needs exact products of 8 bits, and this processor's overflow.
    """
    description = Description.from_dict(verified.manifest.contract)
    engine = EngineOptions.model_validate(verified.manifest.spec.get("engine", {}))
    if not options.providers:
        options = replace(options, providers=(CUDA,) if engine.device == "cuda" else (CPU,))
    if engine.precision == "int8":
        from coolsd_rt.backends.onnxruntime.saturation import (  # a start in fp32 does without
            PRODUCTS_FILE,
            check_products,
        )

        if PRODUCTS_FILE in verified.manifest.files:
            check_products(verified.read(PRODUCTS_FILE))
    graphs = OrtGraphs(
        {name: partial(_graph, verified, options, name, record) for name, record in description.graphs.items()}
    )
    for name in graphs:
        if name not in options.later:
            graphs[name]
    return OrtEngine(description, graphs, even_rows=engine.invariant)


def _graph(verified: VerifiedEngine, options: LoadOptions, name: str, record: GraphRecord) -> OrtGraph:
    """Load one graph of an engine."""
    # ONNX Runtime maps weights beside a graph; `path` has checked their hash.
    data = f"{record.file}{DATA}"
    weights = verified.path(data) if data in verified.manifest.files else None
    linked = weights is not None and weights.parent != verified.engine.folder
    return OrtGraph(
        name,
        verified.read(record.file),
        record.contract,
        options,
        verified.engine.folder if weights is not None else None,
        linked={data: weights} if weights is not None and linked else None,
    )


class OrtEngine:
    """`runtime.interface.Engine` on ONNX Runtime. Arrays are NumPy arrays.

    even_rows: whether sessions step an even number of rows. int8 products of an odd number of rows use another kernel
    for the last row, which rounds differently.
    """

    def __init__(self, description: Description, graphs: Mapping[str, OrtGraph], even_rows: bool = False) -> None:
        self._description, self._graphs, self._even_rows = description, graphs, even_rows

    @property
    def dims(self) -> ModelDims:
        """Sizes of the engine."""
        return self._description.dims

    @property
    def draft_length(self) -> int:
        """Draft length of the spec that was built, for which `propose` was compiled."""
        return self._description.draft_length

    def load_graph(self, name: str) -> None:
        """Load a graph now. Raises CoolsdError as `load` does."""
        self._graphs[name]

    def encode_condition(self, condition: Ints | Floats32) -> Floats32:
        """Return the prefix [R, W, C] of a condition: int64 [R, W] ids, or float features."""
        spec = self._graphs["condition"].contract.inputs[0]
        return self._graphs["condition"].call(**{spec.name: np.asarray(condition, spec.dtype)})["prefix"]

    def open(self, prefix: Floats32, capacity: int, start: Ints | None = None) -> OrtSession:
        """Open a session for the rows of `prefix` [R, W, C].

        capacity: largest number of positions in its caches.
        start: int64 [R], the first position of each row that is not padding; None: 0.
        """
        return OrtSession(self._description, self._graphs, prefix, capacity, start, self._even_rows)

    def decode_images(self, codes: Ints) -> NDArray[np.uint8]:
        """Decode codes int64 [M, tokens] to pixels uint8 [M, side, side, 3], one image at a time.

        The image decoder needs the most memory of a generation, and its memory grows with the batch.
        """
        if "image" not in self._graphs:
            raise no_images()
        codes = np.asarray(codes, np.int64)
        pixels = [self._graphs["image"].call(codes=codes[i : i + 1])["pixels"] for i in range(len(codes))]
        return np.concatenate(pixels)
