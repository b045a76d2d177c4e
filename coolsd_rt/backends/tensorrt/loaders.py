"""polygraphy's loaders for one of the two TensorRT packages: profiles, builder config, and the builder's run.

Knows how polygraphy is imported and how it fails. Does not know graphs. When polygraphy is imported, it binds to one
package for good, by an environment variable: so it is imported once per package here, and its log on the terminal is
turned off.
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
    """Classes of `polygraphy.backend`: Profile, CreateConfig (or CreateConfigRTX) and EngineBytesFromNetwork."""

    profile: Any
    config: Any
    engine: Any


def refused(error: Exception) -> bool:
    """Return whether an error is polygraphy's exception.

    It is compared by name: polygraphy imports the type when it raises, so the type may belong to another copy.
    """
    return type(error).__name__ == "PolygraphyException"


@functools.cache
def loaders(flavour: Flavour) -> Loaders:
    """Return polygraphy's loaders for a package. Copies that other code has imported stay unchanged.

    Raises MissingExtra: polygraphy is not installed.
    """
    if importlib.util.find_spec("polygraphy") is None:
        raise MissingExtra("polygraphy", flavour, "compiling an engine")
    rtx = flavour == "tensorrt-rtx"
    with _another_polygraphy(), _variable(_CHOICE, "1" if rtx else "0"):
        backend = importlib.import_module("polygraphy.backend.trt")
        config = importlib.import_module("polygraphy.backend.tensorrt_rtx").CreateConfigRTX if rtx else None
        log = importlib.import_module("polygraphy.logger").G_LOGGER
    log.module_severity = log.CRITICAL + 1  # critical messages are raised too, and reported once
    return Loaders(backend.Profile, config or backend.CreateConfig, backend.EngineBytesFromNetwork)


@contextlib.contextmanager
def _another_polygraphy() -> Iterator[None]:
    """Import a fresh copy of polygraphy inside the context, and restore `sys.modules` afterwards.

    polygraphy's functions import further modules when they run; these belong to yet another copy.
    """

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
