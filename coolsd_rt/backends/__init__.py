"""Load an engine from verified files on one of the backends: ONNX Runtime, PyTorch, TensorRT or TensorRT-RTX.

Knows the backends by name. Does not know the mathematics of the loop. Importing this package imports no backend.
"""

from coolsd_rt.backends.description import Description, GraphRecord
from coolsd_rt.backends.registry import Backend, LoadOptions, backends, load, register

__all__ = ["Backend", "Description", "GraphRecord", "LoadOptions", "backends", "load", "register"]
