"""The two packages and the GPU: what is there is said, and what is not is one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from coolsd_rt.backends.tensorrt import package as module
from coolsd_rt.backends.tensorrt.package import Gpu, Package, local_gpu, package, require_gpu
from coolsd_rt.errors import CoolsdError, MissingExtra, UserError


def torch_with(cuda: str | None, there: bool) -> Any:
    gpu = SimpleNamespace(
        is_available=lambda: there,
        get_device_capability=lambda: (9, 0),
        get_device_name=lambda: "Fake H200",
        mem_get_info=lambda: (100, 141),
    )
    return SimpleNamespace(cuda=gpu, version=SimpleNamespace(cuda=cuda), __version__="2.13.0")


def test_names_of_backends_are_those_of_packages() -> None:
    assert package("tensorrt").module == "tensorrt"
    assert package("tensorrt-rtx").module == "tensorrt_rtx"
    with pytest.raises(UserError, match="expected one of tensorrt, tensorrt-rtx, found trt"):
        package("trt")


def test_a_package_that_is_absent_is_an_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._MODULES, "tensorrt", "tensorrt_not_there")
    absent = Package("tensorrt")
    assert not absent.installed
    with pytest.raises(MissingExtra, match=r"tensorrt_not_there.*run: pip install .*\[tensorrt\]"):
        _ = absent.version


def test_a_package_that_cannot_load_its_libraries_is_one_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt_broken.py").write_text("raise ImportError('libnvinfer.so.11: cannot open\\nand more')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(module._MODULES, "tensorrt", "tensorrt_broken")
    with pytest.raises(
        CoolsdError, match=r"expected a package that loads, found libnvinfer.so.11: cannot open; install"
    ):
        Package("tensorrt").load()


def test_the_gpu_is_that_of_torch() -> None:
    assert local_gpu(torch_with("13.0", True)) == Gpu("Fake H200", "9.0", 100)
    assert require_gpu(torch_with("13.0", True)).capability == "9.0"
    assert local_gpu(torch_with("13.0", False)) is None


@pytest.mark.parametrize(
    ("cuda", "words"), [(None, "built without CUDA"), ("13.0", "torch for CUDA 13.0.*driver that is too old")]
)
def test_no_gpu_says_why_and_names_the_cpu_backend(cuda: str | None, words: str) -> None:
    with pytest.raises(
        CoolsdError, match=rf"expected an NVIDIA GPU, found .*{words}.*onnxruntime, which runs on a CPU"
    ):
        require_gpu(torch_with(cuda, False))


def test_importing_what_plans_a_build_imports_neither_package_nor_torch() -> None:
    modules = ["build", "facts", "inspect", "log", "memory", "network", "package", "profiles"]
    code = "import sys; " + "; ".join(f"import coolsd_rt.backends.tensorrt.{m}" for m in modules)
    code += "; print([m for m in ('tensorrt', 'tensorrt_rtx', 'torch', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
