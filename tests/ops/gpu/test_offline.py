"""The kernels compiled for GPUs that are not here: they compile, and at the size that matters nothing spills."""

from __future__ import annotations

import os
from importlib import metadata

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from coolsd_rt.errors import CoolsdError
from coolsd_rt.ops.gpu.shapes import block, process_warps, warps
from tools.gpu.offline_ops import Compiled, Kernel, compiled

KERNELS: tuple[Kernel, ...] = ("process_logits", "sample", "verify", "window", "draft_token", "commit")


def sane(made: Compiled) -> None:
    assert f".target sm_{made.arch}" in made.ptx
    assert f".entry {made.name}(" in made.ptx
    assert made.cubin[:4] == b"\x7fELF"
    assert 0 < made.registers * made.warps * 32 <= 65536
    assert made.shared <= 48 * 1024  # more must be asked for at launch


# Bytes a thread. Triton 3.9 spills nothing; 3.6, which PyTorch 2.11 brings, a few numbers of the widest kernel.
SPILL = 0 if tuple(map(int, metadata.version("triton").split(".")[:2])) >= (3, 9) else 160


@pytest.mark.parametrize("arch", [80, 90, 120])
@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_spills(kernel: Kernel, arch: int) -> None:
    made = compiled(kernel, arch, 16384)
    print(kernel, f"sm_{arch}", {key: getattr(made, key) for key in ("warps", "registers", "spilled", "shared")})
    sane(made)
    assert made.spilled <= SPILL


def test_arithmetic_is_as_written() -> None:
    """No fused multiply-add, which CFG and top-k would feel; a minimum that keeps NaN, which a fault is made of."""
    for kernel in KERNELS:
        assert "fma." not in compiled(kernel, 90, 16384).ptx
    assert "min.NaN.f32" in compiled("verify", 90, 16384).ptx


@pytest.mark.parametrize(
    ("kernel", "vocab", "constants", "logits"),
    [
        ("process_logits", 16384, {"scale": None, "forced": None, "u": None, "tokens": None}, "bf16"),
        ("process_logits", 1000, {"forced": None}, "fp16"),
        ("verify", 1, {"KIND": "residual", "rates": None, "forced": None, "LB": 1}, "fp32"),
        ("verify", 16384, {"KIND": "target"}, "fp32"),
        ("window", 1, {"LB": 1, **dict.fromkeys(("scales", "scale", "fixed", "forced", "is_forced"))}, "fp32"),
        ("draft_token", 16384, {"last": None, "forced": None, "peaks": None}, "bf16"),
        ("draft_token", 1000, {"scale": None, "LB": 2}, "fp16"),
        ("commit", 1, {"p": None, "LB": 1}, "fp32"),
    ],
)
def test_variants(kernel: Kernel, vocab: int, constants: dict[str, object], logits: str) -> None:
    made = compiled(kernel, 90, vocab, constants, logits)
    sane(made)
    assert made.spilled <= SPILL


def test_the_largest_vocabulary_compiles() -> None:
    """It does not fit into the registers of one processor: it spills, and works."""
    sane(compiled("verify", 90, 65536))


def test_a_compiler_that_fails() -> None:
    with pytest.raises(CoolsdError, match="sm_90"):
        compiled("verify", 90, 64, {"KIND": "waterfill"})


def test_blocks() -> None:
    for vocab in (1, 128, 129, 1000, 1024, 16384, 16385, 65536):
        shape = block(vocab)
        assert vocab <= shape["C"] * shape["B"] < max(2 * vocab, 257)
        assert 4 <= process_warps(vocab) <= warps(vocab) <= 32
