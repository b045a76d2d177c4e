"""What the TensorRT plugins hand over, with a stand-in for `tensorrt.plugin` that is as strict as its documentation."""

from __future__ import annotations

import inspect
import math
import os
import re
import subprocess
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from coolsd_rt.errors import CoolsdError, MissingExtra  # noqa: E402
from tools.gpu import plugin  # noqa: E402
from tools.gpu.offline_ops import SIGNATURES, Kernel  # noqa: E402

# TensorRT's names for what the kernels point to; float64 travels as int64.
NAMES = {"*fp32": "FP32", "*i64": "INT64", "*fp64": "INT64", "*i1": "BOOL", "*i32": "INT32"}


class Shape(tuple[int, ...]):
    def numel(self) -> int:
        return math.prod(self)


class TensorDesc:
    def __init__(self, shape: tuple[int, ...], dtype: str = "") -> None:
        self.shape_expr, self.dtype = Shape(shape), dtype


class KernelLaunchParams:
    grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_mem = 1, 1, 1, 1, 1, 1, 0


class SymInt32(int):
    pass


class SymExprs(list[Any]):
    pass


class SymIntExprs(SymExprs):
    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class AutoTuneCombination:
    def __init__(self, io_types: str, layouts: str) -> None:
        self.types, self.layouts = io_types.split(", "), layouts


class Stand:
    """Registered functions by name, checked as TensorRT checks them: types for annotations, one order of parameters."""

    def __init__(self) -> None:
        self.described: dict[str, Callable[..., Any]] = {}
        self.tuned: dict[str, Callable[..., Any]] = {}
        self.built: dict[str, Callable[..., Any]] = {}

    def tensors(self, name: str) -> list[str]:
        parameters = inspect.signature(self.described[name]).parameters
        return [key for key, value in parameters.items() if value.annotation is TensorDesc]

    def register(self, name: str) -> Callable[[Any], Any]:
        def take(function: Any) -> Any:
            signature = inspect.signature(function)
            kinds = [value.annotation for value in signature.parameters.values()]
            assert all(kind in (TensorDesc, int, float, str, bool, bytes) for kind in kinds)
            assert kinds == sorted(kinds, key=lambda kind: kind is not TensorDesc)  # tensors first
            assert all(value.default is inspect.Parameter.empty for value in signature.parameters.values())
            returned = signature.return_annotation
            assert returned is TensorDesc or set(typing.get_args(returned)) == {TensorDesc}
            self.described[name] = function
            return function

        return take

    def autotune(self, name: str) -> Callable[[Any], Any]:
        def take(function: Any) -> Any:
            assert list(inspect.signature(function).parameters) == [*self.tensors(name), "outputs"]
            self.tuned[name] = function
            return function

        return take

    def aot_impl(self, name: str) -> Callable[[Any], Any]:
        def take(function: Any) -> Any:
            signature = inspect.signature(function)
            expected = [*inspect.signature(self.described[name]).parameters, "outputs", "tactic"]
            assert list(signature.parameters) == expected
            assert typing.get_origin(signature.parameters["outputs"].annotation) is tuple
            parts = typing.get_args(signature.return_annotation)
            assert set(typing.get_args(parts[0])) == set(typing.get_args(parts[1])) == {str, bytes}
            assert parts[2:] == (KernelLaunchParams, SymExprs)
            self.built[name] = function
            return function

        return take


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    stand = Stand()
    module, sub = types.ModuleType("tensorrt"), types.ModuleType("tensorrt.plugin")
    for dtype in ("float32", "int32", "int64", "bool"):
        setattr(module, dtype, dtype)
    parts = (TensorDesc, KernelLaunchParams, SymInt32, SymExprs, SymIntExprs, AutoTuneCombination)
    for part in (*parts, stand.register, stand.autotune, stand.aot_impl):
        setattr(sub, part.__name__, part)
    sub.__dict__["from_shape_expr"] = TensorDesc
    module.__dict__["plugin"] = sub
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", sub)
    plugin.register()
    return stand


def entry(ptx: str) -> list[str]:
    """The types of the entry point's parameters."""
    head = ptx[ptx.index(".entry") : ptx.index("{", ptx.index(".entry"))]
    return re.findall(r"\.param \.(\w+)", head)


def assemble(ptx: str, arch: int, folder: Path) -> None:
    tool = (triton.knobs.nvidia.ptxas if arch < 100 else triton.knobs.nvidia.ptxas_blackwell).path
    (folder / "kernel.ptx").write_text(ptx)
    subprocess.run([tool, f"-arch=sm_{arch}a", folder / "kernel.ptx", "-o", folder / "kernel.cubin"], check=True)


def test_verify(stand: Stand, tmp_path: Path) -> None:
    images, length, vocab = 4, 5, 1024
    shapes = [(images, length + 1, vocab), (images, length, vocab), (images, length), (images,), (length,)]
    shapes += [(images, length), (images, length + 1), (images, length)]
    inputs = [TensorDesc(shape) for shape in shapes]
    attributes = ("optimal", vocab, length, 90)
    outputs = stand.described["coolsd::verify"](*inputs, *attributes)
    assert [(desc.shape_expr, desc.dtype) for desc in outputs] == [
        ((images,), kind) for kind in ("int64", "int64", "bool", "int32")
    ]
    name, ptx, launch, extra = stand.built["coolsd::verify"](*inputs, *attributes, outputs, 0)
    assert ".version 8.7" in ptx
    assert f".entry {name}(" in ptx
    assert entry(ptx) == ["u64"] * 8 + ["u32"] + ["u64"] * 4
    assert extra == [length]
    assert isinstance(extra[0], SymInt32)
    assert (launch.grid_x, launch.grid_y, launch.grid_z) == (images, 1, 1)
    assert f".reqntid {launch.block_x}" in ptx
    assert 0 < launch.shared_mem <= 48 * 1024
    assemble(ptx, 90, tmp_path)


def test_process_logits(stand: Stand, tmp_path: Path) -> None:
    inputs = [TensorDesc((8, 6, 1000)), TensorDesc((4, 6))]
    attributes = (0.9, 100, 0.95, 1000, 120)
    probs = stand.described["coolsd::process_logits"](*inputs, *attributes)
    assert (probs.shape_expr, probs.dtype) == ((4, 6, 1000), "float32")
    _, ptx, launch, extra = stand.built["coolsd::process_logits"](*inputs, *attributes, (probs,), 0)
    assert entry(ptx) == ["u64"] * 3
    assert extra == []
    assert launch.grid_x == 24
    assemble(ptx, 120, tmp_path)


@pytest.mark.parametrize(
    ("name", "kernel", "left_out"),
    [
        ("coolsd::verify", "verify", {"rates", "L"}),
        ("coolsd::process_logits", "process_logits", {"forced", "u", "tokens", "temperature", "top_k", "top_p"}),
    ],
)
def test_parameters_are_the_kernels(stand: Stand, name: str, kernel: Kernel, left_out: set[str]) -> None:
    """Inputs by name and order, and all types, are what the kernel has."""
    wanted = {key: kind for key, kind in SIGNATURES[kernel].items() if key not in left_out}
    inputs = [key.replace("omega_bits", "omegas") for key in stand.tensors(name)]
    assert inputs == list(wanted)[: len(inputs)]
    (combination,) = stand.tuned[name](*inputs, outputs=())
    assert combination.types == [NAMES[kind] for kind in wanted.values()]
    assert combination.layouts == "LINEAR"


def test_scratch_in_use_is_refused() -> None:
    ptx = ".entry k(\n\t.param .u64 k_param_0,\n\t.param .u64 k_param_1,\n\t.param .u64 k_param_2\n)\n{ USE }"
    assert plugin.without_scratch(ptx) == ".entry k(\n\t.param .u64 k_param_0\n)\n{ USE }"
    with pytest.raises(CoolsdError, match="k_param_1"):
        plugin.without_scratch(ptx.replace("USE", "ld.param.b64 %rd1, [k_param_1];"))


def test_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtra, match="tensorrt"):
        plugin.register()
