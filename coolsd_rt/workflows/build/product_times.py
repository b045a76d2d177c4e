"""Times of int8 products in both forms on this machine: process CPU time of one thread, the forms in turns.

A session multiplies as many matrices of one shape as the network has (up to a limit), so that weights come from memory
as they do in a step. The matrices are written by the exporter's own code. Knows ONNX Runtime sessions and a clock. Does
not know networks, nor what a choice is used for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import onnx
from onnx import helper

from coolsd_rt.backends.onnxruntime.graph import session_options
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.captured import native_words
from coolsd_rt.export.check import OPSET
from coolsd_rt.export.external import Outline, Weight, fill, placeholder
from coolsd_rt.export.quantize import quantize
from coolsd_rt.export.rowwise import quantize_rowwise
from coolsd_rt.workflows.build.forms import Form

with native_words([]):
    import onnxruntime as ort

MARGIN = 1.05
"""How many times faster than by blocks the row-wise form has to be: less is within the noise of a busy machine."""
NARROW_LOSS = 1.10
"""How many times slower than by blocks a row-wise product of the narrowest step may be: in an engine of several threads
its operators cost more than they do here, one thread alone."""
TURNS = 15
_LEAST_NS = 1_000_000  # of one measurement: shorter products are repeated within it
_MOST_REPEATS = 20
_NUMBERS = 24 << 20  # of all matrices of a session

Clock = Callable[[], int]
"""Nanoseconds."""


@dataclass(frozen=True)
class MatrixShape:
    """[rows, columns], `count` times in the graphs of a stage, multiplied with each of `widths` rows of activations."""

    rows: int
    columns: int
    count: int
    widths: tuple[int, ...]


@dataclass(frozen=True)
class ProductTimes:
    """Milliseconds of one matrix's product in each form, one number a width."""

    block: tuple[float, ...]
    rowwise: tuple[float, ...]

    @property
    def faster(self) -> Form:
        """The form to take: row-wise if it is faster by the margin over one step of each width, and not much slower in
        the narrowest, which plain decoding takes for every token."""
        wins = sum(self.block) > MARGIN * sum(self.rowwise) and self.rowwise[0] <= NARROW_LOSS * self.block[0]
        return "rowwise" if wins else "block"

    def as_dict(self) -> dict[str, list[float]]:
        """JSON data."""
        return {form: [float(f"{ms:.4g}") for ms in getattr(self, form)] for form in ("block", "rowwise")}


def measure(shape: MatrixShape, unsigned: bool = False, clock: Clock = time.process_time_ns) -> ProductTimes:
    """Times of a shape in both forms. unsigned: as in `quantize_rowwise`."""
    copies = max(1, min(shape.count, _NUMBERS // (shape.rows * shape.columns)))
    calls = {
        "block": _call(shape, copies, lambda outline: quantize(outline)),
        "rowwise": _call(shape, copies, lambda outline: quantize_rowwise(outline, _names(copies), unsigned=unsigned)),
    }
    medians = [_in_turns(calls, _given(shape, copies, width), clock) for width in shape.widths]
    block, rowwise = (tuple(m[form] / copies / 1e6 for m in medians) for form in ("block", "rowwise"))
    return ProductTimes(block, rowwise)


def _in_turns(
    calls: Mapping[str, Callable[..., object]], given: Mapping[str, object], clock: Clock
) -> dict[str, float]:
    """Median nanoseconds of each call. They take turns, since a machine's speed changes while they run."""
    repeats = 1
    for call in calls.values():
        call(given)  # the first call binds memory
        start = clock()
        call(given)
        repeats = max(repeats, min(_MOST_REPEATS, _LEAST_NS // max(1, clock() - start)))
    samples: dict[str, list[float]] = {form: [] for form in calls}
    for _ in range(TURNS):
        for form, call in calls.items():
            start = clock()
            for _ in range(repeats):
                call(given)
            samples[form].append((clock() - start) / repeats)
    return {form: median(values) for form, values in samples.items()}


def _names(copies: int) -> Sequence[str]:
    return [f"w{i}" for i in range(copies)]


def _given(shape: MatrixShape, copies: int, width: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, width, shape.rows)).astype(np.float32)
    return {f"x{i}": x for i in range(copies)}


def _call(
    shape: MatrixShape, copies: int, quantized: Callable[[Outline], object]
) -> Callable[[Mapping[str, object]], object]:
    """A session of `copies` products, each of an input and a matrix of its own, as a function of its inputs."""
    size = (shape.rows, shape.columns)
    matrix = (np.random.default_rng(0).standard_normal(size) * 0.02).astype(np.float32)
    kind, nodes, inputs, outputs = onnx.TensorProto.FLOAT, [], [], []
    for i, name in enumerate(_names(copies)):
        nodes.append(helper.make_node("MatMul", [f"x{i}", name], [f"y{i}"]))
        inputs.append(helper.make_tensor_value_info(f"x{i}", kind, ["R", "S", shape.rows]))
        outputs.append(helper.make_tensor_value_info(f"y{i}", kind, ["R", "S", shape.columns]))
    holes = [placeholder(name, kind, size) for name in _names(copies)]
    graph = helper.make_graph(nodes, "products", inputs, outputs, holes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    outline = Outline(model, {name: Weight(lambda: (matrix,)) for name in _names(copies)})
    quantized(outline)
    fill(outline)
    options = session_options(LoadOptions(threads=1, spinning=False))
    with native_words([]):
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)
