"""The base install has neither torch nor onnx: these rooms import without them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

ROOMS = [
    "arrays",
    "contract",
    "errors",
    "install",
    "telemetry",
    "terminal",
    "spec",
    "store",
    "law",
    "ops",
    "runtime",
    "cli.main",
    "cli.validate",
    "cli.inspect",
    "cli.doctor",
    "cli.schema",
    "cli.generate",
]
BLOCKED = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "safetensors", "scipy", "fontTools")

CODE = """
import importlib, pkgutil, sys
for name in {blocked}: sys.modules[name] = None
module = importlib.import_module("coolsd_rt.{room}")
for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
    if not found.name.startswith("coolsd_rt.ops.gpu"):  # torch's operators: nobody else imports them
        importlib.import_module(found.name)
"""


@pytest.mark.parametrize("room", ROOMS)
def test_imports_without_optional_packages(room: str) -> None:
    if importlib.util.find_spec(f"coolsd_rt.{room}") is None:
        pytest.skip(f"coolsd_rt.{room} is not there")
    code = CODE.format(blocked=BLOCKED, room=room)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
