"""An engine that steps, from checked files: ONNX Runtime, and eager PyTorch as the reference.

Knows which backend runs what. Does not know the loop's maths. Importing this package imports no backend.
"""

from coolsd_rt.backends.description import Description, GraphRecord
from coolsd_rt.backends.registry import Backend, LoadOptions, backends, load, register

__all__ = ["Backend", "Description", "GraphRecord", "LoadOptions", "backends", "load", "register"]
