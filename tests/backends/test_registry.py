"""Backends by name: unknown, missing and twice are errors; nothing heavy is imported before it is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from coolsd_rt.backends import Backend, Description, LoadOptions, backends, load, register
from coolsd_rt.backends import registry as module
from coolsd_rt.contract import ModelDims
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError
from coolsd_rt.store import EngineFolder


def test_importing_the_package_imports_no_backend() -> None:
    code = (
        "import sys, coolsd_rt.backends, coolsd_rt.export, coolsd_rt.models; "
        "assert not {'torch', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_names(tiny_engine: EngineFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = tiny_engine.verified()
    with pytest.raises(UserError, match=r"expected one of onnxruntime, .*torch.*, found tensorflow"):
        load(verified, backend="tensorflow")
    with pytest.raises(UserError, match="threads: expected a whole number from 1 to 4096, found 0"):
        load(verified, LoadOptions(threads=0))
    with pytest.raises(CoolsdError, match="backend onnxruntime: expected one of that name"):
        register(backends()["onnxruntime"])
    monkeypatch.setitem(module._BACKENDS, "absent", Backend("absent", "coolsd_rt.nothing", "no_such_package", "gpu"))
    with pytest.raises(MissingExtra, match=r"no_such_package.*pip install .*\[gpu\]"):
        load(verified, backend="absent")


def test_a_description_survives_json() -> None:
    described = Description(ModelDims(32, 64, 2, 2, 32, 3, 16, 1, 2, 32), 3, 8)
    data = json.loads(json.dumps(described.as_dict()))
    assert Description.from_dict(data) == described
    assert data["graphs"]["propose"]["inputs"][5] == {"name": "uniforms", "dtype": "float32", "shape": ["M", 3]}
    with pytest.raises(CoolsdError, match="expected version 4, found 3"):
        Description.from_dict({**data, "version": 3})
    with pytest.raises(CoolsdError, match=r"contract\.side: expected a value, found nothing"):
        Description.from_dict({k: v for k, v in data.items() if k != "side"})
