"""What the backend `torch` does on a GPU alone, shown without one: TF32, weights that do not fit, kernels that fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from coolsd_rt.backends.description import Description  # noqa: E402
from coolsd_rt.backends.registry import LoadOptions  # noqa: E402
from coolsd_rt.backends.torch import backend  # noqa: E402
from coolsd_rt.errors import CoolsdError  # noqa: E402
from coolsd_rt.ops.gpu import ops  # noqa: E402
from tests.device.test_device_rounds import CASES, engine_of  # noqa: E402


@pytest.mark.parametrize(("dtype", "exact"), [("float32", True), ("bfloat16", False)])
def test_images_are_decoded_in_float32_itself_at_fp32(monkeypatch: pytest.MonkeyPatch, dtype: Any, exact: bool) -> None:
    engine, seen = engine_of(CASES["plain"]).to("cpu", dtype), list[bool]()
    assert engine._tokenizer is not None
    decode = engine._tokenizer.decode

    def kept(ids: Any) -> Any:
        seen.append(torch.backends.cudnn.allow_tf32)
        return decode(ids)

    monkeypatch.setattr(engine._tokenizer, "decode", kept)
    before = torch.backends.cudnn.allow_tf32
    engine.decode_images(np.zeros((1, 16), np.int64))
    assert seen == [before and not exact]
    assert torch.backends.cudnn.allow_tf32 == before


def test_weights_that_do_not_fit_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nand more")

    for name in ("target", "draft", "image"):
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(1_000_000))
    description = Description(engine_of(CASES["plain"]).dims, 3, 8)
    manifest = SimpleNamespace(contract=description.as_dict(), spec={"engine": {"device": "cuda"}})
    verified: Any = SimpleNamespace(manifest=manifest, path=lambda name: tmp_path / name)
    monkeypatch.setattr(backend, "load_eager", full)
    with pytest.raises(CoolsdError) as caught:
        backend.load(verified, LoadOptions())
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("GPU memory for the weights: expected 3.0 MB, found ")


def test_a_kernel_that_does_not_compile_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from coolsd_rt.ops.gpu import kernels

    def compile_it(*args: Any, **named: Any) -> None:
        raise RuntimeError("at 3:4:\n    x = tl.load(y)\n        ^\nFailed to find C compiler. Please specify via CC")

    monkeypatch.setattr(kernels, "sample", {(1,): compile_it})
    monkeypatch.setattr(ops, "by_kernel", lambda tensor: True)
    with pytest.raises(CoolsdError) as caught:
        ops.sample(torch.ones(1, 1, 8), torch.zeros(1, 1))
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(
        "the kernel sample: expected triton to compile and launch it, found RuntimeError: Failed to find"
    )
    assert "C compiler" in said
