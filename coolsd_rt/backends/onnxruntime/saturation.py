"""Whether this machine multiplies uint8 by int8 exactly: asked of ONNX Runtime's own kernel, with numbers.

x86 processors without VNNI add two such products in 16 bits, and 255 * 127 * 2 does not fit. Row-wise int8 engines have
a graph that multiplies the largest codes in both ways (`export.rowwise.product_check`). Knows sessions and NumPy. Does
not know which forms an engine has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coolsd_rt.backends.onnxruntime.graph import session_options
from coolsd_rt.backends.registry import LoadOptions
from coolsd_rt.captured import native_words
from coolsd_rt.errors import CoolsdError

with native_words([]):  # as in `graph`, which has imported it
    import onnxruntime as ort

PRODUCTS_FILE = "products.onnx"
"""The graph of the check in an engine's folder."""
_SIZE = 256  # numbers of a row that it takes
_ROWS = (1, 2, 12)  # kernels differ by the number of rows

Error = Callable[[NDArray[np.uint8]], float]
"""Codes uint8 [R, 256] to the largest error of their products."""


def error_of(graph: bytes) -> Error:
    """The check of a graph: x uint8 [R, 256] -> error."""
    options = session_options(LoadOptions(threads=1, spinning=False))
    with native_words([]):
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda x: float(session.run(None, {"x": x})[0])


def largest_error(error: Error) -> float:
    """The largest error of products of the largest codes with one, two and twelve rows; 0 where sums are exact."""
    worst = 0.0
    for rows in _ROWS:
        for least in (0, 255):
            x = np.full((rows, _SIZE), 255, np.uint8)
            x[:, ::3] = least
            worst = max(worst, error(x))
    return worst


def check_products(graph: bytes) -> None:
    """Raise CoolsdError if products of this machine are wrong with the weights' type of an engine."""
    if worst := largest_error(error_of(graph)):
        raise CoolsdError(
            "int8 products on this processor",
            expected="exact sums of the row-wise form that the engine was built with",
            found=f"sums up to {worst:g} away: this processor adds uint8 by int8 in 16 bits (it has no VNNI)",
            fix="build the engine on this machine, or with engine.quantization: block",
        )
