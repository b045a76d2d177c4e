"""The installed TensorRT package (`tensorrt` or `tensorrt_rtx`), its version, and the GPU it would run on.

Knows module names, extras and devices. Does not know graphs or engines. Nothing is imported before it is needed. Errors
that a driver reports could not be tested: the development machine had no driver.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast, get_args

from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.install import install_line

Flavour = Literal["tensorrt", "tensorrt-rtx"]
# Advice in errors where a GPU is missing.
ON_A_CPU = (
    "use a machine with an NVIDIA GPU, or build with engine.backend onnxruntime, which runs on a CPU in fp32 and int8"
)
_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@dataclass(frozen=True)
class Package:
    """One of the two packages, installed or not."""

    flavour: Flavour

    @property
    def module(self) -> str:
        """Import name of the package."""
        return _MODULES[self.flavour]

    @property
    def installed(self) -> bool:
        """Whether the package is installed."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Version string of the package, e.g. `1.7.1.116`. Raises as `load`."""
        return str(self.load().__version__)

    def load(self) -> ModuleType:
        """Import the package.

        Raises:
            MissingExtra: it is not installed.
            CoolsdError: it is installed, but its libraries cannot be loaded.
        """
        if not self.installed:
            raise MissingExtra(self.module, self.flavour, f"the backend {self.flavour}")
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError, RuntimeError) as error:
            found = (str(error).strip().splitlines() or [type(error).__name__])[0]
            fix = f"install it again: {install_line(self.flavour)}"
            raise CoolsdError(
                f"the package {self.module}", expected="a package that loads", found=found, fix=fix
            ) from error


def package(flavour: str) -> Package:
    """Return the package for a backend's name. Raises UserError for any other name."""
    if flavour not in get_args(Flavour):
        raise UserError("a TensorRT backend", expected=f"one of {', '.join(get_args(Flavour))}", found=flavour)
    return Package(cast(Flavour, flavour))


@dataclass(frozen=True)
class Gpu:
    """The GPU that torch would use. capability: such as `9.0`; memory: free bytes."""

    name: str
    capability: str
    memory: int


def local_gpu(torch: Any = None) -> Gpu | None:
    """Return the GPU of this machine; None if torch sees none. `torch` is for tests."""
    torch = torch or _torch()
    if torch is None or not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return Gpu(torch.cuda.get_device_name(), f"{major}.{minor}", int(torch.cuda.mem_get_info()[0]))


def require_gpu(torch: Any = None, what: str = "running a TensorRT engine") -> Gpu:
    """Return the GPU of this machine. what: the action that needs it, for the error.

    Raises CoolsdError, which says why there is no GPU: no torch, a torch without CUDA, no driver or one that is too
    old.
    """
    torch = torch or _torch()
    if (gpu := local_gpu(torch)) is not None:
        return gpu
    if torch is None:
        found = "no torch to access one with"
    elif torch.version.cuda is None:
        found = f"torch {torch.__version__}, which was built without CUDA"
    else:
        found = f"none that torch for CUDA {torch.version.cuda} can use (no GPU, or a driver that is too old)"
    raise CoolsdError(what, expected="an NVIDIA GPU", found=found, fix=ON_A_CPU)


def _torch() -> ModuleType | None:
    return importlib.import_module("torch") if importlib.util.find_spec("torch") else None
