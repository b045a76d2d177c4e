"""The stage `quantization`: the form of each int8 matrix, measured on this machine and recorded.

Row-wise int8 reads each weight once for all positions of a step; int8 by blocks is faster for some shapes and narrow
steps. The choice is made for each shape of matrix by the time of one step of each width that the spec has. Its key is
made of shapes, widths, processor and tools, and the store keeps the result: building again measures nothing and chooses
the same. Knows graph modules and both forms. Does not know the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from coolsd_rt.backends.onnxruntime.saturation import PRODUCTS_FILE, Error, error_of, largest_error
from coolsd_rt.export.blocks import Matrix
from coolsd_rt.export.graphs import DraftGraph, Head, TargetGraph
from coolsd_rt.export.quantize import block_size
from coolsd_rt.export.row_graph import RowGraph
from coolsd_rt.export.rowwise import product_check
from coolsd_rt.models.decoder import Decoder
from coolsd_rt.models.eagle import Eagle
from coolsd_rt.models.rows import RowHead
from coolsd_rt.workflows.build.code import QUANTIZATION
from coolsd_rt.workflows.build.processor import processor
from coolsd_rt.workflows.build.product_times import MARGIN, MatrixShape, ProductTimes, measure
from coolsd_rt.workflows.build.stages import BuildInputs

ROWS = 2  # of one image: conditional and unconditional
OVERFLOWS = "uint8 by int8 overflows on this processor (no VNNI): row-wise weights are uint8, which is exact"
INEXACT = "products of 8 bits are not exact on this processor: every matrix is by blocks"

Measure = Callable[[MatrixShape, bool], ProductTimes]


def quantization(
    sources: BuildInputs, folder: Path, error: Callable[[bytes], Error] = error_of, timed: Measure = measure
) -> dict[str, Any]:
    """The record of the forms of all matrices; products.onnx where some are row-wise, for a check at each load.

    error, timed: how products are checked and timed.
    """
    exact = {unsigned: not largest_error(error(_check(unsigned))) for unsigned in (False, True)}
    unsigned = not exact[False]
    usable = exact[unsigned]
    asked = sources.quantization if usable else "block"
    matrices = [_chosen(graph, shape, asked, lambda s: timed(s, unsigned)) for graph, shape in _shapes(sources)]
    if any(m["form"] == "rowwise" for m in matrices):
        (folder / PRODUCTS_FILE).write_bytes(_check(unsigned))
    return {
        QUANTIZATION: {
            "asked": sources.quantization,
            "processor": processor(),
            "unsigned": unsigned and usable,
            "note": "" if not unsigned else OVERFLOWS if usable else INEXACT,
            "margin": MARGIN,
            "matrices": matrices,
        }
    }


def _check(unsigned: bool) -> bytes:
    data: bytes = product_check(unsigned).SerializeToString(deterministic=True)
    return data


def _chosen(graph: str, shape: MatrixShape, asked: str, timed: Callable[[MatrixShape], ProductTimes]) -> dict[str, Any]:
    """The record of one shape."""
    record: dict[str, Any] = {"graph": graph, "rows": shape.rows, "columns": shape.columns, "count": shape.count}
    record["widths"] = list(shape.widths)
    if asked != "auto":
        return record | {"form": asked}
    times = timed(shape)
    return record | {"form": times.faster, "milliseconds": times.as_dict()}


def _shapes(sources: BuildInputs) -> Iterator[tuple[str, MatrixShape]]:
    """Every shape of matrix of target and draft, with the rows of activations that their steps have for one image."""
    wide = sources.description.draft_length + 1
    for shape, count in _matrices(TargetGraph(sources.target)).items():
        yield "target", MatrixShape(*shape, count, (ROWS, ROWS * wide))
    if sources.description.dims.draft_kind == "none":
        return
    network = sources.draft
    own = not isinstance(network, Eagle)
    module: nn.Module
    if isinstance(network, Decoder):
        module = TargetGraph(network)
    elif isinstance(network, RowHead):
        module = RowGraph(network, sources.target)
    else:
        module = DraftGraph(network, sources.target)
    # A row head's step has all drafts of a round at once.
    wide_row = ROWS * sources.description.draft_length if isinstance(network, RowHead) else 0
    head = next((m for m in module.modules() if isinstance(m, Head)), None)
    # The graph of all draft steps mixes both rows of guidance before a linear head.
    mixed = head is not None and head.linear and not own and sources.description.propose
    for shape, count in _matrices(module).items():
        one = mixed and head is not None and shape == tuple(head.last.weight.shape)
        yield "draft", MatrixShape(*shape, count, (1 if one else wide_row or ROWS,))


def _matrices(module: nn.Module) -> Counter[tuple[int, int]]:
    """Shapes [K, N] of the matrices that a block divides, and how many there are of each."""
    shapes = (tuple(m.weight.shape) for m in module.modules() if isinstance(m, Matrix))
    return Counter((k, n) for k, n in shapes if block_size(k))
