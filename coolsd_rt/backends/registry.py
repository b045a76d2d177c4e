"""Backends by the name a spec gives them, imported when an engine is loaded.

Knows names, modules and the extra each needs. Does not know what is inside an engine.
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
    """How an engine runs, apart from what it computes.

    threads: of each operation; None is the usable cores (`coolsd_rt.cores`), more are brought down to them.
    providers: ONNX Runtime's that have to run the graphs, best first; anything else is an error, not a fallback; none
    is the spec's device. spinning: waiting threads burn their core during a call (faster alone, slower on a shared
    machine). verbose: the backend's own warnings go to stderr.
    """

    threads: int | None = None
    providers: tuple[str, ...] = ()
    spinning: bool = True
    verbose: bool = False


@dataclass(frozen=True)
class Backend:
    """Where a backend lives. Its module has `load(verified, options) -> Engine`."""

    name: str
    module: str
    package: str
    extra: str

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


_BACKENDS: dict[str, Backend] = {}


def register(backend: Backend) -> None:
    """Add a backend. Raises CoolsdError if there is one of that name."""
    if backend.name in _BACKENDS:
        found = f"two: {_BACKENDS[backend.name].module} and {backend.module}"
        raise CoolsdError(f"backend {backend.name}", expected="one of that name", found=found)
    _BACKENDS[backend.name] = backend


def backends() -> MappingProxyType[str, Backend]:
    """All backends, installed or not."""
    return MappingProxyType(_BACKENDS)


def load(verified: VerifiedEngine, options: LoadOptions | None = None, *, backend: str | None = None) -> Engine:
    """An engine whose files were checked, ready to step on the backend its spec names (or on `backend`).

    Raises:
        UserError: no backend of that name; a number of threads out of range.
        MissingExtra: its package is not installed.
        CoolsdError: the backend cannot run this engine, or not on the providers asked for.
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
