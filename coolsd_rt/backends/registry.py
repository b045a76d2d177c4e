"""Backends by the name that a spec gives them; a backend is imported when an engine is loaded.

Knows names, modules and the extra that each needs. Does not know the contents of an engine.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import cast

from coolsd_rt import cores
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.runtime.interface import Engine
from coolsd_rt.store import VerifiedEngine


@dataclass(frozen=True)
class LoadOptions:
    """Settings of how an engine runs; they do not change what it computes.

    threads: threads of each operation; None: the usable cores (`coolsd_rt.cores`). Larger numbers are reduced to these.
    providers: ONNX Runtime providers that must run the graphs, best first; any other provider is an error, not a
    fallback. Empty: the provider of the spec's device.
    spinning: waiting threads keep their core busy during a call (faster on an idle machine, slower on a shared one).
    verbose: the backend's warnings go to stderr.
    later: names of graphs that are loaded when they are first used. ONNX Runtime alone has graphs to load later; other
    backends load all at once.
    """

    threads: int | None = None
    providers: tuple[str, ...] = ()
    spinning: bool = True
    verbose: bool = False
    later: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Backend:
    """Name and location of a backend. Its module has a function `load(verified, options) -> Engine`.

    module: import path of that module.
    package: import name of the library that the backend needs.
    extra: extra of coolsd-rt that installs this library.
    """

    name: str
    module: str
    package: str
    extra: str

    @property
    def installed(self) -> bool:
        """Whether the library that the backend needs is installed."""
        return importlib.util.find_spec(self.package) is not None


_BACKENDS: dict[str, Backend] = {}


def register(backend: Backend) -> None:
    """Add a backend. Raises CoolsdError if the name is taken."""
    if backend.name in _BACKENDS:
        found = f"two: {_BACKENDS[backend.name].module} and {backend.module}"
        raise CoolsdError(f"backend {backend.name}", expected="one of that name", found=found)
    _BACKENDS[backend.name] = backend


def backends() -> MappingProxyType[str, Backend]:
    """Return all backends by name, installed or not."""
    return MappingProxyType(_BACKENDS)


def load(verified: VerifiedEngine, options: LoadOptions | None = None, *, backend: str | None = None) -> Engine:
    """Load an engine whose files were verified, on the backend its spec names (or on `backend`).

    Raises:
        UserError: no backend of that name; a number of threads out of range.
        MissingExtra: the package of the backend is not installed.
        CoolsdError: the backend cannot run this engine, or not on the requested providers.
    """
    options = options or LoadOptions()
    name = backend or str(verified.manifest.spec.get("engine", {}).get("backend", ""))
    if name not in _BACKENDS:
        raise UserError("backend", expected=f"one of {', '.join(sorted(_BACKENDS))}", found=name or "none")
    if options.threads is not None:
        options = replace(options, threads=cores.threads_for(options.threads))
    chosen = _BACKENDS[name]
    if not chosen.installed:
        raise MissingExtra(chosen.package, chosen.extra, "running this engine")
    return cast(Engine, importlib.import_module(chosen.module).load(verified, options))


register(Backend("onnxruntime", "coolsd_rt.backends.onnxruntime.engine", "onnxruntime", "cpu"))
register(Backend("torch", "coolsd_rt.backends.torch.backend", "torch", "build"))
register(Backend("tensorrt", "coolsd_rt.backends.tensorrt.backend", "tensorrt", "tensorrt"))
register(Backend("tensorrt-rtx", "coolsd_rt.backends.tensorrt.backend", "tensorrt_rtx", "tensorrt-rtx"))
