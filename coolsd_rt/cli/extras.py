"""Optional packages: the extra that installs each package, and the extras that each verb needs.

Knows names. Imports nothing of them. README states the same table; a test runs every verb with these extras and no
other package.
"""

from __future__ import annotations

from coolsd_rt.errors import MissingExtra

EXTRAS = {
    "onnxruntime": "cpu",
    "torch": "build",
    "onnx": "build",
    "onnxscript": "build",
    "onnx_ir": "build",
    "safetensors": "build",
    "fontTools": "train",
    "scipy": "measure",
    "matplotlib": "measure",
    "torchmetrics": "quality",
    "transformers": "clip",
    "accelerate": "train",
    "tensorboard": "train",
    "wandb": "wandb",
    "tokenizers": "tokens",
    "huggingface_hub": "hub",
    "gguf": "gguf",
    "triton": "gpu",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "polygraphy": "tensorrt-rtx",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "h11": "serve",
    "prometheus_client": "serve",
    "pyarrow": "parquet",
    "ray": "ray",
}
"""Import name of an optional package to the extra that brings it, of several the one that is named where no verb is."""

NEEDS: dict[str, tuple[str, ...]] = {
    "build": ("cpu", "build"),
    "generate": ("cpu",),
    "batch": ("cpu",),
    "serve": ("cpu", "serve"),
    "parity": ("cpu", "build"),
    "inspect": (),
    "validate": (),
    "convert": ("build",),
    "precompute": ("text",),
    "doctor": (),
    "bench": ("cpu", "measure"),
    "analyze": ("cpu",),
    "sweep": ("cpu", "quality"),
    "train-draft": ("train",),
    "quality": ("cpu", "quality"),
    "tune": ("cpu", "measure"),
    "schedule": (),
    "schema": (),
}
"""The extras that each verb needs on a CPU, for an engine of the kind that it is usually given."""

_SHARED = {
    "quality": ("matplotlib", "safetensors", "scipy", "torch", "torchmetrics"),
    "train": ("accelerate", "fontTools", "safetensors", "tensorboard", "torch"),
}
"""Extras that bring packages which `EXTRAS` has from another."""


def missing_extra(error: ModuleNotFoundError, verb: str) -> MissingExtra | None:
    """The error for a package that could not be imported, with the extra that `verb` needs; None if no extra has it."""
    package = (error.name or "").split(".")[0]
    if package not in EXTRAS:
        return None
    own = [extra for extra in NEEDS.get(verb, ()) if package in _SHARED.get(extra, ())]
    return MissingExtra(package, own[0] if own else EXTRAS[package], "this command")
