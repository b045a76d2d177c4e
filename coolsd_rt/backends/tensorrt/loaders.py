"""polygraphy's loaders for one of the two TensorRT packages: profiles, a builder's config, the builder's run.

Knows how polygraphy is imported and how it fails. Does not know graphs. polygraphy takes one package for good when it
is imported, by a variable of the environment: so it is imported once a package here, and its own terminal log is off.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from coolsd_rt.backends.tensorrt.package import Flavour
from coolsd_rt.errors import MissingExtra

_CHOICE = "POLYGRAPHY_USE_TENSORRT_RTX"


@dataclass(frozen=True)
class Loaders:
    """Of `polygraphy.backend`: the classes Profile, CreateConfig (or CreateConfigRTX) and EngineBytesFromNetwork."""

    profile: Any
    config: Any
    engine: Any


def refused(error: Exception) -> bool:
    """Whether it is polygraphy's own. By name: it imports the type when it raises, so it may be another copy's."""
    return type(error).__name__ == "PolygraphyException"


@functools.cache
def loaders(flavour: Flavour) -> Loaders:
    """polygraphy for a package. What another part of the process has imported of it stays as it is.

    Raises MissingExtra: it is not installed.
    """
    if importlib.util.find_spec("polygraphy") is None:
        raise MissingExtra("polygraphy", flavour, "compiling an engine")
    rtx = flavour == "tensorrt-rtx"
    with _another_polygraphy(), _variable(_CHOICE, "1" if rtx else "0"):
        backend = importlib.import_module("polygraphy.backend.trt")
        config = importlib.import_module("polygraphy.backend.tensorrt_rtx").CreateConfigRTX if rtx else None
        log = importlib.import_module("polygraphy.logger").G_LOGGER
    log.module_severity = log.CRITICAL + 1  # it raises what is critical; that is said once
    return Loaders(backend.Profile, config or backend.CreateConfig, backend.EngineBytesFromNetwork)


@contextlib.contextmanager
def _another_polygraphy() -> Iterator[None]:
    """Imports inside find none that was imported before, and leave none behind. What polygraphy imports later, in its
    functions, is a further copy."""

    def taken() -> dict[str, Any]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "polygraphy"}

    kept = taken()
    try:
        yield
    finally:
        taken()
        sys.modules.update(kept)


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
